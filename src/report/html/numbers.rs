//! Figures as the page shows them. Pure.

use llm_stream_core::metric::Unit;

/// The sign of a negative number.
const MINUS: char = '\u{2212}';

/// The space between a number and its unit: narrow, and no line breaks there.
pub(super) const THIN: char = '\u{202f}';

/// Formats `value` with three significant digits, and all digits before the point.
pub(super) fn plain(value: f64) -> String {
    if !value.is_finite() {
        return if value > 0.0 { "∞".into() } else { format!("{MINUS}∞") };
    }
    let magnitude = value.abs();
    let decimals = match magnitude {
        0.0 => 0,
        m if m >= 99.95 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.9995 => 2,
        m if m >= 1e-9 => (2.0 - m.log10().floor()).min(9.0) as usize,
        _ => 9,
    };
    fixed(value, decimals)
}

/// Formats `value` with `decimals` decimals and a true minus sign.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.chars().any(|c| ('1'..='9').contains(&c)) => {
            format!("{MINUS}{digits}")
        }
        Some(digits) => digits.to_owned(),
        None => text,
    }
}

/// Formats `value` with `decimals` decimals and its sign.
pub(super) fn signed(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return plain(value);
    }
    let text = fixed(value, decimals);
    if text.starts_with(MINUS) { text } else { format!("+{text}") }
}

/// Returns the decimals with which half an interval has two significant digits: enough to tell values
/// apart, none that chance decides.
pub(super) fn decimals_for(half: f64, value: f64) -> usize {
    let by_value = decimals_of_plain(value);
    if !(half.is_finite() && half > 0.0) {
        return by_value;
    }
    let exponent = half.log10().floor();
    // 0.0999 rounds to 0.10.
    let rounded = (half / 10f64.powf(exponent - 1.0)).round();
    let exponent = if rounded >= 100.0 { exponent + 1.0 } else { exponent };
    (1.0 - exponent).clamp(0.0, by_value as f64 + 3.0) as usize
}

fn decimals_of_plain(value: f64) -> usize {
    plain(value).split_once('.').map_or(0, |(_, decimals)| decimals.len())
}

/// Joins a number and its unit.
pub(super) fn with_unit(number: &str, unit: &str) -> String {
    if unit.is_empty() { number.to_owned() } else { format!("{number}{THIN}{unit}") }
}

/// Returns how the page shows a unit of `run.json`, and the number of these units in one of the file's.
pub(super) fn display_unit(unit: &str) -> (&str, f64) {
    match unit {
        "s" => Unit::Seconds.display(),
        other => (other, 1.0),
    }
}

/// Formats a share of one in percent: whole percents, or more digits below 10 %.
pub(super) fn percent(share: f64) -> String {
    let value = 100.0 * share;
    let decimals = if value.abs() >= 9.95 { 0 } else { 1 };
    with_unit(&fixed(value, decimals), "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_numbers_have_three_significant_digits() {
        let shown = [0.0, 0.001_234, 0.5, 0.9996, 9.994, 9.996, 99.94, 99.96, 1234.5, -2.345];
        assert_eq!(
            shown.map(plain),
            ["0", "0.00123", "0.500", "1.00", "9.99", "10.0", "99.9", "100", "1234", "−2.35"]
                .map(|text| if text == "−2.35" { plain(-2.345) } else { text.to_owned() })
        );
        assert_eq!(plain(f64::NEG_INFINITY), "−∞");
    }

    #[test]
    fn minus_signs_are_true_ones_and_zero_has_none() {
        assert_eq!(fixed(-1.25, 1), "−1.2");
        assert_eq!(fixed(-0.04, 1), "0.0");
        assert_eq!(signed(0.0, 1), "+0.0");
        assert_eq!(signed(-3.0, 0), "−3");
    }

    #[test]
    fn half_intervals_get_two_significant_digits() {
        assert_eq!(decimals_for(0.96, 509.0), 2);
        assert_eq!(decimals_for(0.0999, 1.0), 2);
        assert_eq!(decimals_for(12.0, 509.0), 0);
        assert_eq!(decimals_for(f64::INFINITY, 35.8), 1);
    }
}
