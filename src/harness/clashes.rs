//! Refuses a run whose files would overwrite one another, before it opens any of them.
//!
//! Two paths are the same file if the system says so: through `./`, `..`, both kinds of links, or a
//! file system that ignores case. Files that do not exist yet are the same if their folder and
//! their name are.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, Metadata},
    io,
    path::{Component, Path, PathBuf},
};

use super::{
    baselines,
    observers::{RequestFile, file_name},
};
use crate::{cli::Cli, config::Config, env::Github, plan::Plan, store, whole_file};

/// A file of the run, with the flag or key that names it.
struct Named {
    what: String,
    path: PathBuf,
}

impl Named {
    fn new(what: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { what: what.into(), path: path.into() }
    }
}

/// The file behind a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    /// An existing file or folder.
    There(FileId),
    /// A missing file: the nearest existing folder, and the names below it.
    Missing(FileId, Vec<OsString>),
    /// A device or a pipe, which is not overwritten, or a path that cannot be examined.
    None,
}

/// Device and inode.
#[cfg(unix)]
type FileId = (u64, u64);

/// The canonical path.
#[cfg(not(unix))]
type FileId = PathBuf;

/// Fails if a file is written twice, or written and read.
pub(super) fn refuse(cli: &Cli, config: &Config, plan: &Plan) -> anyhow::Result<()> {
    let written: Vec<_> =
        written(cli, plan).into_iter().map(|file| (identity(&file.path), file)).collect();
    for (nth, (id, file)) in written.iter().enumerate() {
        let same = |(other, _): &&(Identity, Named)| other == id && *id != Identity::None;
        if let Some((_, other)) = written[..nth].iter().find(same) {
            anyhow::bail!(
                "`{}` and `{}` both go to {}: use a different file for each",
                file.what,
                other.what,
                file.path.display()
            );
        }
    }
    for source in read(cli, config) {
        let id = identity(&source.path);
        let same = |(other, _): &&(Identity, Named)| *other == id && id != Identity::None;
        if let Some((_, file)) = written.iter().find(same) {
            anyhow::bail!(
                "`{}` would overwrite {}, which is read as {}: name another file",
                file.what,
                source.path.display(),
                source.what
            );
        }
    }
    recordings(cli, config, plan, &written)
}

/// The files that the run writes.
fn written(cli: &Cli, plan: &Plan) -> Vec<Named> {
    let mut files = Vec::new();
    let in_folder = cli.output_dir.as_ref().map(|folder| folder.join(store::RESULTS));
    let flag = if in_folder.is_some() { "--output-dir" } else { "--output" };
    if let Some(folder) = &cli.output_dir {
        let requests = RequestFile::name(cli.requests);
        let tables = [store::RESULTS_PARQUET, store::REQUESTS_PARQUET];
        let tables = tables.into_iter().filter(|_| cli.parquet);
        let names = [store::RUN, store::REPORT, store::BASELINE].into_iter();
        for name in names.chain(requests).chain(tables) {
            files.push(Named::new(format!("{name} of --output-dir"), folder.join(name)));
        }
    }
    if let Some(output) = cli.output.as_ref().or(in_folder.as_ref()) {
        files.push(Named::new(flag, output));
        // The files next to it.
        let is_load = plan.cases.iter().any(|case| case.task.workload().is_some());
        let is_metered = plan.cases.iter().any(|case| case.target.metrics_url.is_some());
        let is_sampled = plan.cases.iter().any(|case| case.target.is_sampled());
        for (is_written, ending) in [
            (is_load, "workloads.csv"),
            (is_metered, "server.csv"),
            (is_sampled, "server_series.csv"),
            (!cli.no_calibration, "instrument.json"),
        ] {
            if is_written {
                let what = format!("{flag}, with the ending {ending}");
                files.push(Named::new(what, output.with_extension(ending)));
            }
        }
    }
    let single = [("--junit", &cli.junit), ("--json", &cli.json)];
    files.extend(
        single.into_iter().filter_map(|(flag, path)| Some(Named::new(flag, path.as_ref()?))),
    );
    for export in &cli.exports {
        files.push(Named::new(format!("--export {}", export.format.name()), &export.path));
    }
    if let Some(name) = &cli.save_baseline {
        files.push(Named::new("--save-baseline", baselines::path(name)));
    }
    if let Some(path) = &cli.libtest.logfile {
        files.push(Named::new("--logfile", path));
    }
    files.extend(
        Github::from_env().step_summary.map(|path| Named::new("GITHUB_STEP_SUMMARY", path)),
    );
    if let Some(folder) = &cli.record {
        files.push(Named::new("--record", folder));
    }
    files.extend(streams());
    files
}

