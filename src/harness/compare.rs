//! `llm-stream-bench compare BEFORE NOW`: what has changed between two baselines.

use super::{FAILED, UNUSABLE, baselines, terminal};
use crate::{
    cli::CompareOptions,
    report::changes::{self, BaselineComparison},
};

pub(super) fn run(options: &CompareOptions) -> anyhow::Result<u8> {
    let (before, now) = (baselines::load(&options.before)?, baselines::load(&options.now)?);
    let compared = BaselineComparison::of(&before, &now, options.size / 100.0);
    terminal::say(changes::render(&compared).trim_end());
    Ok(match () {
        () if compared.is_worse() => FAILED,
        () if compared.groups.is_empty() => UNUSABLE,
        () => 0,
    })
}
