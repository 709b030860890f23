//! Each endpoint asked before the first trial, all at the same time.

use std::{sync::Arc, thread};

use llm_stream_client::{AnswerForm, Client, ClientError, Options};
use llm_stream_core::{
    prompt::Prompt,
    protocol::Protocol,
    recording::{ErrorKind, Recording, RequestError},
};

use super::{Cancellation, Event, Observer};
use crate::{
    load,
    plan::{Access, Case, Target},
    preflight::{self, Elsewhere, Field, Finding, Question},
};

/// Most times that fields are left out and the endpoint is asked once more.
const MOST_ROUNDS: usize = 6;

/// Trials that would all fail, with the reason.
pub(super) struct Unusable {
    target: Arc<Target>,
    /// Those with these prompts; `None` for all of the model.
    prompts: Option<Vec<Arc<Prompt>>>,
    /// Why.
    pub(super) error: RequestError,
}

impl Unusable {
    /// Whether `case` is one of them. A load is one if each of its requests would fail.
    pub(super) fn is_of(&self, case: &Case) -> bool {
        let is_one = |prompt: &Arc<Prompt>| {
            let prompts = self.prompts.as_ref();
            prompts.is_none_or(|prompts| prompts.iter().any(|one| Arc::ptr_eq(one, prompt)))
        };
        let all = match case.task.workload() {
            Some(workload) => workload.prompts.iter().all(is_one),
            None => is_one(case.task.prompt()),
        };
        all && Arc::ptr_eq(&self.target, &case.target)
    }
}

/// What came of asking all endpoints.
#[derive(Default)]
pub(super) struct Preflight {
    pub(super) unusable: Vec<Unusable>,
    /// The endpoints that were asked, with their valid answers and the others.
    pub(super) asked: Vec<(Arc<Target>, Requests)>,
}

/// How many requests there were.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Requests {
    pub(super) valid: usize,
    pub(super) failed: usize,
}

/// Asks every endpoint, and tells the observer what is wrong.
pub(super) fn run(
    accesses: &[(Arc<Target>, Access)],
    cases: &[Arc<Case>],
    cancellation: &Cancellation,
    observer: &mut dyn Observer,
) -> Preflight {
    let real = || accesses.iter().filter(|(target, _)| !target.is_simulated());
    let found: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> = real()
            .map(|(target, access)| scope.spawn(|| ask(target, access, cases, cancellation)))
            .collect();
        asking.into_iter().map(|asked| asked.join().unwrap_or_default()).collect()
    });
    let mut preflight = Preflight::default();
    for ((target, _), Asked { requests, found }) in real().zip(found) {
        preflight.asked.push((target.clone(), requests));
        for (prompts, Finding { error, is_certain }) in found {
            let affected = prompts.as_deref();
            let event =
                Event::PreflightFinding { target, prompts: affected, error: &error, is_certain };
            let _ = observer.event(event);
            if is_certain {
                let target = target.clone();
                preflight.unusable.push(Unusable { target, prompts, error });
            }
        }
    }
    preflight
}

/// What came of asking an endpoint.
#[derive(Default)]
struct Asked {
    requests: Requests,
    /// What is wrong, with the prompts that it is of, or of all trials.
    found: Vec<(Option<Vec<Arc<Prompt>>>, Finding)>,
}

fn ask(
    target: &Arc<Target>,
    access: &Access,
    cases: &[Arc<Case>],
    cancellation: &Cancellation,
) -> Asked {
    Asking::new(target, access, cancellation).map_or_else(
        |error| {
            let finding = Finding { error: error.into(), is_certain: true };
            Asked { found: vec![(None, finding)], ..Asked::default() }
        },
        |asking| asking.all(preflight::questions(target, cases)),
    )
}

/// The questions to one endpoint.
struct Asking<'a> {
    target: &'a Arc<Target>,
    access: &'a Access,
    options: Options<'a>,
    client: Client,
    cancellation: &'a Cancellation,
    requests: Requests,
}

