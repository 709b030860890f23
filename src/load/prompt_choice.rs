//! The prompt of each request that begins: in turn, or by the weights of a mix.

use std::sync::Arc;

use llm_stream_core::prompt::Prompt;
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use crate::plan::Workload;

/// Chooses prompts. All models get the same ones; each run of a mix has other choices.
pub(super) struct PromptChoice<'a> {
    workload: &'a Workload,
    random: Pcg64Mcg,
    /// How many prompts of each part were chosen; of a workload without parts, of all.
    chosen: Vec<usize>,
}

impl<'a> PromptChoice<'a> {
    pub(super) fn new(workload: &'a Workload, run: u32) -> Self {
        // The arrivals have the seed itself: choices must not depend on them.
        let seed = workload.seed.wrapping_add(run.into()) ^ 0x6d69_7800;
        Self {
            workload,
            random: Pcg64Mcg::seed_from_u64(seed),
            chosen: vec![0; workload.parts.len().max(1)],
        }
    }

    /// Returns the next prompt. Within a part, prompts take turns.
    pub(super) fn next(&mut self) -> Arc<Prompt> {
        let parts = &self.workload.parts;
        let (place, prompts) = match parts.is_empty() {
            true => (0, &self.workload.prompts),
            false => {
                let place = self.part();
                (place, &parts[place].prompts)
            }
        };
        let nth = self.chosen[place];
        self.chosen[place] += 1;
        prompts[nth % prompts.len()].clone()
    }

    fn part(&mut self) -> usize {
        let mut left: f64 = self.random.random();
        let parts = &self.workload.parts;
        let place = parts.iter().position(|part| {
            left -= part.share;
            left < 0.0
        });
        // Shares can add up to a little less than 1.
        place.unwrap_or(parts.len() - 1)
    }
}
