//! Workflow commands of GitHub Actions, which shows them above the log: an error for each threshold
//! that was missed and each trial that failed, a warning for each threshold that is inconclusive.
//!
//! The runner reads them from stdout and stderr alike (`ScriptHandler.cs` of actions/runner hands
//! both to its command manager), and shows ten of a sort in a step.
//!
//! <https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands>

use llm_stream_core::verdict::{Outcome, Verdict};

use super::{Exporter, Run, TrialResult, thresholds};
use crate::config::Inconclusive;

/// Errors and warnings, a line each.
#[derive(Debug, Clone, Copy)]
pub struct Annotations;

/// How many of a sort are shown.
const MOST: usize = 10;

impl Exporter for Annotations {
    fn render(&self, run: &Run) -> String {
        // What was judged first: a broken endpoint fails more trials than are shown.
        let missed = thresholds_of(run, Outcome::Fail, "Threshold missed");
        let unclear = thresholds_of(run, Outcome::Inconclusive, "Threshold inconclusive");
        let (failing, warnings) = match run.ending.inconclusive {
            Inconclusive::Fail => (unclear, Vec::new()),
            Inconclusive::Warn => (Vec::new(), unclear),
            // Whoever lets them pass wants to hear no more of them.
            Inconclusive::Pass => (Vec::new(), Vec::new()),
        };
        let errors = [missed, failing, trials(run)].concat();
        commands("error", &errors) + &commands("warning", &warnings)
    }
}

/// A title and a message.
type Note = (String, String);

fn thresholds_of(run: &Run, outcome: Outcome, what: &str) -> Vec<Note> {
    let note = |name: &str, verdict: &Verdict| {
        let actual = thresholds::actual(verdict);
        let wanting = thresholds::needed(verdict).map(|wanting| format!("; {wanting}"));
        let limit = &verdict.threshold;
        let message = format!("{limit} (actual: {actual}{})", wanting.unwrap_or_default());
        (format!("{what}: {name}"), message)
    };
    let of_group = run.verdicts.iter().flat_map(|judged| {
        let verdicts = judged.verdicts.iter().filter(|verdict| verdict.outcome() == outcome);
        verdicts.map(|verdict| note(&judged.name, verdict))
    });
    of_group.collect()
}

fn trials(run: &Run) -> Vec<Note> {
    let note = |trial: &TrialResult| {
        let failure = trial.failure.as_ref()?;
        let message = format!("{}: {}", failure.kind, failure.message);
        Some((format!("Trial failed: {}", trial.case.name), message))
    };
    run.trials.iter().filter_map(note).collect()
}

/// The notes as commands; of too many, the last says how many there are besides.
fn commands(command: &str, notes: &[Note]) -> String {
    let shown = if notes.len() > MOST { MOST - 1 } else { notes.len() };
    let more = notes.len() - shown;
    let more = (more > 0)
        .then(|| ("And more".to_owned(), format!("{more} more of them: see the log of this step")));
    let line = |(title, message): &Note| {
        format!("::{command} title={}::{}\n", property(title), data(message))
    };
    notes[..shown].iter().chain(&more).map(line).collect()
}

/// A message, in which a line feed would end the command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property, in which a colon or comma would end it, too.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
