//! How a run ended: passed, failed with reasons, or interrupted.

use llm_stream_core::{
    summary::Summary,
    text::counted,
    verdict::{Outcome, Verdict},
};

use crate::{
    config::Inconclusive,
    plan::Plan,
    report::{GroupVerdicts, Run, RunOutcome, RunStatus, TrialList, Unreadable},
    setup::Setup,
};

impl Run {
    /// Returns the run of `plan` before its first result: reports of it stay if the process is killed.
    pub(crate) fn unfinished(plan: &Plan, machine: &str, setup: &Setup) -> Self {
        let reason = "interrupted: the run has not ended; it is in progress, or was killed";
        Self {
            summary: Summary::new(plan.listed().iter().map(|case| &case.group)),
            verdicts: Vec::new(),
            confidence: plan.confidence(),
            precision: Vec::new(),
            is_out_of_time: false,
            order: plan.order.to_string(),
            took_turns: false,
            trials: TrialList::default(),
            instruments: Vec::new(),
            machine: machine.to_owned(),
            setup: Some(Box::new(setup.clone())),
            ending: RunOutcome {
                ended: RunStatus::Interrupted,
                reasons: vec![reason.to_owned()],
                inconclusive: Inconclusive::default(),
            },
            unreadable: Unreadable::default(),
        }
    }

    /// Decides how the run ended, with `failed` trials, or without a number when it was cancelled.
    /// `failures` are reasons of the caller's own why it failed, a line each.
    pub fn decide(
        &mut self,
        failed: Option<u64>,
        inconclusive: Inconclusive,
        mut failures: Vec<String>,
    ) {
        failures.extend(self.unreadable.reason());
        let (ended, reasons) = match failed {
            Some(failed) => verdict(self, failed, failures, inconclusive),
            None => (RunStatus::Interrupted, vec![interrupted(self)]),
        };
        if ended == RunStatus::Interrupted {
            // They would be judged by fewer requests than planned.
            self.verdicts.clear();
        }
        self.ending = RunOutcome { ended, reasons, inconclusive };
    }
}

fn interrupted(run: &Run) -> String {
    let (finished, planned) = (run.summary.finished(), run.summary.planned());
    let in_part = match run.summary.interrupted() {
        0 => String::new(),
        trials => format!("; {} in part", counted(trials, "trial")),
    };
    format!(
        "interrupted: {finished} of {planned} trials finished, their rows are kept{in_part}; \
         thresholds not judged"
    )
}

/// The status of a run that was not cancelled, and a line for each reason.
fn verdict(
    run: &Run,
    failed: u64,
    failures: Vec<String>,
    inconclusive: Inconclusive,
) -> (RunStatus, Vec<String>) {
    let mut reasons = Vec::new();
    if failed > 0 {
        let all = run.summary.finished();
        reasons.push(format!("FAILED: {failed} of {all} trials failed"));
    }
    let missed = judged(run, Outcome::Fail);
    let all = number_of_thresholds(run);
    if !missed.is_empty() {
        let count = missed.len();
        reasons.push(format!(
            "FAILED: {count} of {} missed: {}",
            thresholds_of(all),
            names(&missed)
        ));
    }
    let unclear = judged(run, Outcome::Inconclusive);
    let undecided = (!unclear.is_empty()).then(|| {
        format!("{} of {} inconclusive: {}", unclear.len(), thresholds_of(all), names(&unclear))
    });
    if let (Some(undecided), Inconclusive::Fail) = (&undecided, inconclusive) {
        reasons.push(format!("FAILED: {undecided}"));
    }
    reasons.extend(failures);
    if !reasons.is_empty() {
        return (RunStatus::Failed, reasons);
    }
    let warning = match (undecided, inconclusive) {
        (Some(undecided), Inconclusive::Warn) => Some(format!("WARNING: {undecided}")),
        (Some(undecided), _) => Some(undecided),
        (None, _) => None,
    };
    (RunStatus::Passed, warning.into_iter().chain([passed(run, unclear.len())]).collect())
}

/// How many thresholds there are.
fn number_of_thresholds(run: &Run) -> usize {
    run.verdicts.iter().map(|judged| judged.verdicts.len()).sum()
}

/// The verdicts of one sort, each with the name of its group.
fn judged(run: &Run, outcome: Outcome) -> Vec<(&str, &Verdict)> {
    let verdicts = run.verdicts.iter().flat_map(|GroupVerdicts { name, verdicts, .. }| {
        verdicts.iter().map(move |verdict| (name.as_str(), verdict))
    });
    verdicts.filter(|(_, verdict)| verdict.outcome() == outcome).collect()
}

/// The first few of these thresholds by name; the tables have their figures and reasons.
fn names(verdicts: &[(&str, &Verdict)]) -> String {
    const SHOWN: usize = 3;
    let one = |(name, verdict): &(&str, &Verdict)| format!("{name}: {}", verdict.threshold);
    let mut names: Vec<_> = verdicts.iter().take(SHOWN).map(one).collect();
    if verdicts.len() > SHOWN {
        names.push(format!("and {} more", verdicts.len() - SHOWN));
    }
    names.join("; ")
}

fn thresholds_of(all: usize) -> String {
    counted(all, "threshold")
}

