//! The file of a baseline: runs of this program, oldest first.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::GroupBaseline;
use crate::{
    group::GroupSpec,
    metric::{DEFINITIONS, Metric},
    summary::Summary,
    text::{counted, visible_json},
};

/// The schema in the file.
const SCHEMA: &str = "llm-stream-bench/baseline/2";

/// The schema of files of one run.
const SCHEMA_OF_ONE_RUN: &str = "llm-stream-bench/baseline/1";

/// The stored runs of a file: at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// All runs but the latest, oldest first.
    pub(super) earlier: Vec<StoredRun>,
    pub(super) latest: StoredRun,
}

/// A stored run of this program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredRun {
    /// The version of this program.
    pub version: String,
    /// The machine of the run.
    pub machine: String,
    /// The start of the run. Older files lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<Timestamp>,
    /// The user's name for the run, such as a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether the run failed and was stored anyway: its level is accepted as the new reference.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
    /// The groups: each model with its prompts, and under each load.
    pub groups: Vec<GroupBaseline>,
}

/// The stored runs that are comparable to a group, oldest first: at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct History<'a> {
    /// The comparable groups, oldest first.
    pub entries: Vec<HistoryEntry<'a>>,
    /// The runs that are left out with the reason, and differences that may affect the figures.
    pub notes: Vec<String>,
}

/// A group of a stored run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HistoryEntry<'a> {
    /// The run.
    pub run: &'a StoredRun,
    /// The group.
    pub group: &'a GroupBaseline,
}

/// Why a baseline has no comparable group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum BaselineMismatch {
    /// The baseline lacks the model or the load.
    #[error("the baseline has no `{0}`")]
    Missing(String),
    /// A setting differs.
    #[error("the baseline has another {what}: {then}, not {now}")]
    Differs {
        /// The setting.
        what: String,
        /// Its value in the baseline.
        then: String,
        /// Its value now.
        now: String,
    },
}

/// Why a file is not a usable baseline.
#[derive(Debug, thiserror::Error)]
pub enum ParseBaselineError {
    /// The file does not have the format.
    #[error("it is not a baseline")]
    Unreadable(#[from] serde_json::Error),
    /// The file has another schema.
    #[error("it is `{0}`, not `{SCHEMA}`")]
    Other(String),
    /// The file has other metric definitions.
    #[error("its figures have the definitions {0}, not {DEFINITIONS}")]
    Definitions(String),
    /// The file has no run.
    #[error("it holds no run")]
    Empty,
    /// The file has a number that no run measures.
    #[error(
        "{metric} of `{group}` holds {value:e}, which no run measures: save the baseline again"
    )]
    Impossible {
        /// The group.
        group: String,
        /// The metric.
        metric: String,
        /// The number.
        value: f64,
    },
}

/// The runs of a file.
#[derive(Deserialize)]
struct Runs {
    runs: Vec<StoredRun>,
}

impl Baseline {
    /// Creates the baseline of a run, without date and label.
    pub fn of(summary: &Summary, machine: &str) -> Self {
        let measured = summary.groups.iter().filter(|group| group.tally.valid > 0);
        let latest = StoredRun {
            version: env!("CARGO_PKG_VERSION").into(),
            machine: machine.into(),
            date: None,
            label: None,
            accepted: false,
            groups: measured.map(|group| GroupBaseline::of(group, machine)).collect(),
        };
        Self { earlier: Vec::new(), latest }
    }

    /// Sets the date of the latest run.
    #[must_use]
    pub fn dated(mut self, date: Timestamp) -> Self {
        self.latest.date = Some(date);
        self
    }

    /// Sets the label of the latest run.
    #[must_use]
    pub fn labelled(mut self, label: &str) -> Self {
        self.latest.label = Some(label.to_owned());
        self
    }

    /// Marks the latest run as failed, but stored on request.
    #[must_use]
    pub fn accepted(mut self) -> Self {
        self.latest.accepted = true;
        self
    }

