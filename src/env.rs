//! Every read of the environment, except for the options that clap reads and for the proxy
//! variables, which the client reads as reqwest does.

use std::{
    env::{self, VarError},
    ffi::OsStr,
    path::PathBuf,
};

/// The value of the environment variable `name`.
#[expect(clippy::disallowed_methods, reason = "this module reads the environment")]
pub(crate) fn variable(name: &str) -> Result<String, VarError> {
    env::var(name)
}

/// Whether the environment variable `name` is set to the empty text.
#[expect(clippy::disallowed_methods, reason = "this module reads the environment")]
pub(crate) fn is_empty(name: &OsStr) -> bool {
    env::var_os(name).is_some_and(|value| value.is_empty())
}

/// Whether the environment variable `name` is set to something.
#[expect(clippy::disallowed_methods, reason = "this module reads the environment")]
pub(crate) fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// The command line, the program first.
pub(crate) fn arguments() -> impl Iterator<Item = String> {
    env::args_os().map(|argument| argument.to_string_lossy().into_owned())
}

/// The environment variables of this program that are set, in the order of their names.
#[expect(clippy::disallowed_methods, reason = "this module reads the environment")]
pub(crate) fn ours() -> impl Iterator<Item = (String, String)> {
    let variables = env::vars_os().map(|(name, value)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    });
    variables.filter(|(name, _)| name.starts_with("LLM_STREAM_BENCH_"))
}

/// The files and switches of a job on GitHub Actions.
///
/// <https://docs.github.com/en/actions/reference/workflows-and-actions/variables>
#[derive(Debug, Clone, Default)]
pub(crate) struct Github {
    /// Whether workflow commands are read from the output: `GITHUB_ACTIONS` is `true`.
    pub(crate) reads_commands: bool,
    /// The Markdown summary of this step: `GITHUB_STEP_SUMMARY`.
    pub(crate) step_summary: Option<PathBuf>,
}

impl Github {
    /// Reads the variables of the job; without a job, all is off.
    #[expect(clippy::disallowed_methods, reason = "this module reads the environment")]
    pub(crate) fn from_env() -> Self {
        let summary = env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty());
        Self {
            reads_commands: env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true"),
            step_summary: summary.map(PathBuf::from),
        }
    }
}