/// The last line of a run that did not fail. Where nothing was decided, nothing passed.
fn passed(run: &Run, undecided: usize) -> String {
    let trials = format!("{} succeeded", counted(run.summary.finished(), "trial"));
    match (number_of_thresholds(run), undecided) {
        (0, _) => format!("passed: {trials}"),
        (1, 0) => format!("passed: {trials}, 1 threshold met"),
        (all, 0) => format!("passed: {trials}, all {all} thresholds met"),
        (all, undecided) => {
            let met = all - undecided;
            let head = if met == 0 { "undecided" } else { "passed" };
            format!(
                "{head}: {trials}, {met} of {} met, {undecided} inconclusive",
                thresholds_of(all)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use llm_stream_core::{
        interval::Interval, lacking::MissingFigures, statistic::Absent, summary::Estimate,
        threshold::Threshold,
    };

    use super::*;
    use crate::{
        config::Config,
        plan::Overrides,
        report::{Exporter as _, thresholds::Thresholds},
    };

    const FAILED: u8 = 101;

    /// The exit code of a run with one threshold, `ttft <= 500 ms`.
    fn code(
        actual: Result<(f64, Result<Option<Interval>, Absent>), Absent>,
        error: Option<f64>,
        inconclusive: Inconclusive,
    ) -> u8 {
        doubtful(actual, error, inconclusive, Vec::new()).0
    }

    /// The same of a figure that may be wrong, with the lines that say so.
    fn doubtful(
        actual: Result<(f64, Result<Option<Interval>, Absent>), Absent>,
        error: Option<f64>,
        inconclusive: Inconclusive,
        doubts: Vec<(String, usize)>,
    ) -> (u8, String) {
        let yaml = "models: { m: { simulate: {} } }";
        let config = Config::parse(yaml, "configs.yaml", Path::new(".")).unwrap();
        let plan = Plan::new(&config, &Overrides::default()).unwrap();
        let threshold = Threshold::parse("ttft <= 500 ms").unwrap();
        let actual =
            actual.map(|(value, interval)| Estimate { value, interval, n: 20, mean_error: None });
        let verdicts = vec![Verdict {
            threshold,
            actual,
            error,
            uncertainty: 0.0,
            simulator: 0.0,
            beyond: None,
            change: None,
            trend: None,
            lacking: MissingFigures::default(),
            doubts,
            left_out: Vec::new(),
            confidence: 0.95,
            runs: 2,
            level: 0.01,
            is_of_load: false,
            may_fail: true,
            prompts: Vec::new(),
        }];
        let verdicts = vec![GroupVerdicts {
            group: plan.cases[0].group.id,
            name: plan.targets[0].name.clone(),
            verdicts,
            notes: Vec::new(),
        }];
        let run = Run {
            summary: Summary::default(),
            verdicts,
            confidence: 0.95,
            precision: Vec::new(),
            is_out_of_time: false,
            order: String::new(),
            took_turns: false,
            trials: Default::default(),
            instruments: Vec::new(),
            machine: String::new(),
            setup: None,
            ending: RunOutcome::default(),
            unreadable: Default::default(),
        };
        let code = match verdict(&run, 0, Vec::new(), inconclusive).0 {
            RunStatus::Passed => 0,
            _ => FAILED,
        };
        (code, Thresholds.render(&run))
    }

    #[test]
    fn what_may_be_wrong_decides_nothing_and_what_is_absent_still_fails() {
        let doubts = || vec![("text in the unknown field `x`".to_owned(), 2)];
        for actual in [0.4, 0.6] {
            let actual = Ok((actual, within(actual - 0.05, actual + 0.05)));
            let of = |inconclusive| doubtful(actual, None, inconclusive, doubts());
            let (code, told) = of(Inconclusive::Warn);
            assert_eq!((code, of(Inconclusive::Fail).0), (0, FAILED));
            let why = "the figure may be wrong: text in the unknown field `x` (2 answers)";
            assert!(told.contains("inconclusive") && told.contains(why), "{told}");
        }
        let absent = Err(Absent::Lacking { lack: 1, all: 2 });
        assert_eq!(doubtful(absent, None, Inconclusive::Warn, doubts()).0, FAILED);
    }

    const fn within(low: f64, high: f64) -> Result<Option<Interval>, Absent> {
        Ok(Some(Interval { low, high }))
    }

    #[test]
    fn only_a_limit_that_is_clearly_met_passes() {
        // What is inconclusive has all three exit codes.
        let codes = |actual, error| {
            [Inconclusive::Pass, Inconclusive::Warn, Inconclusive::Fail]
                .map(|inconclusive| code(actual, error, inconclusive))
        };
        let (pass, fail, inconclusive) = ([0; 3], [FAILED; 3], [0, 0, FAILED]);
        assert_eq!(codes(Ok((0.4, within(0.35, 0.45))), Some(0.001)), pass);
        assert_eq!(codes(Ok((0.6, within(0.55, 0.65))), Some(0.001)), fail);
        assert_eq!(codes(Ok((0.49, within(0.45, 0.53))), Some(0.001)), inconclusive);
        assert_eq!(codes(Ok((0.51, within(0.45, 0.53))), Some(0.001)), inconclusive);
        assert_eq!(codes(Ok((0.4, within(0.35, 0.499))), Some(0.01)), inconclusive, "instrument");
        assert_eq!(codes(Ok((0.6, within(0.55, 0.65))), Some(10.0)), inconclusive, "no instrument");
        let few = Err(Absent::TooFew { needs: 8, has: 3 });
        assert_eq!(codes(Ok((0.4, few)), None), inconclusive, "too few to tell");
        assert_eq!(codes(Ok((0.6, few)), None), inconclusive, "too few, on the wrong side as well");
        assert_eq!(codes(Ok((0.4, Ok(None))), None), pass, "a statement on these requests alone");
        assert_eq!(codes(Ok((0.6, Ok(None))), None), fail);
        assert_eq!(codes(Err(Absent::NoValidTrial { failed: 1 }), None), fail);
        assert_eq!(codes(Err(Absent::TooFew { needs: 93, has: 3 }), None), inconclusive);
    }
}
