//! `llm-stream-bench part`: a worker process of `calibrate --full`.

use std::io;

use serde::Serialize;

use super::terminal;
use crate::{
    calibrate::worker::{self, EndpointWorker, WorkerTask},
    cli::PartOptions,
};

pub(super) fn run(options: &PartOptions) -> anyhow::Result<u8> {
    match serde_json::from_str(&options.task)? {
        WorkerTask::Read(reading) => write(&worker::read(&reading)?)?,
        WorkerTask::Serve(trial, reader) => {
            let server = EndpointWorker::start(trial, reader)?;
            write(server.hello())?;
            // Each line on stdin requests the log; the end of stdin ends the worker.
            for _ in io::stdin().lines() {
                write(&server.served())?;
            }
        }
    }
    Ok(0)
}

fn write(value: &impl Serialize) -> anyhow::Result<()> {
    terminal::say(&serde_json::to_string(value)?);
    Ok(())
}
