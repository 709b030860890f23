//! `llm-stream-bench serve`: the simulated endpoint on a port.

use anyhow::Context as _;

use super::terminal;
use crate::{
    cli::ServeOptions,
    protocol,
    sim::{Mistake, Simulator},
};

pub(super) fn serve(options: &ServeOptions) -> anyhow::Result<u8> {
    let known = || protocol::ALL.iter().map(|known| known.name()).collect::<Vec<_>>().join(", ");
    let protocol = protocol::by_name(&options.protocol)
        .with_context(|| format!("no protocol `{}`; there is {}", options.protocol, known()))?;
    let script = options.script();
    if let Some(Mistake { what, help, .. }) = script.mistakes().first() {
        anyhow::bail!("{what}\n  help: {help}");
    }
    let simulator = Simulator::bind(options.listen, script, protocol)
        .with_context(|| format!("failed to listen on {}", options.listen))?;
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
