//! The binary `llm-stream-bench`: see [`llm_stream_bench::command`].

fn main() -> std::process::ExitCode {
    llm_stream_bench::command(std::env::args_os())
}
