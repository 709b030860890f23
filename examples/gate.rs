//! Gates one endpoint from code: fails when a threshold is missed.
//!
//! ```console
//! $ cargo run --example gate -- http://localhost:8000 Qwen/Qwen3-30B-A3B
//! ```
//!
//! Without arguments it gates a simulated endpoint.

#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::process::ExitCode;

use llm_stream_bench::{Bench, BenchError, Overrides};

fn main() -> Result<ExitCode, BenchError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let endpoint = match arguments.as_slice() {
        [url, model] => format!("{{ base_url: {url:?}, model_name: {model:?} }}"),
        _ => "{ simulate: { ttft: 30ms, itl: 5ms, tokens: 32 } }".to_owned(),
    };
    let yaml = format!(
        "prompts: [{{ name: hello, text: \"Say hello.\" }}]\n\
         thresholds: [\"success_rate >= 100 %\", \"ttft median <= 500 ms\"]\n\
         models: {{ endpoint: {endpoint} }}\n"
    );
    let run = Bench::from_yaml(&yaml)?
        .overrides(Overrides { runs: Some(8), ..Overrides::default() })
        .run(&mut ())?;
    for (group, verdicts) in run.groups() {
        for verdict in verdicts {
            println!("{}: {}: {:?}", group.name(), verdict.threshold, verdict.outcome());
        }
    }
    run.reasons().iter().for_each(|reason| println!("{reason}"));
    Ok(if run.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
