//! `completions` and `man`: what a package installs next to the binary.

use std::{fs, path::Path};

use anyhow::Context as _;
use clap_complete::Shell;
use clap_mangen::Man;

/// Returns the completion script of `command` for a shell.
pub(crate) fn completions(mut command: clap::Command, shell: Shell) -> Vec<u8> {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// Returns the man page of `command`, without those of its subcommands.
pub(crate) fn man_page(command: clap::Command) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(page)
}

/// Writes the man pages of `command` and of its subcommands into a folder.
pub(crate) fn write_man_pages(command: clap::Command, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .with_context(|| format!("failed to write the man pages into {}", folder.display()))
}
