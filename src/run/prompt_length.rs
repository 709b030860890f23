//! The length of synthetic prompts, measured once for each model before their first trial.

use std::{slice, sync::Arc};

use llm_stream_core::{
    prompt::{Prompt, Synthetic},
    recording::{ErrorKind, RequestError},
    synthetic::LengthSearch,
};

use super::{Event, Runner, server_metrics::AnswerCount};
use crate::{
    load,
    plan::{Case, Task},
};

impl Runner<'_> {
    /// Measures the lengths of the trial's synthetic prompts, where that is still to be done.
    pub(super) fn measure_lengths(&mut self, case: &Arc<Case>) -> Result<(), RequestError> {
        let prompts = match &case.task {
            Task::Prompt(prompt) => slice::from_ref(prompt),
            Task::Workload(workload) => &workload.prompts,
        };
        for prompt in prompts {
            if let Some(synthetic) = &prompt.synthetic {
                self.measure_length(prompt, synthetic)?;
            }
        }
        Ok(())
    }

    fn measure_length(
        &mut self,
        prompt: &Arc<Prompt>,
        synthetic: &Synthetic,
    ) -> Result<(), RequestError> {
        let Some(model) = &self.models.active else { return Ok(()) };
        let unsizable = model.unsizable.iter().find(|(known, _)| Arc::ptr_eq(known, prompt));
        if let Some((_, error)) = unsizable {
            return Err(error.clone());
        }
        if self.is_cancelled() || model.sizer.has(prompt) {
            return Ok(());
        }
        let cancellation = &self.options.cancellation;
        let measured = load::measure(&model.target, prompt, synthetic, &model.client, cancellation);
        if self.is_cancelled() {
            self.count_length(synthetic, None);
            return Ok(());
        }
        self.count_length(synthetic, measured.as_ref().ok());
        self.keep_length(prompt, synthetic, measured)
    }

    /// Notes the requests that the server counted for it.
    fn count_length(&mut self, synthetic: &Synthetic, counts: Option<&LengthSearch>) {
        if synthetic.tokenizer.is_none() {
            let valid = counts.map_or(0, LengthSearch::len);
            self.count(AnswerCount { valid, failed: usize::from(counts.is_none()) });
        }
    }

    fn keep_length(
        &mut self,
        prompt: &Arc<Prompt>,
        synthetic: &Synthetic,
        measured: Result<LengthSearch, RequestError>,
    ) -> Result<(), RequestError> {
        let Some(model) = &mut self.models.active else { return Ok(()) };
        match measured {
            Ok(counts) => {
                let event = Event::LengthMeasured { prompt, synthetic, counts: &counts };
                let _ = self.observer.event(event);
                model.sizer.keep(prompt, counts);
                Ok(())
            }
            Err(error) => {
                // Other errors may not come again.
                if error.kind == ErrorKind::PromptLength {
                    model.unsizable.push((prompt.clone(), error.clone()));
                }
                Err(error)
            }
        }
    }
}
