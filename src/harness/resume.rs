//! `--resume`: the trials of an earlier run that are kept.

use std::{fs, path::Path};

use llm_stream_core::metric::DEFINITIONS;

use super::runs;
use crate::{
    cli::Cli,
    plan::Plan,
    setup::{self, ResumedRun, Setup},
    store::{RunRecord, StoredTrials},
};

/// Selects the trials of the run to resume that a run with `setup` keeps, and notes them in `setup`.
pub(super) fn trials(
    cli: &Cli,
    plan: &Plan,
    setup: &mut Setup,
) -> anyhow::Result<Option<StoredTrials>> {
    let Some(name) = &cli.resume else { return Ok(None) };
    let run = runs::open(name)?;
    check(&run, cli.output_dir.as_deref(), setup)?;
    let trials = StoredTrials::open(run.folder(), plan)?;
    setup.resumed = run.report.setup.as_deref().map(|then| ResumedRun {
        run: run.name(),
        started: then.started,
        kept: trials.len(),
    });
    Ok(Some(trials))
}

/// Fails if the trials of `run` are not those of a run with `setup`.
fn check(run: &RunRecord, output: Option<&Path>, setup: &Setup) -> anyhow::Result<()> {
    let path = run.path.display();
    let Some(then) = run.report.setup.as_deref() else {
        anyhow::bail!("cannot resume {path}: it has no config, since an earlier version wrote it");
    };
    anyhow::ensure!(
        run.report.definitions == DEFINITIONS,
        "cannot resume {path}: its figures have the definitions {}, and those of this program are \
         {DEFINITIONS}",
        run.report.definitions
    );
    if let Some(difference) = setup::config_difference(&then.config, &setup.config) {
        anyhow::bail!(
            "cannot resume {path}: the config has changed since: {difference}\n  help: undo the change, \
             or start a new run without `--resume`"
        );
    }
    let is_same = |folder: &Path| {
        let (a, b) = (fs::canonicalize(folder), fs::canonicalize(run.folder()));
        a.is_ok_and(|a| b.is_ok_and(|b| a == b))
    };
    anyhow::ensure!(
        !output.is_some_and(is_same),
        "cannot resume {path}: `--output-dir` would overwrite it; name another folder"
    );
    Ok(())
}

/// Tells what is kept.
pub(super) fn note(resumed: &ResumedRun, plan: &Plan) -> String {
    let ResumedRun { run, kept, .. } = resumed;
    format!("Resumes the run {run}: keeps {kept} of {} trials", plan.cases.len())
}
