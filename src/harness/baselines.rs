//! Baselines on the disk: what a run is compared with, and where it is kept for others.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use llm_stream_core::{baseline::Baseline, summary::Group};

use super::{observers::target_folder, terminal::Terminal};
use crate::{calibrate, cli::Cli, plan::Plan, report::Run};

/// The baselines of a run.
pub(super) struct Baselines {
    /// What it is compared with.
    pub(super) compared: Option<Baseline>,
    /// Where it is to be kept.
    kept: Option<PathBuf>,
    /// The machine that measures.
    pub(super) machine: String,
}

impl Baselines {
    /// What the command line asks for. A baseline that is missing is known before minutes are spent.
    pub(super) fn of(cli: &Cli, plan: &Plan, terminal: &Terminal) -> anyhow::Result<Self> {
        let lenient = cli.baseline_lenient.as_deref();
        let compared = match cli.baseline.as_deref().or(lenient) {
            None => None,
            Some(name) => match load(name) {
                Ok(baseline) => Some(baseline),
                Err(error) if lenient.is_some() && is_missing(&error) => {
                    terminal.err(&format!("note: {error:#}: nothing is compared with it\n"));
                    None
                }
                Err(error) => return Err(error),
            },
        };
        let kept = cli.save_baseline.as_deref().map(path);
        if compared.is_none() && plan.has_relative_thresholds() {
            if lenient.is_none() && kept.is_none() {
                anyhow::bail!(
                    "the config has thresholds relative to a baseline, and none is named: \
                     keep one with `--save-baseline NAME` and compare with `--baseline NAME`, or \
                     `--baseline-lenient NAME`, which goes on where it is missing"
                );
            }
            terminal.err("note: thresholds relative to a baseline are not judged\n");
        }
        Ok(Self { compared, kept, machine: calibrate::machine_name() })
    }

    /// Keeps a run that went well for those to come.
    pub(super) fn keep(&self, run: &Run, well: bool, terminal: &Terminal) -> anyhow::Result<()> {
        let Some(path) = &self.kept else { return Ok(()) };
        if !well {
            terminal.err("note: the baseline is not saved, since a trial failed\n");
            return Ok(());
        }
        write(path, &Baseline::of(&run.summary, &self.machine).to_json())
            .with_context(|| format!("failed to save the baseline {}", path.display()))?;
        terminal.err(&format!("Baseline saved: {}\n", path.display()));
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

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

/// Reads the baseline of this name or in this file.
pub(super) fn load(name: &str) -> anyhow::Result<Baseline> {
    let path = path(name);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read the baseline {}", path.display()))?;
    Baseline::from_json(&text)
        .with_context(|| format!("cannot use the baseline {}", path.display()))
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// `NAME` is in cargo's target folder; what looks like a path is one.
pub(super) fn path(name: &str) -> PathBuf {
    let is_path = name.contains(['/', '\\']) || name.ends_with(".json");
    match is_path {
        true => PathBuf::from(name),
        false => {
            let folder = target_folder().join("llm-stream-bench").join("baselines");
            folder.join(format!("{name}.json"))
        }
    }
}
