//! The commands `init` and `check`, and the config of `run URL`. They return their text: only the
//! harness writes to the terminal.

mod address;
pub(crate) mod check;
mod discover;
pub(crate) mod init;
mod server_config;
pub(crate) mod shell;
mod yaml;

use std::fmt;

pub(crate) use self::server_config::{
    COMMAND_LINE, ServerConfig, load, refuse_without_url, with_url_hint,
};

/// An error of a command, with its fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}{}", Help(help))]
pub(crate) struct CommandError {
    what: String,
    help: String,
}

impl CommandError {
    fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }
}

/// Displays a help below its message.
struct Help<'a>(&'a str);

impl fmt::Display for Help<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.lines().enumerate().try_for_each(|(index, line)| match index {
            0 => write!(f, "\n  help: {line}"),
            _ => write!(f, "\n        {line}"),
        })
    }
}
