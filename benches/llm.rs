//! `cargo bench`: every model of `configs.yaml`, one trial for each prompt and run.

fn main() -> std::process::ExitCode {
    llm_stream_bench::main()
}
