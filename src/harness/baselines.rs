//! Baseline files: one to compare a run with, and one to add the run to.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use llm_stream_core::{
    baseline::{Baseline, ParseBaselineError},
    summary::Group,
    text::counted,
    threshold::Against,
    verdict::Outcome,
};

use super::{observers::target_folder, runs, terminal::Terminal};
use crate::{
    calibrate,
    cli::Cli,
    config,
    plan::Plan,
    report::{self, Run, RunStatus},
    run,
    store::{self, FindError},
    whole_file,
};

/// The default of `--keep-runs`.
const KEPT_RUNS: u32 = 30;

/// The baselines of a run.
pub(super) struct Baselines {
    /// What it is compared with.
    pub(super) compared: Option<Baseline>,
    /// The file that the run is added to.
    saved: Option<SavedBaseline>,
    /// The machine that measures.
    pub(super) machine: String,
}

/// The file that a run is added to.
struct SavedBaseline {
    path: PathBuf,
    /// The number of runs that remain in it.
    keep: usize,
    /// Whether a failed run is added too.
    accept: bool,
    label: Option<String>,
}

impl Baselines {
    /// What the command line asks for. A baseline that is missing is known before minutes are spent.
    pub(super) fn of(cli: &Cli, plan: &Plan, terminal: &Terminal) -> anyhow::Result<Self> {
        let lenient = cli.baseline_lenient.as_deref();
        let compared = match cli.baseline.as_deref().or(lenient) {
            None => None,
            Some(name) => match load(name) {
                Ok(baseline) => Some(baseline),
                Err(error) if lenient.is_some() && whole_file::is_missing(&error) => {
                    terminal.err(&format!("note: {error:#}: nothing is compared with it\n"));
                    None
                }
                Err(error) => return Err(error),
            },
        };
        let saved = cli.save_baseline.as_deref().map(|name| SavedBaseline::of(name, cli));
        let saved = saved.transpose()?;
        if compared.is_none() && plan.has_relative_thresholds() {
            if lenient.is_none() && saved.is_none() {
                anyhow::bail!(
                    "the config has thresholds relative to a baseline, and none is named: \
                     keep one with `--save-baseline NAME` and compare with `--baseline NAME`, or \
                     `--baseline-lenient NAME`, which goes on where it is missing"
                );
            }
            terminal.err("note: thresholds relative to a baseline are not judged\n");
        }
        Ok(Self { compared, saved, machine: calibrate::machine_name() })
    }

    /// Adds the run to the baseline if it is complete and did not fail.
    pub(super) fn save(&self, run: &Run, terminal: &Terminal) -> anyhow::Result<()> {
        let Some(saved) = &self.saved else { return Ok(()) };
        let has_failed = run.ending.ended == RunStatus::Failed;
        let path = saved.path.display();
        let refusal = match incomplete(run) {
            Some(why) => Some(why),
            None if saved.accept => None,
            None if is_worse_than_stored(run) => Some(
                "a figure is worse than in the stored runs, though not beyond chance; `--accept` adds \
                 it anyway"
                    .to_owned(),
            ),
            None if has_failed => {
                Some("it failed; `--accept` adds it anyway".to_owned())
            }
            None => None,
        };
        if let Some(why) = refusal {
            terminal.err(&format!("note: the run is not added to the baseline {path}: {why}\n"));
            return Ok(());
        }
        let runs = saved
            .add(run, &self.machine, has_failed)
            .with_context(|| format!("failed to save the baseline {path}"))?;
        terminal.err(&format!("Baseline saved: {path} ({})\n", counted(runs, "run")));
        run.summary.groups.iter().filter_map(saved_without).for_each(|line| terminal.err(&line));
        Ok(())
    }
}

/// Names the figures that too few answers of a group have: comparisons with the baseline lack them.
fn saved_without(group: &Group) -> Option<String> {
    let mut by_reason: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for lacking in group.absent_figures() {
        let (all, unit) = (lacking.all, lacking.unit());
        let why = format!("{} of {all} {unit} have none: {}", lacking.lack(), lacking.why());
        by_reason.entry(why).or_default().push(lacking.metric);
    }
    let parts = by_reason.iter().map(|(why, names)| format!("{} ({why})", names.join(", ")));
    let parts: Vec<_> = parts.collect();
    let name = group.name();
    (!parts.is_empty())
        .then(|| format!("note: saved without these of {name}: {}\n", parts.join("; ")))
}

/// Returns whether a change misses its limit as it was seen, without being decided: as the reference of
/// the next run it would hide a slow decline.
fn is_worse_than_stored(run: &Run) -> bool {
    let mut verdicts = run.verdicts.iter().flat_map(|of| &of.verdicts);
    verdicts.any(|verdict| match &verdict.change {
        Some(Ok(change)) => {
            verdict.threshold.against == Against::Baseline
                && verdict.outcome() == Outcome::Inconclusive
                && !verdict.threshold.holds(change.relative)
        }
        _ => false,
    })
}

/// Returns why the run does not have all figures that it was planned to have.
fn incomplete(run: &Run) -> Option<String> {
    if run.ending.ended == RunStatus::Interrupted {
        return Some("it was interrupted".to_owned());
    }
    let without = run.summary.groups.iter().find(|group| group.tally.valid == 0);
    match without {
        Some(group) => Some(format!("{} has no valid request", group.name())),
        None if run.summary.groups.is_empty() => Some("it has no trial".to_owned()),
        None if run.summary.finished() < run.summary.planned() => {
            let (finished, planned) = (run.summary.finished(), run.summary.planned());
            Some(format!("only {finished} of {planned} trials finished"))
        }
        None => None,
    }
}

