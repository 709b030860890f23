//! JUnit XML, which every CI can show: a suite per group, a case per trial and per threshold.
//!
//! An inconclusive threshold is a *skipped* case with its reason. JUnit does not have a third verdict.
//! Viewers list skipped cases separately with their messages, but hide the messages of passed cases.
//! If inconclusive thresholds fail the run, they are failures here, too.

use std::time::Duration;

use llm_stream_core::{
    group::WorkloadSpec,
    metric::DEFINITIONS,
    summary::Group,
    text::{printable, visible_lines},
    verdict::{Outcome, Verdict},
};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Exporter, Run, RunStatus, TrialResult, number, thresholds};
use crate::config::Inconclusive;

/// Trials and thresholds as test cases.
#[derive(Debug, Clone, Copy)]
pub struct Junit;

impl Exporter for Junit {
    fn render(&self, run: &Run) -> String {
        let mut report = Report::new("llm-stream-bench");
        report.set_time(time(&run.trials));
        report.add_test_suites(run.summary.groups.iter().map(|group| suite(group, run)));
        if run.ending.ended == RunStatus::Interrupted {
            report.add_test_suite(interrupted(run));
        }
        let xml = report
            .to_string()
            .unwrap_or_else(|error| unreachable!("writes to memory succeed: {error}"));
        visible_lines(&xml).into_owned()
    }
}

fn suite(group: &Group, run: &Run) -> TestSuite {
    let mut suite = TestSuite::new(xml(&group.name()));
    let trials: Vec<_> =
        run.trials.iter().filter(|trial| trial.case.group.id == group.spec.id).collect();
    suite.set_time(time(trials.iter().copied()));
    if let Some(first) = trials.first() {
        let stamp = first.started.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string();
        suite.extra.insert("timestamp".into(), stamp.into());
    }
    suite.add_property(("endpoint", xml(&group.spec.endpoint).as_str()));
    suite.add_property(("transport", group.spec.transport));
    if let Some(workload) = &group.spec.workload {
        let WorkloadSpec { shape, until, .. } = workload;
        suite.add_property(("load", format!("{shape}, {until}").as_str()));
    }
    suite.add_property(("machine", xml(&run.machine).as_str()));
    suite.add_property(("definitions", DEFINITIONS));
    suite.add_property(("version", env!("CARGO_PKG_VERSION")));
    suite.add_test_cases(trials.into_iter().map(trial));
    let judged = run.verdicts.iter().filter(|judged| judged.group == group.spec.id);
    let verdicts = judged.flat_map(|judged| &judged.verdicts);
    suite.add_test_cases(verdicts.map(|verdict| threshold(group, verdict, run)));
    suite
}

fn trial(trial: &TrialResult) -> TestCase {
    let status = match &trial.failure {
        None => TestCaseStatus::success(),
        Some(failure) => status(NonSuccessKind::Failure, failure.kind, &failure.message),
    };
    let mut case = TestCase::new(xml(&trial.case.name), status);
    case.set_classname(xml(&trial.case.target.name));
    case.set_time(duration(trial.seconds));
    for (metric, value) in &trial.figures {
        let (unit, scale) = metric.unit.display();
        let value = format!("{} {unit}", number(value * scale));
        case.add_property((metric.name, value.as_str()));
    }
    if !trial.notes.is_empty() {
        case.add_property(("notes", xml(&trial.notes.join(" ")).as_str()));
    }
    case
}

fn threshold(group: &Group, verdict: &Verdict, run: &Run) -> TestCase {
    let actual = thresholds::format_actual(verdict);
    let status = match (verdict.outcome(), run.ending.inconclusive) {
        (Outcome::Pass, _) => TestCaseStatus::success(),
        (Outcome::Fail, _) => {
            let message = format!("missed ({})", thresholds::format_actual_and_why(verdict));
            status(NonSuccessKind::Failure, "threshold", &message)
        }
        (Outcome::Inconclusive, Inconclusive::Fail) => {
            status(NonSuccessKind::Failure, "inconclusive", &format_inconclusive(verdict))
        }
        (Outcome::Inconclusive, _) => {
            let mut skipped = TestCaseStatus::skipped();
            skipped.set_type("inconclusive").set_message(xml(&format_inconclusive(verdict)));
            skipped
        }
    };
    let limit = verdict.threshold.to_string();
    let name = match &group.spec.workload {
        None => limit,
        Some(workload) => format!("{}: {limit}", workload.name),
    };
    let mut case = TestCase::new(xml(&name), status);
    case.set_classname(xml(&group.spec.model));
    case.set_time(Duration::ZERO);
    case.add_property(("verdict", thresholds::format_outcome(verdict.outcome())));
    case.add_property(("actual", xml(&actual).as_str()));
    if let Some(partial) = thresholds::format_partial(verdict) {
        case.add_property(("figures", xml(&partial).as_str()));
    }
    case
}

/// Escapes the characters that XML forbids: no reader accepts a file with one. Viewers print the
/// texts to the logs of CI systems, whose commands are escaped, too.
fn xml(text: &str) -> String {
    printable(text)
}

fn format_inconclusive(verdict: &Verdict) -> String {
    format!("inconclusive ({})", thresholds::format_actual_and_why(verdict))
}

/// Returns a status with its message twice: some viewers show the attribute, others the text.
fn status(kind: NonSuccessKind, name: &str, message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    let message = xml(message);
    status.set_type(name).set_message(message.as_str()).set_description(message);
    status
}

/// Returns a suite with an error: the trials that were not run have not passed.
fn interrupted(run: &Run) -> TestSuite {
    let message = run.ending.reasons.join("; ");
    let status = status(NonSuccessKind::Error, "interrupted", &message);
    let mut case = TestCase::new("the run ends by itself", status);
    case.set_classname("llm-stream-bench").set_time(Duration::ZERO);
    let mut suite = TestSuite::new("llm-stream-bench");
    suite.add_test_case(case);
    suite
}

fn time<'a>(trials: impl IntoIterator<Item = &'a TrialResult>) -> Duration {
    duration(trials.into_iter().map(|trial| trial.seconds).sum())
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
