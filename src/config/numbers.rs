//! Numbers of YAML as JSON: by YAML 1.2, and as they are written wherever JSON can write them so.
//! What YAML 1.1 and 1.2 read differently is refused.

/// Why a number cannot be sent, and the number that was probably meant.
pub(super) type Refusal = (&'static str, Option<String>);

/// Whether `text` is written like a number.
pub(super) fn is_one(text: &str) -> bool {
    let digits = unsigned(text).trim_start_matches('.');
    let is_named = ["inf", "nan"].iter().any(|name| digits.eq_ignore_ascii_case(name));
    digits.starts_with(|ch: char| ch.is_ascii_digit()) || is_named
}

/// The number `text` of YAML as JSON writes it.
pub(super) fn json(text: &str) -> Result<String, Refusal> {
    let sign = if text.starts_with('-') { "-" } else { "" };
    let number = unsigned(text);
    let lower = number.to_ascii_lowercase();
    if number.contains('_') {
        let meant = json(&text.replace('_', "")).ok();
        return Err(("a number with `_` is text in YAML 1.2", meant));
    }
    let radix = [("0x", 16), ("0o", 8), ("0b", 2)];
    if let Some((digits, radix)) =
        radix.iter().find_map(|(prefix, radix)| Some((lower.strip_prefix(prefix)?, *radix)))
    {
        let value = u128::from_str_radix(digits, radix).ok().map(|value| format!("{sign}{value}"));
        return match value {
            Some(value) if radix == 2 => Err(("it is text in YAML 1.2", Some(value))),
            Some(value) => Ok(value),
            None => Err(("it is too large", None)),
        };
    }
    decimal(sign, number)
}

/// A number of decimal digits, with a point and an exponent or without.
fn decimal(sign: &str, number: &str) -> Result<String, Refusal> {
    let (mantissa, exponent) = match number.find(['e', 'E']) {
        Some(at) => number.split_at(at),
        None => (number, ""),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !fraction.is_none_or(is_digits) {
        return Err(("JSON has no such number", None));
    }
    // JSON has a digit on either side of the point.
    let fraction = match fraction {
        None => String::new(),
        Some("") => ".0".to_owned(),
        Some(digits) => format!(".{digits}"),
    };
    let significant = whole.trim_start_matches('0');
    let plain = if significant.is_empty() { "0" } else { significant };
    let json = format!("{sign}{plain}{fraction}{exponent}");
    match whole.len() > 1 && whole.starts_with('0') {
        false => Ok(json),
        true => Err(("JSON allows no zero in front, which YAML 1.1 takes for octal", Some(json))),
    }
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_can_write_is_sent_as_it_is_written() {
        for same in [
            "0",
            "-0",
            "7",
            "-7",
            "1.10",
            "1e5",
            "1E+05",
            "1.5e-3",
            "123456789012345678901234567890",
            "1e400",
            "0.30000000000000000000000004",
        ] {
            assert_eq!(json(same).as_deref(), Ok(same));
        }
    }

    #[test]
    fn what_json_writes_otherwise_keeps_its_value() {
        for (yaml, expected) in [
            ("+1", "1"),
            (".5", "0.5"),
            ("-.5", "-0.5"),
            ("+.5e3", "0.5e3"),
            ("5.", "5.0"),
            ("5.e3", "5.0e3"),
            ("0x1F", "31"),
            ("-0x1f", "-31"),
            ("0o17", "15"),
        ] {
            assert_eq!(json(yaml).as_deref(), Ok(expected), "{yaml}");
        }
    }

    #[test]
    fn what_yaml_reads_in_two_ways_is_refused_with_what_was_meant() {
        for (yaml, meant) in [
            ("0123", Some("123")),
            ("-0123", Some("-123")),
            ("00", Some("0")),
            ("08.5", Some("8.5")),
            ("1_000", Some("1000")),
            ("0x_1F", Some("31")),
            ("0b101", Some("5")),
            (".inf", None),
            ("-.Inf", None),
            (".nan", None),
            ("0xffffffffffffffffffffffffffffffffff", None),
        ] {
            let refused = json(yaml).map_err(|(_, meant)| meant);
            assert_eq!(refused, Err(meant.map(str::to_owned)), "{yaml}");
        }
    }
}
