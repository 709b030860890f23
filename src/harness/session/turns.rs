//! A trial that is a conversation: a turn after the other, a row each.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use libtest_mimic::Measurement;
use llm_stream_core::{
    prompt::Prompt,
    recording::{ErrorKind, RequestError},
    summary::Tally,
};

use super::{Session, Stopped, TrialPosition, failed, told, workload};
use crate::{
    harness::output::today,
    load::{Answer, Conversation, NO_TEXT},
    plan::Case,
    report::TrialResult,
    row::Row,
};

impl Session {
    /// Asks all turns, as long as there are answers to carry on with.
    pub(super) fn converse(
        &mut self,
        case: &Arc<Case>,
        prompt: &Arc<Prompt>,
        place: TrialPosition,
        prepared: Result<(), RequestError>,
    ) -> Result<Measurement, Stopped> {
        let mut conversation = Conversation::default();
        let mut rows: Vec<Row> = Vec::new();
        let turns = [prompt].into_iter().chain(&prompt.turns);
        for (turn, number) in turns.zip(1..) {
            let started = today();
            let answer = match &prepared {
                Ok(()) => self.turn_guarded(case, turn, place, &mut conversation),
                Err(error) => Answer { recording: None, outcome: Err(error.clone()) },
            };
            if self.interrupt.came() {
                return Err(Stopped::Interrupted);
            }
            let name = format!("{}::turn-{number}", case.name);
            let row = self.write((case, turn, &name), started, answer);
            if let Ok(sample) = &row.outcome {
                self.terminal.err(&format!("      Turn {number}: {}", told(sample)));
            }
            let is_over = row.outcome.is_err();
            if !is_over && conversation.is_blank() && number <= prompt.turns.len() {
                let next = number + 1;
                self.terminal.err(&format!(
                    "      Turn {number} has no answer text: turn {next} is sent `{NO_TEXT}` for it\n"
                ));
            }
            rows.push(row);
            if is_over {
                break;
            }
        }
        self.conclude(&rows)
    }

    /// Counts the trial.
    fn conclude(&mut self, rows: &[Row]) -> Result<Measurement, Stopped> {
        let requests: Vec<_> = rows.iter().map(Row::request).collect();
        if let Some(first) = rows.first() {
            self.summary.add(first.case.group.id, &requests);
        }
        self.trials.extend(TrialResult::conversation(rows, today()));
        let mut tally = Tally::default();
        rows.iter().for_each(|row| tally.add(&row.prompt, row.case.run, &row.outcome));
        let measurement = workload::measurement(&tally);
        self.measured = Some(tally);
        let failure = rows.iter().zip(1..).find_map(|(row, number)| {
            let error = row.outcome.as_ref().err()?;
            Some(format!("turn {number}: {}: {error}", error.kind))
        });
        if let Some(failure) = failure {
            return Err(self.failed(failure));
        }
        Ok(measurement)
    }

    /// Asks a turn; a panic, which is a defect of ours, is a failed one.
    fn turn_guarded(
        &mut self,
        case: &Arc<Case>,
        turn: &Prompt,
        place: TrialPosition,
        conversation: &mut Conversation,
    ) -> Answer {
        let asked = panic::catch_unwind(AssertUnwindSafe(|| {
            let interrupted = || failed(ErrorKind::Interrupted, "interrupted");
            let Some(live) = &self.live else { return interrupted() };
            self.show_progress(case, place);
            let follower = self.follower();
            let asking = conversation.ask(&live.target, turn, &live.client, &follower);
            self.runtime.block_on(self.interrupt.or(asking)).unwrap_or_else(interrupted)
        }));
        asked.unwrap_or_else(|_| {
            // Its connection may be in any state.
            self.live = None;
            failed(ErrorKind::Internal, "a defect of llm-stream-bench: see the panic above")
        })
    }
}
