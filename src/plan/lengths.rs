//! `input_tokens` and `output_tokens` of a workload, which replace those of its prompts.

use std::sync::Arc;

use llm_stream_core::{
    lengths::LengthRange,
    prompt::{Prompt, Synthetic},
};

use crate::config::{self, Config, ConfigError};

/// Returns the prompts of `workload` with its lengths.
pub(super) fn applied(
    config: &Config,
    workload: &config::WorkloadConfig,
    prompts: Vec<Arc<Prompt>>,
    errors: &mut Vec<ConfigError>,
) -> Vec<Arc<Prompt>> {
    let (input, output) = (workload.input_tokens, workload.output_tokens);
    if input.is_none() && output.is_none() {
        return prompts;
    }
    let mut error = |what: &str, help: &str| {
        errors.push(config.error_in(&workload.name, what, help));
    };
    if input.is_some() && prompts.iter().all(|prompt| prompt.synthetic.is_none()) {
        let what = "`input_tokens` has no effect: no prompt of the workload is generated";
        error(what, "add a prompt with `synthetic: { input_tokens: 2048 }`, or remove it");
    }
    let demands = |prompt: &&Arc<Prompt>| {
        output.zip(prompt.output.min_tokens).is_some_and(|(range, least)| range.least < least)
    };
    if let Some(prompt) = prompts.iter().find(demands) {
        let what = format!("`output_tokens` is less than `min_tokens` of `{}`", prompt.name);
        error(&what, "write more, or give the prompt fewer `min_tokens`");
    }
    prompts.iter().map(|prompt| Arc::new(of_lengths(prompt, input, output))).collect()
}

fn of_lengths(prompt: &Prompt, input: Option<LengthRange>, output: Option<LengthRange>) -> Prompt {
    let mut prompt = prompt.clone();
    if let (Some(length), Some(synthetic)) = (input, &prompt.synthetic) {
        prompt.synthetic = Some(Synthetic { length, ..synthetic.clone() });
    }
    if let Some(range) = output {
        prompt.output.set_range(range);
    }
    let turns = std::mem::take(&mut prompt.turns);
    prompt.turns = turns.iter().map(|turn| Arc::new(of_lengths(turn, input, output))).collect();
    prompt
}
