//! Each endpoint asked once, all at the same time, before the first trial.

use std::{sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;

use super::{interrupt::Interrupt, terminal::Terminal};
use crate::{
    client::{Client, Options, Watch},
    load::{self, Follow},
    plan::{Access, Target},
    preflight::{self, Finding},
    recording::{Chunk, ErrorKind, RequestError},
    sample,
};

/// The models whose trials would all fail, with the reason.
pub(super) type Unusable = Vec<(Arc<Target>, RequestError)>;

/// Asks, and says in a line each what is wrong. Whose trials would fail, and who answered.
pub(super) fn run(
    accesses: &[(Arc<Target>, Access)],
    interrupt: &Interrupt,
    terminal: &Terminal,
) -> (Unusable, Vec<Arc<Target>>) {
    let real = || accesses.iter().filter(|(target, _)| !target.is_simulated());
    let found: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> =
            real().map(|(target, access)| scope.spawn(|| ask(target, access, interrupt))).collect();
        asking.into_iter().map(|asked| asked.join().unwrap_or(Asked::InVain)).collect()
    });
    let (mut unusable, mut answered) = (Unusable::new(), Vec::new());
    for ((target, _), asked) in real().zip(found) {
        let Finding { error, is_certain } = match asked {
            Asked::Answered => {
                answered.push(target.clone());
                continue;
            }
            Asked::InVain => continue,
            Asked::Found(finding) => finding,
        };
        let (head, tail) = match is_certain {
            true => ("ERROR", "its trials are not run"),
            false => ("WARNING", "its trials are run all the same"),
        };
        terminal
            .err(&format!("{head}: {}: {}: {}; {tail}\n", target.name, error.kind, error.message));
        if is_certain {
            unusable.push((target.clone(), error));
        }
    }
    (unusable, answered)
}

/// What came of asking an endpoint.
enum Asked {
    /// A valid answer.
    Answered,
    /// Nothing that says anything.
    InVain,
    /// Something is wrong with it.
    Found(Finding),
}

fn ask(target: &Arc<Target>, access: &Access, interrupt: &Interrupt) -> Asked {
    try_asking(target, access, interrupt).unwrap_or_else(|error| {
        let error = RequestError::new(ErrorKind::Connect, format!("{error:#}"));
        Asked::Found(Finding { error, is_certain: true })
    })
}

fn try_asking(
    target: &Arc<Target>,
    access: &Access,
    interrupt: &Interrupt,
) -> anyhow::Result<Asked> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let options = options(target, access, &access.url);
    let client = Client::new(&options)?;
    let waiting = Waiting(interrupt);
    let answer = runtime.block_on(load::probe(target, &client, &waiting));
    let status = answer.recording.map(|recording| recording.status);
    let error = match answer.outcome {
        Ok(_) => return Ok(Asked::Answered),
        Err(error) => error,
    };
    let Some(mut finding) = preflight::finding(target, error, status) else {
        return Ok(Asked::InVain);
    };
    if preflight::is_about_path_or_model(&finding, status) {
        let lists = preflight::model_lists(&access.url, target.protocol);
        let models = |url: &String| -> Option<Vec<String>> {
            let client = Client::getting(&Options { url, ..options }).ok()?;
            preflight::models(&runtime.block_on(client.send(Bytes::new(), &waiting)).ok()?)
        };
        let found: Vec<_> = lists.iter().map(models).collect();
        finding = finding.with(preflight::mend(target, &lists, &found));
    }
    finding.error.message = client.secrets().hidden_in(&finding.error.message);
    Ok(Asked::Found(finding))
}

fn options<'a>(target: &Target, access: &'a Access, url: &'a str) -> Options<'a> {
    Options {
        url,
        headers: &access.headers,
        api_key: access.key.as_ref(),
        timeouts: preflight::timeouts(target.timeouts),
        transport: target.transport,
        connection: target.connection,
        protocol: target.protocol,
        route: &access.route,
    }
}

/// Nothing is shown of an answer; an interrupt ends the wait for it.
struct Waiting<'a>(&'a Interrupt);

impl Follow for Waiting<'_> {
    fn is_cancelled(&self) -> bool {
        self.0.came()
    }
}

impl Watch for Waiting<'_> {
    fn arrived(&self, _: &Chunk) {}

    fn last_token(&self, _: &[Chunk]) -> Option<Duration> {
        None
    }

    /// A list of models is one document.
    fn has_ended(&self, chunks: &[Chunk], _: usize) -> bool {
        sample::is_document(chunks)
    }

    fn is_cancelled(&self) -> bool {
        self.0.came()
    }
}
