//! Workflow commands of GitHub Actions, which shows them above the log: an error for each threshold
//! that was missed and each trial that failed, a warning for each threshold that is inconclusive.
//!
//! The runner reads them from stdout and stderr alike (`ScriptHandler.cs` of actions/runner passes
//! both to its command manager), and shows ten of a kind per step.
//!
//! <https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands>

use llm_stream_core::{
    text::printable,
    verdict::{Outcome, Verdict},
};

use super::{Exporter, Run, TrialResult, thresholds};
use crate::config::Inconclusive;

/// Errors and warnings, one line each.
#[derive(Debug, Clone, Copy)]
pub struct Annotations;

/// The number of annotations of a kind that GitHub shows.
const MAX_SHOWN: usize = 10;

impl Exporter for Annotations {
    fn render(&self, run: &Run) -> String {
        // Thresholds come first: the failed trials of a broken endpoint alone exceed the limit.
        let missed = thresholds_of(run, Outcome::Fail, "Threshold missed");
        let unclear = thresholds_of(run, Outcome::Inconclusive, "Threshold inconclusive");
        let (failing, warnings) = match run.ending.inconclusive {
            Inconclusive::Fail => (unclear, Vec::new()),
            Inconclusive::Warn => (Vec::new(), unclear),
            // The config lets them pass, so they are not reported.
            Inconclusive::Pass => (Vec::new(), Vec::new()),
        };
        let (failed, unlisted) = failed_trials(run);
        let errors = [missed, failing, failed].concat();
        commands("error", &errors, unlisted) + &commands("warning", &warnings, 0)
    }
}

/// A title and a message.
type Annotation = (String, String);

fn thresholds_of(run: &Run, outcome: Outcome, title: &str) -> Vec<Annotation> {
    let annotation = |name: &str, verdict: &Verdict| {
        let why = thresholds::format_actual_and_why(verdict);
        let message = format!("{} ({why})", verdict.threshold);
        (format!("{title}: {name}"), message)
    };
    let annotations = run.verdicts.iter().flat_map(|group| {
        let verdicts = group.verdicts.iter().filter(|verdict| verdict.outcome() == outcome);
        verdicts.map(|verdict| annotation(&group.name, verdict))
    });
    annotations.collect()
}

/// Returns the first failed trials, and the number of the others.
fn failed_trials(run: &Run) -> (Vec<Annotation>, usize) {
    let annotation = |trial: &TrialResult| {
        let failure = trial.failure.as_ref()?;
        let message = format!("{}: {}", failure.kind, failure.message);
        Some((format!("Trial failed: {}", trial.case.name), message))
    };
    let failed = || run.trials.iter().filter(|trial| trial.failure.is_some());
    let first: Vec<_> = failed().take(MAX_SHOWN).filter_map(|trial| annotation(&trial)).collect();
    let others = failed().count() - first.len();
    (first, others)
}

/// Formats the annotations as commands. If there are too many, with `unlisted` further ones, the last
/// one gives the number of the others.
fn commands(command: &str, annotations: &[Annotation], unlisted: usize) -> String {
    let all = annotations.len() + unlisted;
    let shown = if all > MAX_SHOWN { MAX_SHOWN - 1 } else { all };
    let more = all - shown;
    let more = (more > 0)
        .then(|| ("And more".to_owned(), format!("{more} more of them: see the log of this step")));
    let line = |(title, message): &Annotation| {
        format!("::{command} title={}::{}\n", property(title), data(message))
    };
    annotations[..shown].iter().chain(&more).map(line).collect()
}

/// Makes a message printable and escapes it: a line feed would end the command.
fn data(text: &str) -> String {
    printable(text).replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a property, which a colon or a comma would end, too.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
