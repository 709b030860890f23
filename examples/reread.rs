//! Reads a recording again: the same bytes, the figures of today's definitions.
//!
//! ```console
//! $ cargo run --example reread -- recordings/MODEL__PROMPT__run-1.jsonl openai_chat
//! ```

#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::{error::Error, fs};

use llm_stream_core::{
    metric::METRICS,
    protocol::ALL,
    recording::Recording,
    sample::{self, TokenCount},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("name a recording: reread FILE [PROTOCOL]")?;
    let name = arguments.next().unwrap_or_else(|| "openai_chat".to_owned());
    let known = ALL.iter().find(|protocol| protocol.name() == name);
    let protocol = *known.ok_or_else(|| format!("unknown protocol `{name}`"))?;
    let file = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let recording = Recording::from_jsonl(&file).map_err(|error| format!("{path}: {error}"))?;
    let sample = sample::read_with(&recording, protocol, TokenCount::Usage, &Default::default())?;
    for metric in METRICS {
        if let Some(value) = metric.of(&sample) {
            println!("{}: {value}", metric.name);
        }
    }
    sample.noted().for_each(|(_, note)| println!("note: {note}"));
    Ok(())
}
