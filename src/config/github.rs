//! What the environment says of GitHub Actions.
//!
//! <https://docs.github.com/en/actions/reference/workflows-and-actions/variables>

use std::{env, path::PathBuf};

/// Where a job on GitHub looks, if this is one.
#[derive(Debug, Clone, Default)]
pub struct Github {
    /// Whether its workflow commands are read: `GITHUB_ACTIONS` is `true`.
    pub reads_commands: bool,
    /// The Markdown file of this step: `GITHUB_STEP_SUMMARY`.
    pub step_summary: Option<PathBuf>,
}

impl Github {
    /// As the environment says.
    #[expect(clippy::disallowed_methods, reason = "the config is what reads the environment")]
    pub fn from_env() -> Self {
        let summary = env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty());
        Self {
            reads_commands: env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true"),
            step_summary: summary.map(PathBuf::from),
        }
    }
}
