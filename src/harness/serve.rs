//! `llm-stream-bench serve`: the simulated endpoint on a port.

use std::path::Path;

use anyhow::Context as _;
use llm_stream_client::connect_options::{self, TlsIdentity};
use llm_stream_core::{
    protocol::{self, Protocol},
    punctuality::Punctuality,
};
use llm_stream_sim::{Script, ScriptError, Simulator, SimulatorTls};

use super::terminal;
use crate::{cli::ServeOptions, config, whole_file};

pub(super) fn serve(options: &ServeOptions) -> anyhow::Result<u8> {
    let known = || protocol::names().join(", ");
    let protocol = protocol::by_name(&options.protocol).with_context(|| {
        format!("unknown protocol `{}`: expected {}", options.protocol, known())
    })?;
    let script = options.script();
    if let Some(ScriptError { what, help, .. }) = script.errors().first() {
        anyhow::bail!("{what}\n  help: {help}");
    }
    let simulator = start(options, script, protocol)?;
    let url = simulator.url();
    let colon = if options.unix.is_some() { ":" } else { "" };
    terminal::note(&format!(
        "Serving a simulated {} endpoint: {url}{colon}{}{}\n\
         In configs.yaml:\n  models:\n    my-model:\n      base_url: \"{url}\"\n      protocol: {}\n\
         Ctrl-C ends it.",
        protocol.name(),
        protocol.prefix(),
        protocol.path(),
        protocol.name(),
    ));
    simulator.wait(warn_once()).context("the simulated endpoint stopped")?;
    Ok(0)
}

/// Returns a callback that warns when the endpoint falls behind its script: once, until it keeps it
/// again.
fn warn_once() -> impl FnMut(&Punctuality) {
    let mut has_warned = false;
    move |punctuality| {
        let shortfall = punctuality.shortfall();
        if let Some(shortfall) = shortfall.as_ref().filter(|_| !has_warned) {
            terminal::note(&format!("WARNING: {shortfall}"));
        }
        has_warned = shortfall.is_some();
    }
}

fn start(
    options: &ServeOptions,
    script: Script,
    protocol: &'static dyn Protocol,
) -> anyhow::Result<Simulator> {
    if let Some(path) = &options.unix {
        return on_file(path, script, protocol)
            .with_context(|| format!("failed to listen on {}", path.display()));
    }
    let started = match tls(options)? {
        Some(tls) => Simulator::over_tls(options.listen, script, protocol, tls),
        None => Simulator::bind(options.listen, script, protocol),
    };
    started.with_context(|| format!("failed to listen on {}", options.listen))
}

/// Listens on a unix socket, and removes it when a signal ends the process.
#[cfg(unix)]
fn on_file(
    path: &Path,
    script: Script,
    protocol: &'static dyn Protocol,
) -> anyhow::Result<Simulator> {
    let path = std::path::absolute(path)?;
    Ok(whole_file::removed_at_end(&path, || Simulator::on_file(&path, script, protocol))?)
}

#[cfg(not(unix))]
fn on_file(_: &Path, _: Script, _: &'static dyn Protocol) -> anyhow::Result<Simulator> {
    anyhow::bail!("this system does not support unix sockets")
}

/// Loads the TLS certificate and key, if the options name them.
fn tls(options: &ServeOptions) -> anyhow::Result<Option<SimulatorTls>> {
    let (Some(cert), Some(key)) = (&options.tls_cert, &options.tls_key) else { return Ok(None) };
    let read = |path: &Path| {
        config::read_input(path, config::FILE_LIMIT)
            .with_context(|| format!("failed to read {}", path.display()))
    };
    let wrong = |path: &Path, what: String| anyhow::anyhow!("{} {what}", path.display());
    let chain = connect_options::certificates(&read(cert)?).map_err(|what| wrong(cert, what))?;
    let private = connect_options::private_key(&read(key)?).map_err(|what| wrong(key, what))?;
    let identity = TlsIdentity::new(chain, private)
        .map_err(|what| anyhow::anyhow!("{} with {}: {what}", cert.display(), key.display()))?;
    Ok(Some(SimulatorTls::new(identity.chain(), identity.key_der())?))
}
