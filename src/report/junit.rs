//! JUnit XML, which every CI can show: a suite per group, a case per trial, per threshold
//! and per goal of `precision`.
//!
//! An inconclusive threshold is a *skipped* case with its reason. JUnit does not have a third verdict.
//! Viewers list skipped cases separately with their messages, but hide the messages of passed cases.
//! If inconclusive thresholds fail the run, they are failures here, too.

use std::{
    borrow::Cow,
    io::{self, BufWriter, Write},
    time::Duration,
};

use llm_stream_core::{
    group::WorkloadSpec,
    metric::DEFINITIONS,
    precision::Precision,
    summary::Group,
    text::{printable, visible_lines},
    verdict::{Outcome, Verdict},
};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{
    Exporter, GroupVerdicts, Run, RunStatus, TrialResult, number,
    precision::{format_share, why_missed},
    thresholds,
};
use crate::config::Inconclusive;

/// Trials and thresholds as test cases.
#[derive(Debug, Clone, Copy)]
pub struct Junit;

impl Exporter for Junit {
    fn render(&self, run: &Run) -> String {
        let mut bytes = Vec::new();
        let written = self.write(run, &mut bytes);
        written.unwrap_or_else(|error| unreachable!("writes to memory succeed: {error}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes the cases in parts, because a long run has more than fit into memory.
    fn write(&self, run: &Run, out: &mut dyn Write) -> io::Result<()> {
        let mut out = BufWriter::new(out);
        let mut report = Report::new("llm-stream-bench");
        let suites: Vec<_> = run.summary.groups.iter().map(|group| suite(group, run)).collect();
        let others = (run.ending.ended == RunStatus::Interrupted).then(|| interrupted(run));
        report.set_time(time(run.trials.iter()));
        // The report counts its suites when they are added, and gets their cases below.
        report.add_test_suites(others);
        for (suite, _) in &suites {
            report.tests += suite.tests;
            report.failures += suite.failures;
            report.skipped += suite.skipped;
        }
        let text = xml_of(&report)?;
        let end = text.rfind("</testsuites>").unwrap_or(text.len());
        let begin = text.find("    <testsuite ").unwrap_or(end);
        out.write_all(&text.as_bytes()[..begin])?;
        for (group, (suite, limits)) in run.summary.groups.iter().zip(suites) {
            write_suite((group, suite, limits), run, &mut out)?;
        }
        out.write_all(&text.as_bytes()[begin..])?;
        out.flush()
    }
}

/// The number of cases that are in memory at a time.
const CASES: usize = 256;

/// Writes a suite with the cases of its trials and `limits`, those of its thresholds.
fn write_suite(
    (group, suite, limits): (&Group, TestSuite, Vec<TestCase>),
    run: &Run,
    out: &mut dyn Write,
) -> io::Result<()> {
    let text = xml_of_suite(suite)?;
    let end = text.rfind("    </testsuite>").unwrap_or(text.len());
    out.write_all(&text.as_bytes()[..end])?;
    let mut cases = run.trials.of(group.spec.id).map(|result| trial(&result)).chain(limits);
    loop {
        let part: Vec<_> = cases.by_ref().take(CASES).collect();
        if part.is_empty() {
            break;
        }
        let mut suite = TestSuite::new("");
        suite.add_test_cases(part);
        let text = xml_of_suite(suite)?;
        // Text in attributes and elements has no `<`.
        let begin = text.find("        <testcase ").unwrap_or(text.len());
        let end = text.rfind("    </testsuite>").unwrap_or(text.len());
        out.write_all(&text.as_bytes()[begin..end])?;
    }
    out.write_all(&text.as_bytes()[end..])
}

/// Returns the suite's element with its line ends.
fn xml_of_suite(suite: TestSuite) -> io::Result<String> {
    let mut report = Report::new("");
    report.add_test_suite(suite);
    let text = xml_of(&report)?;
    let begin = text.find("    <testsuite ").unwrap_or(text.len());
    let end = text.rfind("</testsuites>").unwrap_or(text.len());
    Ok(text[begin..end].to_owned())
}

fn xml_of(report: &Report) -> io::Result<String> {
    let xml = report.to_string().map_err(io::Error::other)?;
    Ok(visible_lines(&xml).into_owned())
}

/// Returns the cases of a group's thresholds and precision goals.
fn limits(group: &Group, run: &Run) -> Vec<TestCase> {
    let judged = run.verdicts.iter().filter(|judged| judged.group == group.spec.id);
    let verdicts = judged.flat_map(|GroupVerdicts { verdicts, notes, .. }| {
        verdicts.iter().map(|verdict| threshold(group, verdict, notes, run))
    });
    let goals = run.precision.iter().filter(|of| of.group == group.spec.id);
    let goals = goals.flat_map(|of| &of.figures).map(|figure| precision(group, figure, run));
    verdicts.chain(goals).collect()
}

/// Returns the suite without its cases, which it counts, and the cases of its limits.
fn suite(group: &Group, run: &Run) -> (TestSuite, Vec<TestCase>) {
    let mut suite = TestSuite::new(xml(&group.name()));
    let limits = limits(group, run);
    // Counts them.
    suite.add_test_cases(limits.iter().cloned());
    suite.test_cases.clear();
    suite.set_time(time(run.trials.of(group.spec.id)));
    for (nth, trial) in run.trials.of(group.spec.id).enumerate() {
        if nth == 0 {
            let stamp = trial.started.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string();
            suite.extra.insert("timestamp".into(), stamp.into());
        }
        suite.tests += 1;
        suite.failures += usize::from(trial.failure.is_some());
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
    (suite, limits)
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

fn threshold(group: &Group, verdict: &Verdict, notes: &[String], run: &Run) -> TestCase {
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
    let mut case = TestCase::new(xml(&case_name(group, &verdict.threshold.to_string())), status);
    case.set_classname(xml(&group.spec.model));
    case.set_time(Duration::ZERO);
    case.add_property(("verdict", thresholds::format_outcome(verdict.outcome())));
    case.add_property(("actual", xml(&actual).as_str()));
    // Of failures and skipped cases it is in the message as well.
    let why = thresholds::format_why(verdict).map(|why| ("reason", why));
    let caught = thresholds::format_detectable(verdict).map(|caught| ("caught", caught));
    let remarks = thresholds::format_circumstances(verdict, notes).into_iter();
    for (name, text) in
        why.into_iter().chain(caught).chain(remarks.map(|remark| ("remark", remark)))
    {
        case.add_property((name, xml(&text).as_str()));
    }
    case
}

/// Returns the case of a goal of `precision`. A goal that is not reached does not fail the run, so the
/// case is skipped.
fn precision(group: &Group, figure: &Precision, run: &Run) -> TestCase {
    let status = match why_missed(figure, run) {
        None => TestCaseStatus::success(),
        Some(why) => {
            let mut skipped = TestCaseStatus::skipped();
            skipped.set_type("precision").set_message(xml(&format!("not reached: {why}")));
            skipped
        }
    };
    let goal =
        format!("precision of {}: {}", figure.goal.metric.name, format_share(figure.goal.share));
    let mut case = TestCase::new(xml(&case_name(group, &goal)), status);
    case.set_classname(xml(&group.spec.model));
    case.set_time(Duration::ZERO);
    let actual = figure.share.map_or_else(|absent| absent.to_string(), format_share);
    case.add_property(("actual", xml(&actual).as_str()));
    case
}

/// The name of a case of a group, with its workload.
fn case_name(group: &Group, name: &str) -> String {
    match &group.spec.workload {
        None => name.to_owned(),
        Some(workload) => format!("{}: {name}", workload.name),
    }
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

fn time<'a>(trials: impl Iterator<Item = Cow<'a, TrialResult>>) -> Duration {
    duration(trials.map(|trial| trial.seconds).sum())
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