    /// Parses a file that [`to_json`](Self::to_json) formatted, or an older file of one run.
    pub fn from_json(text: &str) -> Result<Self, ParseBaselineError> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        let field = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let schema = field("schema");
        if schema != SCHEMA && schema != SCHEMA_OF_ONE_RUN {
            return Err(ParseBaselineError::Other(schema));
        }
        if field("definitions") != DEFINITIONS {
            return Err(ParseBaselineError::Definitions(field("definitions")));
        }
        let mut runs = match schema == SCHEMA {
            true => serde_json::from_value::<Runs>(value)?.runs,
            false => vec![serde_json::from_value(value)?],
        };
        for group in runs.iter_mut().flat_map(|run| &mut run.groups) {
            if let Some((metric, value)) = group.impossible_value() {
                let (group, metric) = (group.name.clone(), metric.to_owned());
                return Err(ParseBaselineError::Impossible { group, metric, value });
            }
            group.number_runs();
        }
        let latest = runs.pop().ok_or(ParseBaselineError::Empty)?;
        Ok(Self { earlier: runs, latest })
    }

    /// Formats the baseline as a file. Each run is one line, so that a run which is added to a file
    /// in a repository is one added line.
    pub fn to_json(&self) -> String {
        let line = |run| serde_json::to_string(run).unwrap_or_default();
        let runs: Vec<_> = self.runs().map(line).collect();
        let [schema, definitions] = [SCHEMA, DEFINITIONS].map(|text| format!("\"{text}\""));
        let runs = runs.join(",\n");
        let json = format!(
            "{{\"schema\":{schema},\"definitions\":{definitions},\"runs\":[\n{runs}\n]}}\n"
        );
        visible_json(&json).into_owned()
    }

    /// Adds the runs of `other` and drops the oldest ones, so that at most `keep` remain. The
    /// latest run always remains.
    #[must_use]
    pub fn append(self, other: Self, keep: usize) -> Self {
        let Self { mut earlier, latest } = self;
        earlier.push(latest);
        earlier.extend(other.earlier);
        let surplus = (earlier.len() + 1).saturating_sub(keep.max(1));
        earlier.drain(..surplus);
        Self { earlier, latest: other.latest }
    }

    /// Returns the latest run.
    pub fn latest(&self) -> &StoredRun {
        &self.latest
    }

    /// Returns the runs, oldest first.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = &StoredRun> + Clone {
        self.earlier.iter().chain([&self.latest])
    }

    /// Returns the number of runs.
    pub fn run_count(&self) -> usize {
        self.earlier.len() + 1
    }

    /// Returns whether no run has a valid request.
    pub fn is_empty(&self) -> bool {
        self.runs().all(|run| run.groups.is_empty())
    }

    /// Returns the group of the latest run with the same model and the same load.
    pub fn group(&self, of: &GroupBaseline) -> Result<&GroupBaseline, BaselineMismatch> {
        self.latest.group(of)
    }

    /// Returns the levels of `metric` in the runs since the last accepted run, oldest first. Runs without
    /// the model and the load of `spec` are left out; the settings of
    /// the others may differ from those of `spec`.
    pub fn levels(&self, spec: &GroupSpec, metric: &Metric) -> Vec<f64> {
        let runs: Vec<_> = self.runs().collect();
        let accepted = runs.iter().rposition(|run| run.accepted).unwrap_or(0);
        let groups = runs[accepted..].iter().filter_map(|run| {
            run.groups.iter().find(|group| group.is_of(&spec.model, spec.workload_name()))
        });
        let groups: Vec<_> = groups.collect();
        super::series(&groups, metric, spec.min_share).into_iter().flatten().collect()
    }

    /// Returns the stored groups that are comparable to `now`. If none is, it is an error: the
    /// mismatch of the latest run.
    pub fn history(&self, now: &GroupBaseline) -> Result<History<'_>, BaselineMismatch> {
        let mut entries = Vec::new();
        let (mut left_out, mut differences) = (Vec::new(), Vec::new());
        for run in self.runs() {
            let group = run.group(now);
            match group.and_then(|group| Ok((group, group.comparable_to(now)?))) {
                Ok((group, notes)) => {
                    entries.push(HistoryEntry { run, group });
                    differences.extend(notes);
                }
                Err(mismatch) => left_out.push(mismatch),
            }
        }
        if entries.is_empty() {
            // The file has a run, so there is a mismatch.
            return Err(left_out.pop().unwrap_or(BaselineMismatch::Missing(now.name.clone())));
        }
        let mut notes = Vec::new();
        for (mismatch, runs) in counts(left_out) {
            let runs = counted(runs, "stored run");
            notes.push(format!("{runs} of {} not used: {mismatch}", self.run_count()));
        }
        for (difference, runs) in counts(differences) {
            notes.push(match runs == entries.len() {
                true => difference,
                false => format!("in {runs} of {} stored runs {difference}", entries.len()),
            });
        }
        Ok(History { entries, notes })
    }
}