impl<'a> Asking<'a> {
    fn new(
        target: &'a Arc<Target>,
        access: &'a Access,
        cancellation: &'a Cancellation,
    ) -> Result<Self, ClientError> {
        let options = options(target, access, &access.url);
        let client = Client::new(&options)?;
        let requests = Requests::default();
        Ok(Self { target, access, options, client, cancellation, requests })
    }

    /// Asks all `questions`. What is wrong with each of them is wrong with the endpoint.
    fn all(mut self, questions: Vec<Question>) -> Asked {
        let mut found = Vec::new();
        let mut answered = false;
        for Question { prompt, of } in questions {
            match self.one(&prompt) {
                None => answered = true,
                // Another question would meet the same.
                Some((finding, false)) => {
                    let found = vec![(None, finding)];
                    return Asked { requests: self.requests, found };
                }
                Some((finding, true)) => found.push((Some(of), finding)),
            }
        }
        if !answered {
            found = joined(found);
        }
        Asked { requests: self.requests, found }
    }

    /// Asks `prompt`: what is wrong, if anything is, and whether it may be the fields of this request.
    fn one(&mut self, prompt: &Prompt) -> Option<(Finding, bool)> {
        let answer = self.probe(self.target, prompt);
        let status = answer.recording.as_ref().map(|recording| recording.status);
        let refusal = refusal(&answer);
        let mut finding = preflight::finding(self.target, answer.outcome.err()?, status)?;
        let by_fields = refusal.and_then(|refusal| self.without_fields(prompt, &refusal));
        let is_of_fields = by_fields.is_some() || matches!(status, Some(400 | 422));
        let hint = by_fields.or_else(|| self.other_place(&finding, status));
        if let Some(hint) = hint {
            finding = finding.with(Some(hint));
        } else if preflight::is_about_path_or_model(&finding, status) {
            finding = finding.with(self.by_models());
        }
        finding.error.message = self.client.redactor().redact(&finding.error.message);
        Some((finding, is_of_fields))
    }

    fn probe(&mut self, target: &Target, prompt: &Prompt) -> load::Answer {
        let (answer, requests) = load::probe(target, prompt, &self.client, self.cancellation);
        let valid = usize::from(answer.outcome.is_ok());
        self.requests.valid += valid;
        self.requests.failed += requests - valid;
        answer
    }

    /// The hint where the `refusal` names fields: asks without them, and without what is then named.
    /// `None` where that does not help.
    fn without_fields(&mut self, prompt: &Prompt, refused: &str) -> Option<String> {
        let named = |target: &Target, refused: &str| {
            preflight::refused(&load::trial_body(target, prompt), refused)
        };
        let mut left = named(self.target, refused);
        for _ in 0..MOST_ROUNDS {
            if left.is_empty() || self.cancellation.is_cancelled() {
                return None;
            }
            let target = self.leaving_out(&left);
            let answer = self.probe(&target, prompt);
            if let Some(counts) = answered(&target, &answer) {
                let (left, counts) = self.fewest(prompt, left, counts);
                return Some(preflight::without(&left, self.target, counts));
            }
            let more = named(&target, &refusal(&answer)?);
            let known = left.len();
            left.extend(more.into_iter().filter(|field| !left.contains(field)).collect::<Vec<_>>());
            if left.len() == known {
                return None;
            }
        }
        None
    }

    /// The fewest of `fields` that have to be left out, and whether the answer is then counted: a
    /// server may name other fields, too.
    fn fewest(
        &mut self,
        prompt: &Prompt,
        mut fields: Vec<Field>,
        mut counts: Option<bool>,
    ) -> (Vec<Field>, Option<bool>) {
        let mut nth = 0;
        while fields.len() > 1 && nth < fields.len() {
            let mut fewer = fields.clone();
            fewer.remove(nth);
            let target = self.leaving_out(&fewer);
            let answer = self.probe(&target, prompt);
            match answered(&target, &answer) {
                Some(counted) => (fields, counts) = (fewer, counted),
                None => nth += 1,
            }
        }
        (fields, counts)
    }

    /// The model without `fields` in its requests.
    fn leaving_out(&self, fields: &[Field]) -> Target {
        let Target { extra_body, max_tokens, .. } = &**self.target;
        let extra_body = preflight::left_out(extra_body, fields, *max_tokens);
        Target { extra_body, ..Target::clone(self.target) }
    }

