//! `llm-stream-bench rerun`: a stored run once more, with its config and options.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use anyhow::Context as _;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, parser::ValueSource};

use super::{Start, run_config, runs, terminal};
use crate::{
    cli::{Cli, RerunOptions},
    commands::COMMAND_LINE,
    config::Config,
    run,
    setup::{self, ConfigRecord, Invocation, Setup},
    store::RunRecord,
};

/// Repeats the run.
pub(super) fn run(options: &RerunOptions) -> anyhow::Result<u8> {
    let stored = runs::open(&options.run)?;
    let Some(then) = stored.report.setup.as_deref() else {
        anyhow::bail!(
            "{} cannot be repeated: it has no config, since an earlier version of this program wrote it",
            stored.path.display()
        );
    };
    let folder = std::path::absolute(stored.folder())?;
    let parent = folder.parent().unwrap_or(&folder).to_owned();
    let output_dir = options.output_dir.as_deref().map(std::path::absolute).transpose()?;
    enter(Path::new(&then.folder));
    let mut cli = options_of(then)?;
    forget_outputs(&mut cli);
    cli.output_dir = output_dir;
    cli.libtest.bench = true;
    // The stored config is that of the URL.
    cli.take_urls();
    let config = config(&then.config)?;
    let invocation =
        Invocation { arguments: then.arguments.clone(), variables: then.variables.clone() };
    tell_differences(&stored, then, &Setup::of(&config, &Vec::new(), &invocation, run::today()));
    run_config(cli, config, Start { parent, invocation })
}

/// Changes to the folder in which the run was started, to which its paths are relative.
fn enter(folder: &Path) {
    if let Err(error) = std::env::set_current_dir(folder) {
        let folder = folder.display();
        terminal::note(&format!(
            "note: relative paths are those of the current folder: {folder} cannot be entered: {error}"
        ));
    }
}

/// Prints how the circumstances differ from those of the stored run.
fn tell_differences(stored: &RunRecord, then: &Setup, now: &Setup) {
    terminal::note(&format!("Repeats the run {}", stored.name()));
    let (version, current) = (&*stored.report.tool.version, env!("CARGO_PKG_VERSION"));
    if version != current {
        terminal::note(&format!("note: another version of this program: {version}, now {current}"));
    }
    for difference in setup::differences(then, now) {
        terminal::note(&format!("note: {difference}"));
    }
}

/// Parses the options of a stored run: those of its command line and of its variables, and not those
/// of this process.
fn options_of(setup: &Setup) -> anyhow::Result<Cli> {
    let command = || Cli::command().mut_args(|arg| arg.env(None::<&str>));
    let skipped = match setup.arguments.get(1).map(String::as_str) {
        Some("run") => 2,
        _ => 1,
    };
    let mut arguments: Vec<OsString> = vec!["llm".into()];
    arguments.extend(setup.arguments.iter().skip(skipped).map(Into::into));
    let explicit = command()
        .try_get_matches_from(&arguments)
        .context("the command line of the run cannot be used")?;
    let more = arguments_of(&setup.variables, &explicit);
    arguments.splice(1..1, more);
    let matches = command()
        .try_get_matches_from(arguments)
        .context("the environment variables of the run cannot be used")?;
    Ok(Cli::from_arg_matches(&matches)?)
}

/// Returns the variables as arguments, without those that the command line overrides.
fn arguments_of(variables: &BTreeMap<String, String>, explicit: &ArgMatches) -> Vec<OsString> {
    let argument = |arg: &clap::Arg| -> Option<OsString> {
        let value = variables.get(arg.get_env()?.to_str()?).filter(|value| !value.is_empty())?;
        if explicit.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
            return None;
        }
        let long = arg.get_long()?;
        let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
        let is_false = ["0", "n", "no", "f", "false", "off"].contains(&&*value.to_lowercase());
        match (is_flag, is_false) {
            (true, true) => None,
            (true, false) => Some(format!("--{long}").into()),
            (false, _) => Some(format!("--{long}={value}").into()),
        }
    };
    Cli::command().get_arguments().filter_map(argument).collect()
}

/// Removes the options that name files which the run writes, since the new run must not replace them,
/// and the run that it resumed.
fn forget_outputs(cli: &mut Cli) {
    cli.output = None;
    cli.record = None;
    cli.resume = None;
    cli.junit = None;
    cli.json = None;
    cli.exports.clear();
    cli.save_baseline = None;
    cli.keep_runs = None;
    cli.accept = false;
    cli.baseline_label = None;
    cli.libtest.logfile = None;
}

/// Returns the config of the stored run: its file, if that has not changed, or the stored text.
fn config(stored: &ConfigRecord) -> anyhow::Result<Config> {
    let path = Path::new(&stored.file);
    let is_file = stored.file != COMMAND_LINE;
    if is_file && let Ok(current) = Config::load(path) {
        if current.masked_text().0 == stored.text {
            return Ok(current);
        }
        terminal::note(&format!("note: {} has changed; the stored config is used", stored.file));
    }
    anyhow::ensure!(
        !stored.has_secrets,
        "{} has changed or is gone, and the stored config cannot be used: its secrets are masked\n  \
         help: `run --config FILE` with a config that names environment variables instead",
        stored.file
    );
    let base = if is_file { path.parent() } else { None };
    Ok(Config::parse(&stored.text, &stored.file, base.unwrap_or(Path::new("")))?)
}