/// stdout, if it is redirected to a file.
fn streams() -> Option<Named> {
    let stdout = Path::new("/dev/stdout");
    let is_file = fs::metadata(stdout).is_ok_and(|stdout| stdout.is_file());
    is_file.then(|| Named::new("stdout", stdout))
}

/// The files that the run reads. The baseline may be replaced by the new one, because it is read
/// first.
fn read(cli: &Cli, config: &Config) -> Vec<Named> {
    let mut files = vec![Named::new("the config", cli.config_path())];
    files.extend(config.files().iter().map(|path| Named::new("a file of the config", path)));
    let baseline = cli.baseline.as_ref().or(cli.baseline_lenient.as_ref());
    let is_kept = |name: &&String| {
        let kept = cli.save_baseline.as_deref().map(baselines::path);
        kept.is_some_and(|kept| identity(&kept) == identity(&baselines::path(name)))
    };
    if let Some(name) = baseline.filter(|name| !is_kept(name)) {
        files.push(Named::new("the baseline", baselines::path(name)));
    }
    files
}

/// Fails if a trial's recording would overwrite another file of the run.
fn recordings(
    cli: &Cli,
    config: &Config,
    plan: &Plan,
    written: &[(Identity, Named)],
) -> anyhow::Result<()> {
    let Some(folder) = &cli.record else { return Ok(()) };
    let id = identity(folder);
    if folder.exists() && !folder.is_dir() {
        anyhow::bail!("`--record` is {}, which is not a folder", folder.display());
    }
    let trials: BTreeSet<_> = plan.cases.iter().map(|case| file_name(&case.name)).collect();
    let is_recording = |path: &Path| {
        let is_in = path.parent().is_some_and(|parent| identity(parent) == id);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let of = name.strip_suffix(".jsonl").filter(|_| is_in);
        of.is_some_and(|of| trials.iter().any(|trial| of.starts_with(trial)))
    };
    let read = read(cli, config);
    let named = written.iter().map(|(_, file)| file).chain(&read);
    match named.into_iter().find(|file| is_recording(&file.path)) {
        None => Ok(()),
        Some(file) => anyhow::bail!(
            "a recording of `--record` would overwrite {} ({}): name another folder",
            file.path.display(),
            file.what
        ),
    }
}

/// Identifies the file behind `path`.
fn identity(path: &Path) -> Identity {
    // The parent of a bare name is the current folder.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match fs::metadata(path) {
        Ok(found) if found.is_file() || found.is_dir() => id(path, &found),
        Ok(_) => Identity::None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => missing(path),
        Err(_) => Identity::None,
    }
}

#[cfg(unix)]
fn id(_: &Path, found: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    Identity::There((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn id(path: &Path, _: &Metadata) -> Identity {
    fs::canonicalize(path).map_or(Identity::None, Identity::There)
}

/// Identifies the file that `path` will create, following links that point to missing files.
fn missing(path: &Path) -> Identity {
    let links: Vec<_> = whole_file::links(path).collect();
    if let Some(found) = links.iter().skip(1).find(|to| fs::metadata(to).is_ok()) {
        return identity(found);
    }
    let path = links.last().map_or(path, PathBuf::as_path);
    let Ok(path) = std::path::absolute(path) else { return Identity::None };
    let mut below = Vec::new();
    let mut folder = path.as_path();
    loop {
        match folder.components().next_back() {
            Some(Component::Normal(name)) => below.push(folded(name.to_owned())),
            // The parent of a missing folder is known only by name.
            Some(Component::ParentDir) => below.push("..".into()),
            _ => {}
        }
        let Some(parent) = folder.parent() else { return Identity::None };
        folder = parent;
        if let Ok(found) = fs::metadata(folder) {
            return match id(folder, &found) {
                Identity::There(folder) => Identity::Missing(folder, upwards(below)),
                other => other,
            };
        }
    }
}

/// Reverses `below` to the order of the path, with `..` resolved.
fn upwards(below: Vec<OsString>) -> Vec<OsString> {
    let mut names: Vec<OsString> = Vec::new();
    for name in below.into_iter().rev() {
        match name.to_str() {
            Some("..") => drop(names.pop()),
            _ => names.push(name),
        }
    }
    names
}

/// Folds case where the system's usual file systems do.
fn folded(name: OsString) -> OsString {
    match cfg!(any(target_os = "macos", windows)) {
        true => name.to_string_lossy().to_lowercase().into(),
        false => name,
    }
}
