//! `llm-stream-bench compare`: the changes between two baselines, or in the history of one.

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
        CompareOptions { before: Some(before), now: Some(now), .. } => pair(before, now, options),
        // The command line requires one of them.
        _ => anyhow::bail!("`compare` needs BEFORE and NOW, or `--history FILE`"),
    }
}

/// Compares the latest runs of two baselines.
fn pair(before: &str, now: &str, options: &CompareOptions) -> anyhow::Result<u8> {
    let (before, now) = (baselines::load(before)?, baselines::load(now)?);
    let compared = BaselineComparison::of(&before, &now, options.size / 100.0, &options.figures);
    terminal::say(changes::render(&compared).trim_end());
    Ok(match () {
        () if compared.is_worse() => FAILED,
        () if compared.compares_nothing() => UNUSABLE,
        () => 0,
    })
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
