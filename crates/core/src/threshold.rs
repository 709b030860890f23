//! Thresholds such as `ttft p95 <= 500 ms`, parsed from the config. Pure.
//!
//! ```text
//! METRIC [STATISTIC] COMPARISON VALUE [UNIT]           ttft p95 <= 500 ms
//! METRIC [STATISTIC] COMPARISON CHANGE % of baseline   generation_speed >= -3 % of baseline
//! METRIC [STATISTIC] COMPARISON CHANGE % of MODEL      tpot <= +5 % of Qwen, old build
//! METRIC trend COMPARISON CHANGE %                     generation_speed trend >= -5 %
//! ```

use std::fmt;

use crate::{
    metric::{Better, Metric, MetricSource, SUCCESS_RATE, Unit},
    statistic::Statistic,
};

/// A limit on one statistic of one metric.
///
/// The default statistic is `mean`. Times need a unit, so that `ttft <= 500` cannot mean 500
/// seconds.
#[derive(Debug, Clone)]
pub struct Threshold {
    /// The metric.
    pub metric: &'static Metric,
    /// The statistic.
    pub statistic: Statistic,
    /// The comparison.
    pub comparison: Operator,
    /// The limit in the metric's base unit; for a limit on a change, as a share.
    pub limit: f64,
    /// The figure's counterpart.
    pub against: Against,
}

/// The counterpart of a figure under a threshold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Against {
    /// A value.
    Value,
    /// The same figure in the stored runs: `-3 % of baseline`.
    Baseline,
    /// The same figure of another model of this run, measured in turns with it: `-3 % of MODEL`.
    Model(String),
    /// The course of the figure over the stored runs and this one: `trend >= -5 %`.
    History,
}

/// The comparison of a figure with its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `>=`
    AtLeast,
    /// `>`
    Above,
    /// `<=`
    AtMost,
    /// `<`
    Below,
}

/// Why a text is not a threshold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseThresholdError {
    /// The problem.
    pub message: String,
    /// Its position in the text, in bytes.
    pub offset: usize,
    /// The fix.
    pub help: String,
}

impl Threshold {
    /// Parses a threshold of the config.
    pub fn parse(text: &str) -> Result<Self, ParseThresholdError> {
        let mut words = Words { text, at: 0 };
        let metric = parse_metric(&mut words)?;
        let (statistic, is_trend) = parse_statistic(&mut words, metric)?;
        let comparison = parse_comparison(&mut words)?;
        let (limit, against) = match is_trend {
            true => (parse_trend(&mut words, metric, comparison)?, Against::History),
            false => parse_limit(&mut words, metric)?,
        };
        if against != Against::Value && matches!(statistic, Statistic::Min | Statistic::Max) {
            return Err(ParseThresholdError {
                message: format!("a change of `{statistic}` is only chance"),
                offset: text.find(&statistic.to_string()).unwrap_or_default(),
                help: "it describes only these requests: use a percentile, such as p99".into(),
            });
        }
        if let Some((offset, rest)) = words.rest() {
            return Err(ParseThresholdError {
                message: format!("unexpected `{rest}` after the threshold"),
                offset,
                help: "write one threshold an entry, such as `ttft p95 <= 500 ms`".into(),
            });
        }
        let parsed = Self { metric, statistic, comparison, limit, against };
        match parsed.certain_outcome() {
            None => Ok(parsed),
            Some((outcome, help)) => {
                let symbol = text.find(comparison.symbol()).unwrap_or_default();
                let after = symbol + comparison.symbol().len();
                let blanks = text[after..].len() - text[after..].trim_start().len();
                let message = format!("{outcome} meets this limit");
                Err(ParseThresholdError { message, offset: after + blanks, help })
            }
        }
    }

    /// Returns `every run` or `no run` if the range of the figure decides, and the reason.
    fn certain_outcome(&self) -> Option<(&'static str, String)> {
        let (low, high, range) = self.range();
        let limit = self.limit;
        let (always, never) = match self.comparison {
            Operator::AtLeast => (limit <= low, limit > high),
            Operator::Above => (limit < low, limit >= high),
            Operator::AtMost => (limit >= high, limit < low),
            Operator::Below => (limit > high, limit <= low),
        };
        match (always, never) {
            (true, _) => Some(("every run", range)),
            (_, true) => Some(("no run", range)),
            _ => None,
        }
    }

