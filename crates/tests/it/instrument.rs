//! What `calibrate --full` does, with the children of the real binary, on little.

use std::{path::Path, time::Duration};

use llm_stream_bench::calibrate::{
    suite::{Figure, Full},
    worker::{StreamReader, Trial},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_llm-stream-bench-under-test");

#[test]
fn every_reader_is_measured_in_worker_processes() {
    let rhythm = Trial {
        streams: 3,
        rounds: 2,
        ttft: Duration::from_millis(20),
        itl: Duration::from_millis(5),
        tokens: 8,
        merged: 1,
    };
    let ceiling = Trial { tokens: 64, rounds: 1, ..Trial::CEILING };
    let mut progress = Vec::new();
    let mut tell = |what: &str| progress.push(what.to_owned());
    let trials = [rhythm, ceiling];
    let full = Full::measure(Path::new(PROGRAM), &trials, 2, &mut tell).expect("figures");
    assert_eq!(progress.len(), 2 * trials.len() * StreamReader::ALL.len());
    assert_eq!(full.streams(), [3]);
    for reader in StreamReader::ALL {
        let of = |figure| full.of(3, reader, figure);
        // No arrival is before its write; on clocks that differ they would be years apart.
        assert!(of(Figure::TtftMedian).unwrap() > 0.0, "{full:?}");
        assert!(of(Figure::TtftMedian).unwrap() < 60.0, "{full:?}");
        assert!(of(Figure::LateMedian).unwrap() >= 0.0, "{full:?}");
        assert!(of(Figure::FirstRequest).unwrap() > 0.0, "{full:?}");
        if cfg!(target_os = "linux") {
            assert!(of(Figure::Cpu).unwrap() > 0.0, "{full:?}");
            assert!(of(Figure::Memory).unwrap() > 0.0, "{full:?}");
            assert!(full.ceiling(reader).unwrap() > 0.0, "{full:?}");
        }
    }
}
