//! The models by mean `generation_speed`.

use super::{Format, Run, number};
use crate::{metric::Metric, statistic::Statistic, summary::ModelSummary};

/// `1. name: X generation tokens/sec`, fastest first.
#[derive(Debug, Clone, Copy)]
pub struct Ranking;

impl Format for Ranking {
    fn render(&self, run: &Run) -> String {
        let mut out = String::from("Ranking by generation_speed (mean ± standard deviation)\n\n");
        for (place, model) in run.summary.ranking().into_iter().enumerate() {
            let line = line(model);
            out.push_str(&match line {
                Ok(speed) => format!("  {}. {}: {speed}\n", place + 1, model.target.name),
                Err(why) => format!("  -. {}: not ranked: {why}\n", model.target.name),
            });
        }
        out
    }
}

fn line(model: &ModelSummary) -> Result<String, String> {
    let metric = Metric::named("generation_speed").ok_or("no such figure")?;
    let mean = model.figure(metric, Statistic::Mean).map_err(|absent| absent.to_string())?;
    let spread = model
        .figure(metric, Statistic::Sd)
        .map_or_else(|_| String::new(), |sd| format!(" ± {}", number(sd)));
    let n = model.samples.len();
    let failed = match model.failed() {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    Ok(format!("{}{spread} generation tokens/sec (n = {n}{failed})", number(mean)))
}