    /// Returns the range of the figure or of its change, as numbers and in words.
    fn range(&self) -> (f64, f64, String) {
        let name = self.metric.name;
        if self.is_relative() && !self.metric.can_be_negative() {
            return (-1.0, f64::INFINITY, format!("a change of {name} is never below -100 %"));
        }
        let is_spread = self.statistic == Statistic::Sd;
        if self.is_relative() || (self.metric.can_be_negative() && !is_spread) {
            return (f64::NEG_INFINITY, f64::INFINITY, String::new());
        }
        let is_share = *self.metric == SUCCESS_RATE || self.metric == Metric::GOODPUT_RATIO;
        match is_share && !is_spread {
            true => (0.0, 100.0, format!("{name} is between 0 % and 100 %")),
            false => (0.0, f64::INFINITY, format!("{name} is never negative")),
        }
    }

    /// Returns whether it limits a change.
    pub fn is_relative(&self) -> bool {
        self.against != Against::Value
    }

    /// Returns whether it needs stored runs.
    pub fn needs_baseline(&self) -> bool {
        matches!(self.against, Against::Baseline | Against::History)
    }

    /// Returns whether a larger figure misses the limit.
    pub fn limits_increase(&self) -> bool {
        matches!(self.comparison, Operator::AtMost | Operator::Below)
    }

    /// Formats the limit with its unit: `200 ms`.
    pub fn format_limit(&self) -> String {
        let (unit, scale) = self.metric.unit.display();
        format!("{} {unit}", decimal(self.limit * scale))
    }

    /// Formats a limit on a change: `-3 %`.
    pub fn format_change(&self) -> String {
        let sign = if self.limit >= 0.0 { "+" } else { "" };
        format!("{sign}{} %", decimal(100.0 * self.limit))
    }

    /// Returns whether `actual` meets the limit. It is in the base unit, or a share of the
    /// baseline.
    pub fn holds(&self, actual: f64) -> bool {
        match self.comparison {
            Operator::AtLeast => actual >= self.limit,
            Operator::Above => actual > self.limit,
            Operator::AtMost => actual <= self.limit,
            Operator::Below => actual < self.limit,
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = self.metric.unit.display();
        f.write_str(self.metric.name)?;
        if self.against == Against::History {
            f.write_str(" trend")?;
        } else if !matches!(self.metric.read, MetricSource::All) {
            write!(f, " {}", self.statistic)?;
        }
        let (unit, scale) = match &self.against {
            Against::Value => (unit.to_owned(), scale),
            Against::Baseline => ("% of baseline".into(), 100.0),
            Against::Model(model) => (format!("% of {}", model_name(model)), 100.0),
            Against::History => ("%".into(), 100.0),
        };
        let sign = if self.is_relative() && self.limit >= 0.0 { "+" } else { "" };
        let limit = decimal(self.limit * scale);
        write!(f, " {} {sign}{limit} {unit}", self.comparison.symbol())
    }
}

/// Formats a number without trailing zeros. With ten decimals 0.3 s is 300 ms, and not
/// 299.99999999999994 ms.
fn decimal(value: f64) -> String {
    let text = format!("{value:.10}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A model that is called `baseline` is quoted.
fn model_name(name: &str) -> String {
    if name == "baseline" { format!("`{name}`") } else { name.to_owned() }
}

impl Operator {
    const ALL: [Self; 4] = [Self::AtLeast, Self::AtMost, Self::Above, Self::Below];

    /// Returns the symbol.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::AtLeast => ">=",
            Self::Above => ">",
            Self::AtMost => "<=",
            Self::Below => "<",
        }
    }
}

/// Splits the text into words: names, comparison signs, numbers, units.
struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Takes the next characters that `belongs` accepts, with their offset. The result can be
    /// empty.
    fn take(&mut self, belongs: impl Fn(char) -> bool) -> (usize, &'a str) {
        self.skip_space();
        let rest = &self.text[self.at..];
        let end = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        let offset = self.at;
        self.at += end;
        (offset, &rest[..end])
    }

