#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| llm_stream_fuzz::targets::run("framing", data));