    /// The hint where nothing is at the path that was asked.
    fn other_place(&self, finding: &Finding, status: Option<u16>) -> Option<String> {
        let url = &self.access.url;
        let is_missing =
            status == Some(404) && self.answer_at(self.target.protocol, url)?.status == 404;
        if !is_missing || finding.speaks_of_a_model() {
            return None;
        }
        let mut found: Vec<Elsewhere> = Vec::new();
        for place in preflight::elsewhere(self.target, url) {
            // One place of each protocol is enough: llama-server speaks at `/v1` and without it.
            let is_found = found.iter().any(|other| other.protocol.name() == place.protocol.name());
            let answer = || self.answer_at(place.protocol, &place.url);
            if !is_found && answer().is_some_and(|it| preflight::is_there(&it, place.protocol)) {
                found.push(place);
            }
        }
        let nothing = preflight::nothing_there(self.target, url, &found);
        match found.is_empty() {
            true => {
                Some(self.by_models().map_or(nothing.clone(), |more| format!("{nothing}; {more}")))
            }
            false => Some(nothing),
        }
    }

    /// What a path of the same server answers to something that is not a request.
    fn answer_at(&self, protocol: &'static dyn Protocol, url: &str) -> Option<Recording> {
        let answer = AnswerForm::Document;
        let client = Client::new(&Options { url, protocol, answer, ..self.options }).ok()?;
        client.send(preflight::NO_REQUEST, self.cancellation).ok()
    }

    /// What the server's lists of models say.
    fn by_models(&self) -> Option<String> {
        let lists = preflight::model_lists(&self.access.url, self.target.protocol);
        let models = |url: &String| -> Option<Vec<String>> {
            let answer = AnswerForm::Document;
            let client = Client::getting(&Options { url, answer, ..self.options }).ok()?;
            preflight::models(&client.send(b"", self.cancellation).ok()?)
        };
        let found: Vec<_> = lists.iter().map(models).collect();
        preflight::hint(self.target, &lists, &found)
    }
}

/// What a server says that may be a refusal of a field; some say it in an answer with status 200.
fn refusal(answer: &load::Answer) -> Option<String> {
    let recording = answer.recording.as_ref()?;
    match &answer.outcome {
        Err(_) if preflight::may_refuse_fields(recording.status) => {
            Some(String::from_utf8_lossy(&recording.body()).into_owned())
        }
        Err(error) if matches!(error.kind, ErrorKind::InBand | ErrorKind::NotAStream) => {
            Some(error.message.clone())
        }
        _ => None,
    }
}

/// Whether the server took the request. If so, whether it counted the answer's tokens, where that is
/// known: an answer of which only the first token was read has no count yet.
fn answered(target: &Target, answer: &load::Answer) -> Option<Option<bool>> {
    let status = answer.recording.as_ref()?.status;
    match &answer.outcome {
        Ok(_) => Some(Some(true)),
        Err(error) if error.kind == ErrorKind::NoUsage => Some(Some(false)),
        Err(error) if (200..300).contains(&status) => {
            let is_fault = preflight::finding(target, error.clone(), Some(status)).is_some();
            (!is_fault).then_some(None)
        }
        Err(_) => None,
    }
}

/// Findings that together are about all trials, as one: the first, with the others' messages.
fn joined(
    found: Vec<(Option<Vec<Arc<Prompt>>>, Finding)>,
) -> Vec<(Option<Vec<Arc<Prompt>>>, Finding)> {
    let mut found = found.into_iter().map(|(_, finding)| finding);
    let Some(mut first) = found.next() else { return Vec::new() };
    for other in found.filter(|other| other.is_certain == first.is_certain) {
        if !first.error.message.contains(&other.error.message) {
            first.error.message = format!("{}; {}", first.error.message, other.error.message);
        }
    }
    vec![(None, first)]
}

fn options<'a>(target: &Target, access: &'a Access, url: &'a str) -> Options<'a> {
    let timeouts = preflight::timeouts(target.request_timeouts());
    Options { timeouts, ..target.client_options(access, url) }
}
