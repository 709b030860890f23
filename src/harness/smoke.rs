//! Smoke mode, `cargo test --benches`: tries each case once, against the simulated endpoint in the
//! case's protocol. It calls no real endpoint and writes no file.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use libtest_mimic::{Arguments, Failed, Trial};
use llm_stream_client::Client;
use llm_stream_sim::{Script, Simulator};

use super::{observers::LibtestOutput, terminal::Terminal};
use crate::{
    load::{self, PromptSizer},
    plan::{Case, Plan, access},
    run::simulated_url,
};

/// A short answer.
fn script() -> Script {
    Script {
        ttft: Duration::from_millis(2),
        itl: Duration::from_millis(1),
        tokens: 4,
        ..Script::default()
    }
}

pub(super) fn run(arguments: Arguments, plan: Plan, filtered_out: usize) -> anyhow::Result<u8> {
    let terminal = Terminal::new(arguments.logfile.as_deref().map(Path::new))?;
    // `plan` is filtered already.
    let mut arguments = Arguments {
        filter: None,
        skip: Vec::new(),
        test: false,
        test_threads: arguments.test_threads.or(Some(1)),
        ..arguments
    };
    let output = LibtestOutput::new(&mut arguments, filtered_out, None)?;
    let lines = Arc::new(Mutex::new((output, terminal)));
    let trial = |case: Arc<Case>| {
        let lines = lines.clone();
        Trial::bench(case.name.clone(), move |_| {
            flush_lines(&lines);
            attempt(&case).map(|()| None).map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    let trials = plan.listed().into_iter().map(trial).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    flush_lines(&lines);
    Ok(if conclusion.has_failed() { super::FAILED } else { 0 })
}

/// Prints the lines of the trials that have ended.
fn flush_lines(lines: &Mutex<(LibtestOutput, Terminal)>) {
    let (output, terminal) = &mut *lines.lock().unwrap_or_else(PoisonError::into_inner);
    output.flush_lines(terminal);
}

fn attempt(case: &Case) -> anyhow::Result<()> {
    let target = &case.target;
    let simulator = Simulator::start(script(), target.protocol)
        .context("failed to start the simulated endpoint")?;
    let access = access::simulated(target);
    let url = simulated_url(&simulator, target.protocol);
    let client = Client::new(&target.client_options(&access, &url))?;
    load::run(case, &PromptSizer::default(), &client, &()).outcome?;
    Ok(())
}
