//! A crate that only has a benchmark.
