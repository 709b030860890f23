//! `llm-stream-bench compare`: the changes between runs or baselines, or in the history of one.

use super::{FAILED, UNUSABLE, baselines, terminal};
use crate::{
    cli::CompareOptions,
    report::{
        changes::{self, BaselineComparison},
        trends::{self, HistoryTrends},
    },
};

pub(super) fn run(options: &CompareOptions) -> anyhow::Result<u8> {
    match options {
        CompareOptions { history: Some(name), .. } => history(name, options),
        CompareOptions { before: Some(before), now, .. } => each(before, now, options),
        // The command line requires one of them.
        _ => anyhow::bail!("`compare` needs BEFORE and NOW, or `--history FILE`"),
    }
}

/// Compares each of `later` with the runs of `before`.
fn each(before: &str, later: &[String], options: &CompareOptions) -> anyhow::Result<u8> {
    let stored = baselines::load(before)?;
    let mut code = 0;
    for (place, name) in later.iter().enumerate() {
        let now = baselines::load(name)?;
        let compared =
            BaselineComparison::of(&stored, &now, options.size / 100.0, &options.figures);
        if later.len() > 1 {
            let gap = if place > 0 { "\n" } else { "" };
            terminal::say(&format!("{gap}{before} → {name}"));
        }
        terminal::say(changes::render(&compared).trim_end());
        code = code.max(match () {
            () if compared.is_worse() => FAILED,
            () if compared.compares_nothing() => UNUSABLE,
            () => 0,
        });
    }
    Ok(code)
}

/// Searches the runs of a baseline for steps and trends.
fn history(name: &str, options: &CompareOptions) -> anyhow::Result<u8> {
    let baseline = baselines::load(name)?;
    let found = HistoryTrends::of(&baseline, options.size / 100.0, &options.figures);
    terminal::say(trends::render(&found).trim_end());
    Ok(match () {
        () if found.is_worse() => FAILED,
        () if found.groups.is_empty() => UNUSABLE,
        () => 0,
    })
}
