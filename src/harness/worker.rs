//! `llm-stream-bench part`: what `calibrate --full` has its children do.

use std::io;

use serde::Serialize;

use super::terminal;
use crate::{
    calibrate::worker::{self, EndpointWorker, WorkerTask},
    cli::PartOptions,
};

pub(super) fn run(options: &PartOptions) -> anyhow::Result<u8> {
    match serde_json::from_str(&options.task)? {
        WorkerTask::Read(reading) => say(&worker::read(&reading)?)?,
        WorkerTask::Serve(trial, reader) => {
            let server = EndpointWorker::start(trial, reader)?;
            say(server.hello())?;
            // A line asks for the log; the end of them is the end.
            for _ in io::stdin().lines() {
                say(&server.served())?;
            }
        }
    }
    Ok(0)
}

fn say(value: &impl Serialize) -> anyhow::Result<()> {
    terminal::say(&serde_json::to_string(value)?);
    Ok(())
}