impl SavedBaseline {
    /// Checks before the first request that the run can be added.
    fn of(name: &str, cli: &Cli) -> anyhow::Result<Self> {
        let path = path(name);
        stored(&path).with_context(|| {
            let path = path.display();
            format!("cannot add a run to the baseline {path}: remove it or choose another name")
        })?;
        whole_file::check(&path)
            .with_context(|| format!("failed to write the baseline {}", path.display()))?;
        let keep = cli.keep_runs.unwrap_or(KEPT_RUNS) as usize;
        Ok(Self { path, keep, accept: cli.accept, label: cli.baseline_label.clone() })
    }

    /// Adds the run and returns the number of runs in the file.
    fn add(&self, run: &Run, machine: &str, has_failed: bool) -> anyhow::Result<usize> {
        let started = run.trials.iter().map(|trial| trial.started).min();
        let mut added =
            Baseline::of(&run.summary, machine).dated(started.unwrap_or_else(run::today));
        if let Some(label) = &self.label {
            added = added.labelled(label);
        }
        if has_failed {
            added = added.accepted();
        }
        loop {
            if let Some(count) = self.add_to_current(&added)? {
                return Ok(count);
            }
        }
    }

    /// Adds the run to the file as it is now, because another run may have been added meanwhile.
    /// `None` if another process has replaced the file in between.
    fn add_to_current(&self, added: &Baseline) -> anyhow::Result<Option<usize>> {
        let path = &self.path;
        let Some(current) = open_locked(path)? else {
            return match whole_file::create(path, added.to_json().as_bytes()) {
                Ok(()) => Ok(Some(added.run_count())),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(error.into()),
            };
        };
        let Some(stored) = stored(path)? else { return Ok(None) };
        let baseline = stored.append(added.clone(), self.keep);
        whole_file::write(path, baseline.to_json().as_bytes())?;
        // Until here no other process replaces the file.
        drop(current);
        Ok(Some(baseline.run_count()))
    }
}

/// Opens the file and locks it against other processes; `None` if it does not exist. The file at the
/// path may be another one by the time of the lock, since each process replaces it: then the next one
/// is locked.
fn open_locked(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = match File::options().read(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match file.lock() {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error),
            _ => {}
        }
        if is_at(path, &file)? {
            return Ok(Some(file));
        }
    }
}

/// Whether the file is the one at the path.
#[cfg(unix)]
fn is_at(path: &Path, file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (there, this) = (fs::metadata(path), file.metadata()?);
    match there {
        Ok(there) => Ok((there.dev(), there.ino()) == (this.dev(), this.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_at(_: &Path, _: &File) -> io::Result<bool> {
    Ok(true)
}

/// Reads the baseline in a file; `None` if the file does not exist.
fn stored(path: &Path) -> anyhow::Result<Option<Baseline>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A device would be replaced by a file.
        Ok(found) if !found.is_file() => anyhow::bail!("it is not a file"),
        Ok(_) => Ok(Some(Baseline::from_json(&read(path)?)?)),
        Err(error) => Err(error.into()),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = config::read_input(path, config::FILE_LIMIT)?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// Reads the baseline of this name or in this file, or the values of a run.
pub(super) fn load(name: &str) -> anyhow::Result<Baseline> {
    let named = path(name);
    let is_stored = named.exists();
    if !is_stored && (!looks_like_path(name) || Path::new(name).exists()) {
        match runs::finder().find(name) {
            Ok(run) => return of_run(&run),
            // A baseline that does not exist yet has a name too.
            Err(FindError::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if named.is_dir() || named.extension().is_some_and(|extension| extension == "csv") {
        return of_run(&named);
    }
    let text =
        read(&named).with_context(|| format!("cannot read the baseline {}", named.display()))?;
    match Baseline::from_json(&text) {
        Err(ParseBaselineError::Other(schema)) if schema == report::json::NAME => of_run(&named),
        parsed => parsed.with_context(|| format!("cannot use the baseline {}", named.display())),
    }
}

/// Reads the values of a run that was not interrupted.
fn of_run(path: &Path) -> anyhow::Result<Baseline> {
    let is_table = path.extension().is_some_and(|extension| extension == "csv");
    let has_results = path.is_file() || path.join(store::RUN).is_file();
    if !is_table && has_results {
        let run = store::RunRecord::open(path)?;
        anyhow::ensure!(
            run.report.result.ended != RunStatus::Interrupted,
            "cannot compare with the run {}: it was interrupted",
            path.display()
        );
    }
    let baseline = store::baseline(path)?;
    anyhow::ensure!(
        !baseline.is_empty(),
        "cannot compare with the run {}: it has no valid request",
        path.display()
    );
    Ok(baseline)
}

fn looks_like_path(name: &str) -> bool {
    name.contains(['/', '\\']) || name.ends_with(".json") || name.ends_with(".csv")
}

/// `NAME` is in cargo's target folder; what looks like a path is one.
pub(super) fn path(name: &str) -> PathBuf {
    match looks_like_path(name) {
        true => PathBuf::from(name),
        false => {
            let folder = target_folder().join("llm-stream-bench").join("baselines");
            folder.join(format!("{name}.json"))
        }
    }
}
