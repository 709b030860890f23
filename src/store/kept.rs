//! The trials of a stored run that a resumed run keeps.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use llm_stream_core::{prompt::Prompt, request_line::RequestLine};

use super::{
    folder::{self, REQUESTS, RESULTS},
    requests::{self, RequestReader},
    rows,
};
use crate::{
    plan::{Case, Plan, Task},
    row::{LoadPosition, Row},
    run::{KeptRows, KeptTrials},
};

/// The trials of a stored run that have all of their rows, each of them valid. Of a load, requests may
/// have failed as far as its thresholds allow.
pub(crate) struct StoredTrials {
    file: File,
    trials: HashMap<String, StoredTrial>,
}

/// A trial with the places of its lines in the file.
#[derive(Default)]
struct StoredTrial {
    lines: Vec<(u64, usize)>,
    /// Whether a request failed.
    has_failed: bool,
    /// Of a load that was the load asked for: how busy the receiving thread was.
    load: Option<Option<f64>>,
}

impl StoredTrials {
    /// Reads the run in `folder` and selects the trials of `plan` that it has.
    pub(crate) fn open(folder: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let path = folder::requests(folder).with_context(|| {
            format!(
                "cannot resume the run: {} has no {REQUESTS}, which has the requests to keep (a run \
                 with `--requests none` has none)",
                folder.display()
            )
        })?;
        let context = || format!("cannot resume the run: cannot read {}", path.display());
        let file = requests::seekable(&path).with_context(context)?;
        let mut reader = RequestReader::open(&path).with_context(context)?;
        let mut trials: HashMap<String, StoredTrial> = HashMap::new();
        while let Some((place, line)) = reader.next_with_place()? {
            let trial = trials.entry(line.trial.into_owned()).or_default();
            trial.has_failed |= line.error_kind.is_some();
            trial.lines.push(place);
        }
        for (name, busy) in rows::valid_loads(&folder.join(RESULTS))? {
            if let Some(trial) = trials.get_mut(&name) {
                trial.load = Some(busy);
            }
        }
        let wanted: HashMap<_, _> =
            plan.cases.iter().map(|case| (case.name.as_str(), case)).collect();
        trials.retain(|name, trial| {
            wanted.get(name.as_str()).is_some_and(|case| trial.is_complete(&case.task))
        });
        Ok(Self { file, trials })
    }

    /// The number of trials that are kept.
    pub(crate) fn len(&self) -> usize {
        self.trials.len()
    }
}

impl StoredTrial {
    fn is_complete(&self, task: &Task) -> bool {
        match task {
            Task::Prompt(prompt) => !self.has_failed && self.lines.len() == 1 + prompt.turns.len(),
            Task::Workload(_) => self.load.is_some(),
        }
    }
}

impl KeptTrials for StoredTrials {
    fn rows<'a>(&'a mut self, case: &Arc<Case>) -> Option<KeptRows<'a>> {
        let trial = self.trials.get(&case.name)?;
        let (case, file) = (case.clone(), &mut self.file);
        Some(Box::new(trial.lines.iter().map(move |place| row(&case, &line(file, *place)?))))
    }

    fn busy(&self, case: &Case) -> Option<f64> {
        self.trials.get(&case.name)?.load?
    }
}

fn line(file: &mut File, (position, length): (u64, usize)) -> io::Result<RequestLine<'static>> {
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(position))?;
    file.read_exact(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(invalid)?;
    RequestLine::from_json(&text).map_err(invalid)
}

fn row(case: &Arc<Case>, line: &RequestLine<'_>) -> io::Result<Row> {
    let place = line.place();
    let prompt = prompt(case, line).ok_or_else(|| {
        invalid(format!("the trial {} has no prompt `{}`", place.trial, place.prompt))
    })?;
    let outcome = line.outcome(&case.target.token_count).map_err(invalid)?;
    let position = place.request.map(|request| LoadPosition {
        request,
        replica: place.replica.unwrap_or_default(),
        scheduled: place.scheduled,
        sent: place.handed_over,
        begun: place.begun.unwrap_or_default(),
        ended: place.ended.unwrap_or_default(),
    });
    let (case, started) = (case.clone(), place.started);
    Ok(Row { case, prompt, started, place: position, outcome })
}

/// Returns the prompt of the line: one of the trial's, or a turn of one.
fn prompt(case: &Case, line: &RequestLine<'_>) -> Option<Arc<Prompt>> {
    let prompts = match &case.task {
        Task::Prompt(prompt) => std::slice::from_ref(prompt),
        Task::Workload(workload) => &workload.prompts,
    };
    let all = prompts.iter().flat_map(|prompt| [prompt].into_iter().chain(&prompt.turns));
    let turn = |prompt: &Prompt| prompt.turn.as_ref().map(|turn| turn.number);
    all.into_iter()
        .find(|prompt| prompt.title() == line.prompt && turn(prompt) == line.turn)
        .cloned()
}

fn invalid(problem: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_string())
}
