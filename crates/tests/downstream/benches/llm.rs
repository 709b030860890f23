fn main() -> std::process::ExitCode {
    llm_stream_bench::main()
}