impl StoredRun {
    /// Returns the group with the same model and the same load.
    pub fn group(&self, of: &GroupBaseline) -> Result<&GroupBaseline, BaselineMismatch> {
        let found = self.groups.iter().find(|group| group.is_of_the_same(of));
        found.ok_or_else(|| BaselineMismatch::Missing(of.name.clone()))
    }
}

impl<'a> History<'a> {
    /// Returns the entries since the last accepted run, that run included: an accepted run failed
    /// and was stored anyway, so its level replaces the level of the runs before it.
    pub fn since_accepted(&self) -> &[HistoryEntry<'a>] {
        let accepted = self.entries.iter().rposition(|entry| entry.run.accepted);
        &self.entries[accepted.unwrap_or(0)..]
    }
}

/// Counts equal items.
fn counts<T: Ord>(items: Vec<T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metric;

    /// A file of the first format: two prompts, three runs, and a load of two batches.
    fn first_format(max_tokens: &str) -> String {
        format!(
            r#"{{"schema":"llm-stream-bench/baseline/1","definitions":"{DEFINITIONS}",
            "version":"0.1.0","machine":"here","groups":[
            {{"name":"m","model":"m","setting":{{"max_tokens":"{max_tokens}"}},
              "surroundings":{{"machine":"here"}},"prompts":[["a","1"],["b","2"]],
              "strata":[0,1,1,0,0,1],"figures":{{"ttft":[1,2,3,4,5,6]}},
              "partial":{{"tpot":{{"could":6,"values":[7,8],"strata":[1,1]}}}}}},
            {{"name":"m, c2","model":"m","workload":"c2","setting":{{"load":"2 at a time"}},
              "surroundings":{{"machine":"here"}},"prompts":[["a","1"]],"strata":[0,0,0],
              "figures":{{"ttft":[1,2,3],"request_throughput":[10,12]}},
              "partial":{{"output_throughput":{{"could":2,"have":1,"values":[5],"strata":[]}}}}}}
            ]}}"#
        )
    }

    fn parsed(max_tokens: &str) -> Baseline {
        Baseline::from_json(&first_format(max_tokens)).unwrap()
    }

    #[test]
    fn a_file_of_the_first_format_opens_as_one_run_with_run_numbers() {
        let baseline = parsed("8");
        assert_eq!((baseline.run_count(), baseline.latest().date), (1, None));
        let side = |group: usize, metric, share| {
            baseline.latest().groups[group].side(metric, share).unwrap().unwrap()
        };
        let ttft = side(0, Metric::TTFT, 0.9);
        assert_eq!(ttft.runs(), [1, 1, 2, 2, 3, 3]);
        assert_eq!(ttft.of_runs(), [(1, 1.5), (2, 3.5), (3, 5.5)]);
        assert_eq!(side(0, Metric::TPOT, 0.1).runs(), [1, 2]);
        // The number of runs of a load is unknown, so that one run is the safe assumption.
        assert_eq!(side(1, Metric::TTFT, 0.9).runs(), [1, 1, 1]);
        let throughput = side(1, Metric::REQUEST_THROUGHPUT, 0.9);
        assert_eq!((throughput.runs(), throughput.of_runs()), (&[1, 1][..], vec![(1, 11.0)]));
        assert_eq!(side(1, Metric::OUTPUT_THROUGHPUT, 0.1).of_runs(), [(1, 5.0)]);
        assert_eq!(Baseline::from_json(&baseline.to_json()).unwrap(), baseline);
    }

    #[test]
    fn runs_are_appended_and_the_oldest_are_dropped() {
        let run = |label: &str| parsed("8").labelled(label);
        let labels = |baseline: &Baseline| -> Vec<_> {
            baseline.runs().map(|run| run.label.clone().unwrap()).collect()
        };
        let all = run("a").append(run("b").accepted(), 30).append(run("c"), 30);
        assert_eq!(labels(&all), ["a", "b", "c"]);
        let text = all.to_json();
        assert_eq!(text.lines().count(), 5, "a line for each run");
        assert_eq!(Baseline::from_json(&text).unwrap(), all);
        let group = &all.latest().groups[0];
        assert_eq!(all.history(group).unwrap().since_accepted().len(), 2);
        assert_eq!(labels(&all.clone().append(run("d"), 3)), ["b", "c", "d"]);
        assert_eq!(labels(&all.clone().append(all, 0)), ["c"]);
    }

    #[test]
    fn a_history_leaves_out_other_settings_and_counts_them() {
        let (eight, nine) = (parsed("8"), parsed("9"));
        let mixed = nine.clone().append(eight.clone(), 30).append(eight.clone(), 30);
        let history = mixed.history(&eight.latest().groups[0]).unwrap();
        assert_eq!(history.entries.len(), 2);
        let why = "1 stored run of 3 not used: the baseline has another max_tokens: 9, not 8";
        assert_eq!(history.notes, [why]);
        let other = parsed("10");
        let error = mixed.history(&other.latest().groups[0]).unwrap_err().to_string();
        assert_eq!(error, "the baseline has another max_tokens: 8, not 10", "the latest");
        let load = mixed.history(&eight.latest().groups[1]).unwrap();
        assert_eq!((load.entries.len(), load.notes.len()), (3, 0));
    }

    #[test]
    fn another_machine_in_some_runs_is_a_note_with_their_number() {
        let here = parsed("8");
        let there = first_format("8").replace("\"here\"", "\"there\"");
        let both = Baseline::from_json(&there).unwrap().append(here.clone(), 30);
        let notes = both.history(&here.latest().groups[0]).unwrap().notes;
        assert_eq!(notes, ["in 1 of 2 stored runs another machine: there, now here"]);
        let notes = Baseline::from_json(&there).unwrap();
        let notes = notes.history(&here.latest().groups[0]).unwrap().notes;
        assert_eq!(notes, ["another machine: there, now here"]);
    }

    #[test]
    fn numbers_that_no_run_measures_are_refused() {
        for (field, bad) in [
            ("\"ttft\":[1,", "\"ttft\":[1e300,"),
            ("\"ttft\":[1,", "\"ttft\":[-1,"),
            ("\"values\":[7,", "\"values\":[-7e-9,"),
            ("\"values\":[5]", "\"values\":[1e16]"),
        ] {
            let text = first_format("8").replacen(field, bad, 1);
            let error = Baseline::from_json(&text).unwrap_err();
            assert!(matches!(error, ParseBaselineError::Impossible { .. }), "{bad}: {error}");
        }
        for bad in ["NaN", "1e999", "Infinity", "null", "\"NaN\"", "[[1]]"] {
            let text = first_format("8").replacen("[1,2,3,4", &format!("[{bad},2,3,4"), 1);
            assert!(Baseline::from_json(&text).is_err(), "{bad}");
        }
        let deep = first_format("8").replacen("[1,2,3,4", &"[".repeat(1_000_000), 1);
        assert!(Baseline::from_json(&deep).is_err());
    }

    #[test]
    fn a_file_without_a_run_or_of_another_schema_is_refused() {
        let none = parsed("8").to_json();
        let none = none.split('\n').next().unwrap().to_owned() + "]}";
        assert_eq!(Baseline::from_json(&none).unwrap_err().to_string(), "it holds no run");
        let other = first_format("8").replace("baseline/1", "baseline/3");
        let error = Baseline::from_json(&other).unwrap_err().to_string();
        assert_eq!(error, "it is `llm-stream-bench/baseline/3`, not `llm-stream-bench/baseline/2`");
    }
}
