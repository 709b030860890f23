//! A custom observer: prints the time to the first token of each request as it ends.
//!
//! ```console
//! $ cargo run --example observer
//! ```

#![expect(clippy::print_stdout, reason = "that is what it is for")]

use llm_stream_bench::{Bench, BenchError, Event, Observer, ObserverError};

/// Prints a line for each request.
struct FirstTokens;

impl Observer for FirstTokens {
    fn event(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        if let Event::Request { row, .. } = event {
            match &row.outcome {
                Ok(sample) => println!("{}: {:.1?}", row.case.name, sample.first_token()),
                Err(error) => println!("{}: {}: {error}", row.case.name, error.kind),
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), BenchError> {
    let yaml = "\
runs: 2
prompts: [{ name: hello, text: \"Say hello.\" }]
models: { simulated: { simulate: { ttft: 20ms, itl: 4ms, tokens: 16 } } }
";
    Bench::from_yaml(yaml)?.run(&mut FirstTokens)?;
    Ok(())
}
