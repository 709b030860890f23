//! `precision`: how precisely means are to be known.

use llm_stream_core::{
    metric::{METRICS, Metric},
    precision::PrecisionGoal,
};

use super::{
    model,
    reader::{Entry, Reader},
    suggest::did_you_mean,
    yaml::Yaml,
};

/// A percentage for messages.
const EXAMPLE: &str = "2 %";

/// A percentage for the usual figures, or a map from metrics to percentages.
pub(super) fn precision(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Vec<PrecisionGoal>> {
    if !matches!(entry.value.value, Yaml::Map(_)) {
        return model::share(reader, entry, EXAMPLE).map(of_share);
    }
    let named = reader.map(entry, "a map from metrics to percentages", "{ ttft: 2 % }");
    if named.is_empty() {
        let help = "for example `precision: { generation_speed: 2 % }`, or `precision: 2 %`";
        reader.error(entry, "`precision` names no metric", help);
    }
    let goals: Vec<_> = named.iter().map(|(name, field)| goal(reader, name, field)).collect();
    goals.into_iter().collect()
}

fn goal(reader: &mut Reader<'_>, name: &str, entry: &Entry<'_>) -> Option<PrecisionGoal> {
    let metric = metric(name);
    if let Err((what, help)) = &metric {
        reader.error_at_key(entry, what, help);
    }
    let share = model::share(reader, entry, EXAMPLE);
    Some(PrecisionGoal { metric: metric.ok()?, share: share? })
}

/// The metric `name`; or the mistake and a hint.
fn metric(name: &str) -> Result<&'static Metric, (String, String)> {
    METRICS.iter().find(|metric| metric.name == name || metric.alias == Some(name)).ok_or_else(
        || {
            let known: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
            (format!("`precision` has the unknown metric `{name}`"), did_you_mean(name, &known))
        },
    )
}

/// The goals of a percentage that names no metric.
fn of_share(share: f64) -> Vec<PrecisionGoal> {
    PrecisionGoal::FIGURES.map(|metric| PrecisionGoal { metric, share }).into()
}

/// The goals of an argument such as `2%`, `generation_speed=2%` or `ttft=5%,tpot=1%`.
pub(crate) fn parse(text: &str) -> Result<Vec<PrecisionGoal>, String> {
    let share = |text: &str| {
        model::parse_share(text).ok_or_else(|| {
            format!("`{text}` is not a percentage above 0 % and up to 100 %, such as `{EXAMPLE}`")
        })
    };
    if !text.contains('=') {
        return share(text).map(of_share);
    }
    let goal = |part: &str| {
        let (name, text) = part.split_once('=').unwrap_or((part, ""));
        let metric = metric(name.trim()).map_err(|(what, help)| format!("{what}; {help}"))?;
        Ok(PrecisionGoal { metric, share: share(text.trim())? })
    };
    text.split(',').map(goal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_a_percentage_or_names_metrics() {
        let shown = |text: &str| {
            parse(text).map(|goals| {
                let goal = |goal: &PrecisionGoal| format!("{} {}", goal.metric.name, goal.share);
                goals.iter().map(goal).collect::<Vec<_>>().join(", ")
            })
        };
        assert_eq!(shown("2 %").unwrap(), "ttft 0.02, tpot 0.02, generation_speed 0.02");
        assert_eq!(shown("ttft=5%, tpot=0.5 %").unwrap(), "ttft 0.05, tpot 0.005");
        for (text, why) in [
            ("2", "`2` is not a percentage"),
            ("0%", "`0%` is not a percentage"),
            ("ttft=5%,tpot", "`` is not a percentage"),
            ("speed=2%", "unknown metric `speed`"),
        ] {
            assert!(shown(text).unwrap_err().contains(why), "{text}: {:?}", shown(text));
        }
    }
}
