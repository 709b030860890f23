//! The commands on stored runs: `list`, `show` and `report`. They send nothing.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use llm_stream_core::{
    column::Storage,
    other_tools::{Definitions, DefinitionsCollector, LoadPlace},
    sample::TokenCount,
    summary::group_name,
    text::printable,
};

use super::{RUNS, observers::target_folder, terminal};
use crate::{
    cli::{ListOptions, ReportFormat, ReportOptions, ShowOptions},
    report::{
        definitions,
        html::{self, RunSource, StoredRequests},
        json,
        stored::{self, ListedRun, NamedRun},
    },
    store::{self, Found, RunFinder, RunRecord},
    whole_file,
};

/// Finds runs where the binary and cargo keep them.
pub(super) fn finder() -> RunFinder {
    RunFinder::new([
        PathBuf::from(RUNS),
        target_folder().join(RUNS),
        Path::new("target").join(RUNS),
    ])
}

/// Prints the runs.
pub(super) fn list(options: &ListOptions) -> anyhow::Result<u8> {
    let finder = match &options.folder {
        Some(folder) => {
            anyhow::ensure!(
                folder.is_dir(),
                "cannot list runs: {} is not a folder",
                folder.display()
            );
            RunFinder::new([folder.clone()])
        }
        None => finder(),
    };
    let found = finder.all();
    if found.is_empty() {
        let parents: Vec<_> =
            finder.parents().iter().map(|parent| parent.display().to_string()).collect();
        terminal::note(&format!("no runs in {}", parents.join(" or ")));
        return Ok(0);
    }
    let listed: Vec<_> = found.iter().take(options.number).map(listed).collect();
    let text = stored::list(&listed);
    terminal::say(text.trim_end());
    if found.len() > options.number {
        terminal::note(&format!("{} more: `-n {}`", found.len() - options.number, found.len()));
    }
    Ok(0)
}

/// What the list says of a run. A run that cannot be read is listed with the reason.
fn listed(found: &Found) -> ListedRun {
    if found.path.join(store::RUN).is_file() {
        return match RunRecord::open(&found.path) {
            Ok(run) => ListedRun::of(&found.name, &run.report),
            Err(error) => ListedRun::unreadable(&found.name, format!("{error:#}")),
        };
    }
    match store::baseline(&found.path) {
        Ok(values) => ListedRun::of_values(&found.name, &values),
        Err(error) => ListedRun::unreadable(&found.name, format!("{error:#}")),
    }
}

/// Prints a run.
pub(super) fn show(options: &ShowOptions) -> anyhow::Result<u8> {
    let run = open(&options.run)?;
    let name = run.name();
    let run = NamedRun { name: &name, report: &run.report };
    terminal::say(stored::text(run, terminal::stdout_width()).trim_end());
    Ok(0)
}

/// Opens the run that `name` means.
pub(super) fn open(name: &str) -> anyhow::Result<RunRecord> {
    let path = finder().find(name)?;
    if path.is_dir() && !path.join(store::RUN).is_file() {
        anyhow::bail!(
            "{} has no {}: runs of the first version can only be compared",
            path.display(),
            store::RUN
        );
    }
    RunRecord::open(&path)
}

/// Writes a report.
pub(super) fn report(options: &ReportOptions) -> anyhow::Result<u8> {
    let runs: Vec<_> = options.runs.iter().map(|name| open(name)).collect::<Result<_, _>>()?;
    let bytes = match options.definitions {
        true => definitions(&runs, options.format)?,
        false => rendered(&runs, options.format.unwrap_or(ReportFormat::Html))?,
    };
    match destination(&runs, options) {
        None => terminal::say_all(&bytes),
        Some(path) => {
            whole_file::write(&path, &bytes)
                .with_context(|| format!("failed to write {}", path.display()))?;
            let path = std::path::absolute(&path).unwrap_or(path);
            terminal::note(&format!("Report: {}", path.display()));
        }
    }
    Ok(0)
}

/// The file of the report; `None` for stdout.
fn destination(runs: &[RunRecord], options: &ReportOptions) -> Option<PathBuf> {
    match (&options.output, options.format, runs) {
        (Some(path), _, _) => Some(path.clone()).filter(|path| path != Path::new("-")),
        _ if options.definitions => None,
        (None, None | Some(ReportFormat::Html), [run]) => Some(run.folder().join(store::REPORT)),
        (None, None | Some(ReportFormat::Html), _) => Some(PathBuf::from(store::REPORT)),
        (None, Some(_), _) => None,
    }
}

/// The figures of the runs by the definitions of other tools, as text or JSON.
fn definitions(runs: &[RunRecord], format: Option<ReportFormat>) -> anyhow::Result<Vec<u8>> {
    let tables: Vec<_> = runs.iter().map(definitions_of).collect::<Result<_, _>>()?;
    match (format, &tables[..]) {
        (None, tables) => {
            let texts = tables.iter().map(|of| printable(&definitions::render(of)));
            Ok(texts.collect::<Vec<_>>().join("\n").into_bytes())
        }
        (Some(ReportFormat::Json), [only]) => Ok(serde_json::to_vec_pretty(only)?),
        (Some(ReportFormat::Json), several) => Ok(serde_json::to_vec_pretty(several)?),
        (Some(_), _) => {
            anyhow::bail!("`--definitions` is text, or JSON with `--format json`")
        }
    }
}

fn definitions_of(run: &RunRecord) -> anyhow::Result<Definitions> {
    let requests = run.requests()?.with_context(|| {
        format!("{} has no {}, from which the figures are computed", run.name(), store::REQUESTS)
    })?;
    let mut collector = DefinitionsCollector::new(&Storage::default());
    for line in requests {
        let mut line = line?;
        // No token is counted again here.
        if line.token_count.is_some() {
            line.token_count = Some(TokenCount::Usage.name().into());
        }
        let outcome = line.outcome(&TokenCount::Usage)?;
        let name = group_name(&line.model, line.workload.as_deref());
        let handed_over = line.place().handed_over.filter(|_| line.workload.is_some());
        let place = handed_over.map(|handed_over| LoadPlace { run: line.run, handed_over });
        if let Ok(sample) = outcome {
            collector.add(&name, place, &sample);
        }
    }
    Ok(collector.finish())
}

fn rendered(runs: &[RunRecord], format: ReportFormat) -> anyhow::Result<Vec<u8>> {
    let names: Vec<_> = runs.iter().map(RunRecord::name).collect();
    let named = || {
        let runs = names.iter().zip(runs);
        runs.map(|(name, run)| NamedRun { name, report: &run.report })
    };
    Ok(match format {
        ReportFormat::Html => page(runs)?.into_bytes(),
        ReportFormat::Md => {
            named().map(stored::markdown).collect::<Vec<_>>().join("\n").into_bytes()
        }
        ReportFormat::Csv => stored::csv(named())?,
        ReportFormat::Json => {
            json::format(&runs.iter().map(|run| &run.report).collect::<Vec<_>>())?
        }
    })
}

/// Renders runs as one page for people.
pub(super) fn page(runs: &[RunRecord]) -> anyhow::Result<String> {
    let mut sources = Vec::new();
    for run in runs {
        let requests = run.requests()?;
        sources.push(RunSource {
            name: run.name(),
            report: &run.report,
            requests: requests.map(|requests| Box::new(requests) as StoredRequests<'_>),
        });
    }
    html::render(sources).context("cannot render the page")
}