    fn rest(&mut self) -> Option<(usize, &'a str)> {
        self.skip_space();
        let rest = self.text[self.at..].trim_end();
        (!rest.is_empty()).then_some((self.at, rest))
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

fn parse_metric(words: &mut Words<'_>) -> Result<&'static Metric, ParseThresholdError> {
    let (offset, name) = words.take(is_name);
    Metric::named(name).ok_or_else(|| ParseThresholdError {
        message: match name {
            "" => "a threshold begins with a metric".into(),
            _ => format!("unknown metric `{name}`"),
        },
        offset,
        help: suggest(name, Metric::names()),
    })
}

fn parse_statistic(
    words: &mut Words<'_>,
    metric: &Metric,
) -> Result<(Statistic, bool), ParseThresholdError> {
    let (offset, name) = words.take(is_name);
    if name.is_empty() {
        return Ok((Statistic::Mean, false));
    }
    if matches!(metric.read, MetricSource::All) {
        return Err(ParseThresholdError {
            message: format!("`{}` has no statistic: it is one figure of all trials", metric.name),
            offset,
            help: format!("write `{} >= 99 %`", metric.name),
        });
    }
    if name == "trend" {
        return Ok((Statistic::Mean, true));
    }
    let statistic = Statistic::by_name(name).ok_or_else(|| ParseThresholdError {
        message: format!("unknown statistic `{name}`"),
        offset,
        help: "one of mean, median, min, max, sd, trend, or a percentile such as p95 or p99.9"
            .into(),
    });
    Ok((statistic?, false))
}

fn parse_comparison(words: &mut Words<'_>) -> Result<Operator, ParseThresholdError> {
    let (offset, symbol) = words.take(|c| "<>=!≤≥".contains(c));
    Operator::ALL.into_iter().find(|comparison| comparison.symbol() == symbol).ok_or_else(|| {
        ParseThresholdError {
            message: match symbol {
                "" if words.text[offset..].starts_with("trend") => "a trend is one of means".into(),
                "" => "a comparison is missing".into(),
                _ => format!("unknown comparison `{symbol}`"),
            },
            offset,
            help: "one of >=, <=, >, <".into(),
        }
    })
}

/// Parses the limit, in the metric's base unit or relative to a baseline.
fn parse_limit(
    words: &mut Words<'_>,
    metric: &Metric,
) -> Result<(f64, Against), ParseThresholdError> {
    let (offset, digits) = words.take(|c| c.is_ascii_digit() || "+-.".contains(c));
    let value = digits.parse().ok().filter(|value: &f64| value.is_finite());
    let value = value.ok_or_else(|| ParseThresholdError {
        message: match digits {
            "" => "the limit is missing".into(),
            _ => format!("`{digits}` is not a number"),
        },
        offset,
        help: format!("write a number, such as `{}`", example(metric)),
    })?;
    let signed = digits.starts_with(['+', '-']);
    let (offset, unit) = words.take(|c| !c.is_whitespace());
    if unit == "%" && metric.unit != Unit::Percent {
        return parse_relative(words, value, signed, offset);
    }
    let Some(scale) = scale(metric.unit, unit) else {
        let (message, help) = if unit.is_empty() {
            // 0.99 of all requests is 99 %, not 0.99 %.
            let share = metric.unit == Unit::Percent && value <= 1.0;
            let meant = if share { (value * 100.0).to_string() } else { digits.to_owned() };
            ("the limit needs a unit".into(), format!("did you mean `{meant} {}`?", usual(metric)))
        } else {
            let message = format!("`{unit}` is not a unit of {}", metric.name);
            (message, format!("write it in {}", units(metric.unit)))
        };
        return Err(ParseThresholdError { message, offset, help });
    };
    Ok((value * scale, Against::Value))
}

/// Parses the rest of a limit on the change after its `%`.
fn parse_relative(
    words: &mut Words<'_>,
    value: f64,
    signed: bool,
    percent: usize,
) -> Result<(f64, Against), ParseThresholdError> {
    let help = "a limit on the change is written `-3 % of baseline`, or `+5 % of MODEL` for another \
                model of this run";
    let refuse = |message: &str, offset: usize| {
        Err(ParseThresholdError { message: message.into(), offset, help: help.into() })
    };
    let (offset, word) = words.take(is_name);
    if word != "of" {
        let at = if word.is_empty() { percent } else { offset };
        return refuse("a percentage is one of the baseline or of another model", at);
    }
    let Some((_, name)) = words.rest() else {
        return refuse("a percentage is one of the baseline or of another model", percent);
    };
    words.at = words.text.len();
    if !signed {
        return refuse("the limit on the change has no sign", percent);
    }
    let is_quoted =
        |quote: char| name.len() > 2 && name.starts_with(quote) && name.ends_with(quote);
    Ok((
        value / 100.0,
        match name {
            "baseline" => Against::Baseline,
            _ if is_quoted('`') || is_quoted('"') || is_quoted('\'') => {
                Against::Model(name[1..name.len() - 1].to_owned())
            }
            _ => Against::Model(name.to_owned()),
        },
    ))
}

/// Parses the limit of a trend: a percentage with a sign, on the side on which the figure gets worse.
fn parse_trend(
    words: &mut Words<'_>,
    metric: &Metric,
    comparison: Operator,
) -> Result<f64, ParseThresholdError> {
    let symbol = words.text[..words.at].rfind(comparison.symbol()).unwrap_or_default();
    let (offset, digits) = words.take(|c| c.is_ascii_digit() || "+-.".contains(c));
    let (_, unit) = words.take(|c| !c.is_whitespace());
    let is_change = digits.starts_with(['+', '-']) && unit == "%";
    let parsed = digits.parse::<f64>().ok().filter(|value| value.is_finite() && is_change);
    let Some(value) = parsed else {
        return Err(ParseThresholdError {
            message: "a trend has a limit on the change".into(),
            offset,
            help: "write `trend >= -5 %` or `trend <= +5 %`".into(),
        });
    };
    let is_upper = matches!(comparison, Operator::AtMost | Operator::Below);
    let (better, right) = match metric.better {
        Better::Higher => ("higher is better", false),
        Better::Lower => ("lower is better", true),
        // Such a figure is limited on either side.
        Better::Neither => ("the sign is that of the side", is_upper),
    };
    let is_loss = if right { value >= 0.0 } else { value <= 0.0 };
    if is_upper == right && is_loss {
        return Ok(value / 100.0);
    }
    let size = decimal(value.abs());
    let meant = if right { format!("<= +{size} %") } else { format!(">= -{size} %") };
    Err(ParseThresholdError {
        message: format!("this limit of `{}` is on the better side: {better}", metric.name),
        offset: if is_upper == right { offset } else { symbol },
        help: format!("write `{} trend {meant}`", metric.name),
    })
}

/// Returns the number of base units in one `unit`.
fn scale(kind: Unit, unit: &str) -> Option<f64> {
    match (kind, unit) {
        (Unit::Seconds, "s") => Some(1.0),
        (Unit::Seconds, "ms") => Some(1e-3),
        (Unit::Seconds, "us" | "µs" | "μs") => Some(1e-6),
        (Unit::TokensPerSecond, "" | "tok/s" | "tokens/s" | "tokens/sec" | "tps") => Some(1.0),
        (Unit::Tokens, "" | "tok" | "tokens") => Some(1.0),
        (Unit::RequestsPerSecond, "" | "req/s" | "requests/s" | "rps" | "qps") => Some(1.0),
        (Unit::Requests, "" | "req" | "requests") => Some(1.0),
        (Unit::Percent, "%") => Some(1.0),
        (Unit::Joules, "J") => Some(1.0),
        (Unit::Joules, "kJ") => Some(1e3),
        (Unit::Joules, "Wh") => Some(3600.0),
        (Unit::JoulesPerToken, "J/tok" | "J/token" | "J") => Some(1.0),
        (Unit::CostPerMillionTokens, "" | "/Mtok") => Some(1.0),
        (Unit::Items, "" | "items") => Some(1.0),
        (Unit::ItemsPerSecond, "" | "items/s") => Some(1.0),
        _ => None,
    }
}

fn units(kind: Unit) -> &'static str {
    match kind {
        Unit::Seconds => "s, ms or us",
        Unit::TokensPerSecond => "tok/s, or without a unit",
        Unit::Tokens => "tokens, or without a unit",
        Unit::RequestsPerSecond => "req/s, or without a unit",
        Unit::Requests => "req, or without a unit",
        Unit::Percent => "%",
        Unit::Joules => "J, kJ or Wh",
        Unit::JoulesPerToken => "J/tok",
        Unit::CostPerMillionTokens => "/Mtok, or without a unit",
        Unit::Items => "items, or without a unit",
        Unit::ItemsPerSecond => "items/s, or without a unit",
    }
}

fn usual(metric: &Metric) -> &'static str {
    metric.unit.display().0
}

fn example(metric: &Metric) -> String {
    match metric.unit {
        Unit::Seconds => format!("{} <= 500 ms", metric.name),
        Unit::TokensPerSecond => format!("{} >= 80", metric.name),
        Unit::Tokens | Unit::Requests | Unit::Items => format!("{} >= 64", metric.name),
        Unit::RequestsPerSecond | Unit::ItemsPerSecond => format!("{} >= 10", metric.name),
        Unit::Percent if metric.better == Better::Higher => {
            format!("{} >= 99 %", metric.name)
        }
        Unit::Percent => format!("{} <= 5 %", metric.name),
        Unit::Joules => format!("{} <= 5000 J", metric.name),
        Unit::JoulesPerToken => format!("{} <= 2 J/tok", metric.name),
        Unit::CostPerMillionTokens => format!("{} <= 0.5", metric.name),
    }
}

/// Suggests the known name nearest to `name`, or lists all of them.
fn suggest(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    let known: Vec<_> = known.collect();
    let near = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => format!("one of {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match Threshold::parse(text) {
            Ok(threshold) => threshold.to_string(),
            Err(error) => format!("{}: {} ({})", error.offset, error.message, error.help),
        }
    }

