//! Numbers of YAML as JSON, by YAML 1.2, with their digits unchanged if JSON allows them. Values
//! that YAML 1.1 and 1.2 read differently are refused, also if YAML 1.2 reads them as text.

/// Why a value cannot be sent, and the number or the boolean that was probably meant.
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
        let meant = json(&text.replace('_', "")).map_or_else(|(_, meant)| meant, Some);
        return Err(("a number with `_` is text in YAML 1.2", meant));
    }
    if number.contains(':') {
        let meant = sixtieths(number).map(|value| format!("{sign}{value}"));
        return Err(("YAML 1.1 takes it for a number to the base 60", meant));
    }
    let radix = [("0x", 16), ("0o", 8), ("0b", 2)];
    if let Some((digits, radix)) =
        radix.iter().find_map(|(prefix, radix)| Some((lower.strip_prefix(prefix)?, *radix)))
    {
        let value = u128::from_str_radix(digits, radix).ok().map(|value| format!("{sign}{value}"));
        return match value {
            Some(value) if radix == 2 => Err(("it is text in YAML 1.2", Some(value))),
            Some(value) if !number.starts_with(&lower[..2]) => {
                Err(("it is text in YAML, which has only `0x` and `0o`", Some(value)))
            }
            Some(value) => Ok(value),
            None => Err(("it is too large", None)),
        };
    }
    decimal(sign, number)
}

/// Returns the mistake in `text`, written without quotes, if YAML 1.1 reads it as a number or a
/// boolean; or its number, if it is too large for a YAML library.
pub(super) fn of_text(text: &str) -> Option<Result<String, Refusal>> {
    const BOOLEANS: [(&str, &str); 4] =
        [("yes", "true"), ("no", "false"), ("on", "true"), ("off", "false")];
    let is_boolean = |(word, _): &&(&str, &str)| {
        // YAML knows `no`, `No` and `NO`.
        let rest = text.get(1..).unwrap_or_default();
        let is_even = rest.bytes().all(|byte| byte.is_ascii_lowercase())
            || text.bytes().all(|byte| byte.is_ascii_uppercase());
        is_even && text.eq_ignore_ascii_case(word)
    };
    if let Some((_, meant)) = BOOLEANS.iter().find(is_boolean) {
        return Some(Err(("YAML 1.1 takes it for a boolean", Some((*meant).to_owned()))));
    }
    is_number(text).then(|| json(text))
}

/// Whether YAML 1.1 or 1.2 takes all of `text` for a number.
fn is_number(text: &str) -> bool {
    let bare = unsigned(text);
    if bare.starts_with('_') {
        return false;
    }
    let digits = bare.replace('_', "").to_ascii_lowercase();
    let radix = [("0x", 16), ("0o", 8), ("0b", 2)];
    let of_radix = radix
        .iter()
        .find_map(|(prefix, radix)| digits.strip_prefix(prefix).map(|digits| (digits, *radix)));
    if let Some((digits, radix)) = of_radix {
        return !digits.is_empty() && digits.chars().all(|ch| ch.is_digit(radix));
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let is_fraction = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let has_digit = digits.bytes().any(|byte| byte.is_ascii_digit());
    digits.starts_with(|ch: char| ch.is_ascii_digit() || ch == '.')
        && has_digit
        && (digits.parse::<f64>().is_ok() || sixtieths(whole).is_some() && is_fraction)
}

/// The value of `text`, which is a number to the base 60, such as `1:30`.
fn sixtieths(text: &str) -> Option<u128> {
    let (first, others) = text.split_once(':')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // Times such as `08:30` are text in both.
    if !digits(first) || first.starts_with('0') {
        return None;
    }
    others.split(':').try_fold(first.parse().ok()?, |value: u128, digit| {
        let is_digit = digits(digit) && digit.len() <= 2;
        let digit: u128 = digit.parse().ok().filter(|digit| is_digit && *digit < 60)?;
        value.checked_mul(60)?.checked_add(digit)
    })
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
            ("0X1F", Some("31")),
            ("-0O17", Some("-15")),
            (".inf", None),
            ("-.Inf", None),
            (".nan", None),
            ("0xffffffffffffffffffffffffffffffffff", None),
        ] {
            let refused = json(yaml).map_err(|(_, meant)| meant);
            assert_eq!(refused, Err(meant.map(str::to_owned)), "{yaml}");
        }
    }

    #[test]
    fn text_without_quotes_that_yaml_1_1_reads_otherwise_is_refused() {
        for (text, meant) in [
            ("10_000.5", "10000.5"),
            ("1__0", "10"),
            ("1_", "1"),
            ("-1_0", "-10"),
            ("0x_1F", "31"),
            ("0b1_0", "2"),
            ("0X1F", "31"),
            ("1:30", "90"),
            ("190:20:30", "685230"),
            ("-1:00", "-60"),
            ("no", "false"),
            ("Off", "false"),
            ("YES", "true"),
            ("on", "true"),
        ] {
            let refused = of_text(text).map(|read| read.map_err(|(_, meant)| meant));
            assert_eq!(refused, Some(Err(Some(meant.to_owned()))), "{text}");
        }
        assert!(matches!(of_text("1:30:00.5"), Some(Err((_, None)))));
        let large = "340282366920938463463374607431768211455";
        assert_eq!(of_text("0xffffffffffffffffffffffffffffffff"), Some(Ok(large.to_owned())));
        let texts = "_1 y n nO yEs none offer 7B 4-bit 1.2.3 2024-10-21 1d 08:30 1:60 1:2: 12: a:b 0x 0xg \
                     0b2 1e e3 . .. - + --5 1,000 5% inf nan infinity NaN ½ é";
        for text in texts.split(' ').chain([""]) {
            assert_eq!(of_text(text), None, "{text}");
        }
    }
}
