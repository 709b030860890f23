//! A trial that is a conversation: one turn after another, each with a row.

use std::sync::Arc;

use llm_stream_core::{prompt::Prompt, recording::RequestError, summary::Tally, text::counted};

use super::{
    Cancelled, Event, Runner, TrialEnd, TrialOutcome, TrialPosition, guarded, today,
    trial::cancelled,
};
use crate::{
    load::{Answer, Conversation},
    plan::Case,
    report::TrialResult,
    row::Row,
};

impl Runner<'_> {
    /// Asks all turns, as long as there are answers to continue with.
    pub(super) fn converse(
        &mut self,
        case: &Arc<Case>,
        prompt: &Arc<Prompt>,
        position: TrialPosition,
        prepared: Result<(), RequestError>,
    ) -> Result<TrialEnd, Cancelled> {
        let mut conversation = Conversation::numbered(case.run.into());
        let mut rows: Vec<Row> = Vec::new();
        let turns = [prompt].into_iter().chain(&prompt.turns);
        for (turn, number) in turns.zip(1..) {
            let started = today();
            let answer = match &prepared {
                Ok(()) => self.ask_turn(case, turn, position, &mut conversation),
                Err(error) => Answer::failed(error.clone()),
            };
            if self.is_cancelled() {
                self.end_interrupted_conversation(case, &rows);
                return Err(Cancelled);
            }
            let name = format!("{}::turn-{number}", case.name);
            let row = self.keep((case, turn, &name), started, answer);
            if let Ok(sample) = &row.outcome {
                self.tell(Event::TurnFinished { number, sample });
            }
            let is_over = row.outcome.is_err();
            if !is_over && conversation.is_blank() && number <= prompt.turns.len() {
                self.tell(Event::TurnWithoutText { number });
            }
            rows.push(row);
            if is_over {
                break;
            }
        }
        Ok(self.end_conversation(case, &rows))
    }

    /// Counts the trial.
    fn end_conversation(&mut self, case: &Arc<Case>, rows: &[Row]) -> TrialEnd {
        let requests: Vec<_> = rows.iter().map(Row::request).collect();
        self.summary.add(case.group.id, &requests);
        self.trials.extend(TrialResult::conversation(rows, today()));
        let tally = tally(rows);
        let failure = rows.iter().zip(1..).find_map(|(row, number)| {
            let error = row.outcome.as_ref().err()?;
            Some(format!("turn {number}: {}: {error}", error.kind))
        });
        let outcome = failure.map_or(Ok(TrialOutcome::Conversation(&tally)), Err);
        let failure = self.end_trial(case, outcome);
        TrialEnd { failure, tally: Some(tally) }
    }

    /// Sums up the turns that ended before an interrupt.
    fn end_interrupted_conversation(&mut self, case: &Arc<Case>, rows: &[Row]) {
        if let Some(trial) = TrialResult::conversation(rows, today()) {
            let why = format!("interrupted after {}", counted(rows.len(), "turn"));
            self.trials.push(trial.interrupted(why));
            self.summary.add_interrupted(case.group.id, tally(rows));
        }
    }

    fn ask_turn(
        &mut self,
        case: &Arc<Case>,
        turn: &Prompt,
        position: TrialPosition,
        conversation: &mut Conversation,
    ) -> Answer {
        self.tell(Event::RequestStarted { case, position });
        let asked = guarded(|| {
            let Some(model) = &self.models.active else { return cancelled() };
            conversation.ask(&model.target, turn, &model.client, &self.answer_observer())
        });
        self.unless_panicked(asked)
    }
}

fn tally(rows: &[Row]) -> Tally {
    let mut tally = Tally::default();
    rows.iter().for_each(|row| tally.add(&row.prompt, row.case.run, &row.outcome));
    tally
}