    #[test]
    fn thresholds_are_read_and_written_again_with_all_that_was_left_out() {
        let cases = [
            ("generation_speed >= 80", "generation_speed mean >= 80 tok/s"),
            (
                "cost_per_million_output_tokens <= 0.5",
                "cost_per_million_output_tokens mean <= 0.5 /Mtok",
            ),
            ("energy median <= 1.5 kJ", "energy median <= 1500 J"),
            ("energy_per_output_token < 2 J/tok", "energy_per_output_token mean < 2 J/tok"),
            ("generation_speed median>80.5tok/s", "generation_speed median > 80.5 tok/s"),
            ("ttft p95 <= 500 ms", "ttft p95 <= 500 ms"),
            ("ttft p99.9<0.5s", "ttft p99.9 < 500 ms"),
            ("preprocess_time max <= 300000us", "ttft max <= 300 ms"),
            ("tpot sd <= 2ms", "tpot sd <= 2 ms"),
            ("success_rate >= 99 %", "success_rate >= 99 %"),
            ("generation_speed >= -3 % of baseline", "generation_speed mean >= -3 % of baseline"),
            ("ttft p95 <= +12.5% of baseline", "ttft p95 <= +12.5 % of baseline"),
            ("tpot <= +5 % of Qwen 3, old (v1)", "tpot mean <= +5 % of Qwen 3, old (v1)"),
            ("tpot <= +5% of `baseline`", "tpot mean <= +5 % of `baseline`"),
            ("generation_speed trend >= -5%", "generation_speed trend >= -5 %"),
            ("ttft trend < +5 %", "ttft trend < +5 %"),
            ("response_tokens trend <= +5 %", "response_tokens trend <= +5 %"),
            ("response_tokens trend >= -5 %", "response_tokens trend >= -5 %"),
            ("success_rate < 100 %", "success_rate < 100 %"),
            ("  response_tokens min >= 16  ", "response_tokens min >= 16 tokens"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected);
            assert_eq!(shown(expected), expected);
        }
    }

