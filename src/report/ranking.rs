//! The models by mean `generation_speed`.

use super::{Format, Run, number};
use crate::{metric::Metric, statistic::Statistic, summary::Group};

/// `1. name: X generation tokens/sec`, fastest first, and so under each load.
#[derive(Debug, Clone, Copy)]
pub struct Ranking;

impl Format for Ranking {
    fn render(&self, run: &Run) -> String {
        let rankings: Vec<_> = run.summary.comparable().iter().map(|of| ranking(of)).collect();
        rankings.join("\n")
    }
}

fn ranking(groups: &[&Group]) -> String {
    let mut out = String::from("Ranking by generation_speed (mean ± standard deviation)");
    if let Some(workload) = groups.first().and_then(|group| group.workload.as_ref()) {
        out.push_str(&format!(" under {}", workload.name));
    }
    out.push_str("\n\n");
    for (place, group) in groups.iter().enumerate() {
        out.push_str(&match line(group) {
            Ok(speed) => format!("  {}. {}: {speed}\n", place + 1, group.target.name),
            Err(why) => format!("  -. {}: not ranked: {why}\n", group.target.name),
        });
    }
    out
}

fn line(group: &Group) -> Result<String, String> {
    let metric = Metric::named("generation_speed").ok_or("no such figure")?;
    let mean = group.figure(metric, Statistic::Mean).map_err(|absent| absent.to_string())?;
    let spread = group
        .figure(metric, Statistic::Sd)
        .map_or_else(|_| String::new(), |sd| format!(" ± {}", number(sd)));
    let failed = match group.tally.failed() {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    let n = group.tally.valid;
    let mut line = format!("{}{spread} generation tokens/sec (n = {n}{failed})", number(mean));
    let throughput = Metric::named("output_throughput")
        .and_then(|metric| group.figure(metric, Statistic::Mean).ok());
    if let Some(throughput) = throughput {
        line.push_str(&format!("; {} output tokens/sec in all", number(throughput)));
    }
    Ok(line)
}
