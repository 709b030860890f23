//! The harness without cargo, and the simulated endpoint on a port.

fn main() -> std::process::ExitCode {
    llm_stream_bench::command(std::env::args_os())
}