    #[test]
    fn an_invalid_threshold_names_the_problem_and_its_position() {
        let messages: Vec<String> = [
            "",
            "generation_sped >= 80",
            "speed >= 80",
            "ttft p95",
            "ttft p95 = 500 ms",
            "ttft p0 <= 500 ms",
            "ttft average <= 500 ms",
            "ttft <= 500",
            "ttft <= fast",
            "ttft <= 500 min",
            "ttft <= 1.2.3 ms",
            "generation_speed >= 80 ms",
            "success_rate p95 >= 99 %",
            "success_rate >= 0.99",
            "ttft <= 500 ms, tpot <= 20 ms",
            "generation_speed >= 97 % of baseline",
            "generation_speed >= -3 %",
            "generation_speed >= -3 % of",
            "generation_speed >= 3 % of main",
            "generation_speed trend >= 5 %",
            "generation_speed trend >= -5 % of baseline",
            "generation_speed trend <= +5 %",
            "ttft trend >= -5 %",
            "ttft trend <= -2.5 %",
            "generation_speed trend > +5 %",
            "success_rate >= 101 %",
            "success_rate > 100 %",
            "success_rate <= -1 %",
        ]
        .into_iter()
        .map(|text| format!("{text:?}\n  {}", shown(text)))
        .collect();
        insta::assert_snapshot!(messages.join("\n"));
    }
}
