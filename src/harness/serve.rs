//! `llm-stream-bench serve`: the simulated endpoint on a port.

use std::{fs, path::Path, sync::Arc};

use anyhow::Context as _;
use rustls::ServerConfig;

use super::terminal;
use crate::{
    cli::ServeOptions,
    protocol,
    route::{self, Identity},
    sim::{self, Mistake, Simulator},
};

pub(super) fn serve(options: &ServeOptions) -> anyhow::Result<u8> {
    let known = || protocol::ALL.iter().map(|known| known.name()).collect::<Vec<_>>().join(", ");
    let protocol = protocol::by_name(&options.protocol)
        .with_context(|| format!("no protocol `{}`; there is {}", options.protocol, known()))?;
    let script = options.script();
    if let Some(Mistake { what, help, .. }) = script.mistakes().first() {
        anyhow::bail!("{what}\n  help: {help}");
    }
    let started = match tls(options)? {
        Some(tls) => Simulator::over_tls(options.listen, script, protocol, tls),
        None => Simulator::bind(options.listen, script, protocol),
    };
    let simulator = started.with_context(|| format!("failed to listen on {}", options.listen))?;
    terminal::note(&format!(
        "Serving a simulated {} endpoint: {}{}{}\n\
         In configs.yaml:\n  models:\n    my-model:\n      base_url: \"{}\"\n      protocol: {}\n\
         Ctrl-C ends it.",
        protocol.name(),
        simulator.url(),
        protocol.prefix(),
        protocol.path(),
        simulator.url(),
        protocol.name(),
    ));
    simulator.wait().context("the simulated endpoint stopped")?;
    Ok(0)
}

/// TLS with the certificate and key that are asked for.
fn tls(options: &ServeOptions) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    let (Some(cert), Some(key)) = (&options.tls_cert, &options.tls_key) else { return Ok(None) };
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("failed to read {}", path.display()));
    let wrong = |path: &Path, what: String| anyhow::anyhow!("{} {what}", path.display());
    let chain = route::certificates(&read(cert)?).map_err(|what| wrong(cert, what))?;
    let private = route::private_key(&read(key)?).map_err(|what| wrong(key, what))?;
    let identity = Identity::new(chain, private)
        .map_err(|what| anyhow::anyhow!("{} with {}: {what}", cert.display(), key.display()))?;
    Ok(Some(sim::server_tls(identity.chain(), identity.key())?))
}
