//! One trial: the model is made ready, warmed up if it is new, and asked; each request gets a row.

use std::sync::Arc;

use jiff::Timestamp;
use llm_stream_client::SamplingTimes;
use llm_stream_core::{
    prompt::Prompt,
    recording::{ErrorKind, Recording, RequestError},
    sample::{Note, Sample},
    summary::Tally,
    text::{error_chain, visible_lines},
};

use super::{
    Cancelled, Event, RunObserver, Runner, TrialEnd, TrialOutcome, TrialPosition, guarded,
    models::ConnectedModel, preflight::Unusable, server_metrics::AnswerCount,
    server_series::ServerSampling, today,
};
use crate::{
    config::Order,
    load::{self, Answer},
    plan::{Case, Task},
    report::TrialResult,
    row::Row,
};

impl Runner<'_> {
    /// Runs one trial from the warm-up to its rows.
    pub(super) fn trial(&mut self, case: &Arc<Case>) -> Result<TrialEnd, Cancelled> {
        self.tell(Event::TrialStarted { case });
        let position = self.positions.get(case);
        self.check_cancelled()?;
        if let Some(end) = self.keep_trial(case) {
            return Ok(end);
        }
        let prepared = self.prepare(case, position);
        self.check_cancelled()?;
        // A model that is not asked has no server here: the active one may be another's.
        let before = prepared.as_ref().ok().and_then(|()| self.metrics_before());
        self.check_cancelled()?;
        // What was logged before, such as the warm-up, is not the trial's.
        self.models.active.as_ref().map(|model| model.punctuality(Vec::new()));
        let sampling = self.sample_request(case);
        let ended = match &case.task {
            Task::Prompt(prompt) if prompt.turns.is_empty() => {
                self.ask_one(case, prompt, position, prepared)
            }
            Task::Prompt(prompt) => self.converse(case, prompt, position, prepared),
            Task::Workload(workload) => self.run_load(case, workload, position, prepared),
        };
        let samples = sampling.map(|sampling| sampling.end(None)).unwrap_or_default();
        if !samples.is_empty() {
            self.tell(Event::ServerSeries { case, samples: &samples });
        }
        if let Some(before) = before.filter(|_| !self.is_cancelled()) {
            let tally = ended.as_ref().ok().and_then(|end| end.tally.as_ref());
            self.compare_metrics(case, &before, tally);
        }
        ended
    }

    /// Reads the server's metrics while a prompt is answered, unless that takes less than a second. A
    /// load has its own samples.
    fn sample_request(&self, case: &Case) -> Option<ServerSampling> {
        let model = self.models.active.as_ref().filter(|_| case.task.workload().is_none())?;
        let times = SamplingTimes::EachSecond;
        Some(ServerSampling::start(model, times, &self.options.cancellation))
    }

    /// Makes the trial's model the active one, with all that its prompts need.
    fn prepare(&mut self, case: &Arc<Case>, position: TrialPosition) -> Result<(), RequestError> {
        if let Some(error) = self.why_unusable(case) {
            let last = self.announced.replace(case.clone());
            if last.is_none_or(|last| !Arc::ptr_eq(&last.target, &case.target)) {
                self.tell(Event::ModelStarted { target: &case.target });
            }
            return Err(error);
        }
        self.activate(case, position)?;
        self.measure_lengths(case)
    }

    /// What the preflight found wrong with the trial's model.
    fn why_unusable(&self, case: &Case) -> Option<RequestError> {
        let Unusable { error, .. } = self.unusable.iter().find(|one| one.is_of(case))?;
        let message = format!("{} (preflight; not asked again)", error.message);
        Some(RequestError::new(error.kind, message))
    }

    /// Makes the trial's model the active one, and announces the trial.
    fn activate(&mut self, case: &Arc<Case>, position: TrialPosition) -> Result<(), RequestError> {
        let target = &case.target;
        if !self.models.is_active(target) {
            self.announced = None;
            self.tell(Event::ModelStarted { target });
            let takes_turns = self.plan.order != Order::AsListed;
            // Within `max_time`, further runs are measured round by round.
            let keeps_idle = takes_turns || self.plan.max_time.is_some();
            if !self.models.switch_to(target, keeps_idle) {
                self.connect(case, position)?;
            }
        }
        if self.is_cancelled() {
            return Ok(());
        }
        let last = self.announced.replace(case.clone());
        if last.is_none_or(|last| !last.task.is(&case.task)) {
            self.tell(Event::TaskStarted { case, position });
        }
        self.tell(Event::RunStarted { position });
        Ok(())
    }

    /// Connects to the trial's model, which is new, and warms it up.
    fn connect(&mut self, case: &Arc<Case>, position: TrialPosition) -> Result<(), RequestError> {
        let target = &case.target;
        let found = self.options.accesses.iter().find(|(of, _)| Arc::ptr_eq(of, target));
        let none = || RequestError::new(ErrorKind::Internal, "a model that was not selected");
        let (_, access) = found.ok_or_else(none)?;
        self.models.active = Some(ConnectedModel::connect(target, access)?);
        self.open_ledger_entry();
        if self.plan.warm_up {
            let is_valid = self.warm_up(case, position);
            self.count(AnswerCount::one(is_valid));
        }
        Ok(())
    }

    /// Sends the warm-up request; whether it had a valid answer.
    fn warm_up(&mut self, case: &Arc<Case>, position: TrialPosition) -> bool {
        self.tell(Event::WarmUpStarted { case, position });
        let Some(model) = &self.models.active else { return false };
        let answer = load::warm_up(&model.target, &model.client, &self.answer_observer());
        if self.is_cancelled() {
            return false;
        }
        let outcome = answer.outcome;
        self.tell(Event::WarmUpFinished { outcome: &outcome });
        outcome.is_ok()
    }

    pub(super) fn answer_observer(&self) -> RunObserver<'_> {
        RunObserver { observer: &*self.observer, cancellation: &self.options.cancellation }
    }

    /// One prompt, one row.
    fn ask_one(
        &mut self,
        case: &Arc<Case>,
        prompt: &Arc<Prompt>,
        position: TrialPosition,
        prepared: Result<(), RequestError>,
    ) -> Result<TrialEnd, Cancelled> {
        let started = today();
        let answer = match prepared {
            Ok(()) => self.ask_guarded(case, position),
            Err(error) => Answer::failed(error),
        };
        self.check_cancelled()?;
        let row = self.keep((case, prompt, &case.name), started, answer);
        self.summary.add(case.group.id, &[row.request()]);
        self.trials.push(TrialResult::request(&row, today()));
        let mut tally = Tally::default();
        tally.add(&row.prompt, row.case.run, &row.outcome);
        let outcome = row.outcome.as_ref().map(TrialOutcome::Answer);
        let outcome = outcome.map_err(|error| format!("{}: {error}", error.kind));
        Ok(TrialEnd { failure: self.end_trial(case, outcome), tally: Some(tally) })
    }

    fn ask_guarded(&mut self, case: &Arc<Case>, position: TrialPosition) -> Answer {
        self.tell(Event::RequestStarted { case, position });
        let asked = guarded(|| {
            let Some(model) = &self.models.active else { return cancelled() };
            load::run(case, &model.sizer, &model.client, &self.answer_observer())
        });
        self.unless_panicked(asked)
    }

    /// The answer; after a panic a failed one, and no connection, which may be in any state.
    pub(super) fn unless_panicked(&mut self, asked: Result<Answer, RequestError>) -> Answer {
        asked.unwrap_or_else(|error| {
            self.models.active = None;
            Answer::failed(error)
        })
    }

    /// Makes a request's row, and has observers store it with its recording, called `name`.
    pub(super) fn keep(
        &mut self,
        (case, prompt, name): (&Arc<Case>, &Arc<Prompt>, &str),
        started: Timestamp,
        answer: Answer,
    ) -> Row {
        let Answer { recording, mut outcome } = answer;
        // A later turn of a conversation is expected to be fast.
        if let (Ok(sample), false) = (&mut outcome, prompt.expects_cache()) {
            self.compare_with_first(case, sample);
        }
        self.note_lateness(case, recording.as_ref(), &mut outcome);
        let (case, prompt) = (case.clone(), prompt.clone());
        let mut row = Row { case, prompt, started, place: None, outcome };
        // First of all, so that a reader of the lines finds the row.
        let redactor = self.models.active.as_ref().map(|model| model.client.redactor());
        let recording = recording.as_ref();
        let event = Event::Request { row: &row, recording, name, redactor };
        if let Err(error) = self.observer.event(event) {
            row.outcome = Err(RequestError::new(ErrorKind::NotWritten, error_chain(&*error)));
        }
        row
    }

    /// Notes how the simulator kept its script for one request.
    fn note_lateness(
        &mut self,
        case: &Case,
        recording: Option<&Recording>,
        outcome: &mut Result<Sample, RequestError>,
    ) {
        let handed_over = recording.and_then(|recording| recording.origin);
        let model = self.models.active.as_ref();
        let handed_over = handed_over.into_iter().collect();
        let punctuality = model.and_then(|model| model.punctuality(handed_over));
        if let (Ok(sample), Some(punctuality)) = (outcome, punctuality) {
            sample.notes.extend(punctuality.is_late().then_some(Note::SimulatorLate));
            self.summary.add_punctuality(case.group.id, punctuality);
        }
    }

    /// Tells observers how a trial ended; returns the printable message of a failure.
    pub(super) fn end_trial(
        &mut self,
        case: &Arc<Case>,
        outcome: Result<TrialOutcome<'_>, String>,
    ) -> Option<String> {
        match outcome {
            Ok(outcome) => {
                self.tell(Event::TrialFinished { case, outcome });
                None
            }
            Err(message) => {
                let message = visible_lines(&message).into_owned();
                let outcome = TrialOutcome::Failed(&message);
                self.tell(Event::TrialFinished { case, outcome });
                Some(message)
            }
        }
    }

    /// Remembers the first answer to a prompt, with which repeats are compared.
    pub(super) fn remember_first(&mut self, case: &Case, sample: &Sample) {
        let key = (Arc::as_ptr(&case.target).addr(), case.task.key());
        self.first_ttft.entry(key).or_insert_with(|| sample.first_token());
    }

    /// Marks a repeat that came implausibly fast.
    fn compare_with_first(&mut self, case: &Arc<Case>, sample: &mut Sample) {
        if !sample.is_streamed {
            return;
        }
        // The plan keeps both alive, and so their addresses.
        let key = (Arc::as_ptr(&case.target).addr(), case.task.key());
        match self.first_ttft.get(&key) {
            // An answer that was held back has the time at which it was released, one with unread
            // text has no certain first token, and an answer that was read late came earlier.
            None if sample.is_held_back()
                || sample.is_client_delayed()
                || !sample.doubts.is_empty() => {}
            None => drop(self.first_ttft.insert(key, sample.first_token())),
            Some(first) if sample.is_much_faster_than(*first) => {
                sample.notes.push(Note::MuchFasterRepeat);
            }
            Some(_) => {}
        }
    }
}

/// The answer to a request that was cancelled.
pub(super) fn cancelled() -> Answer {
    Answer::failed(RequestError::new(ErrorKind::Interrupted, "interrupted"))
}
