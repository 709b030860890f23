//! The feature `parquet`: the tables of a run, read back. A binary to itself, so that the other tests
//! need not be built with the feature too.

#![expect(clippy::disallowed_methods, reason = "tests set and read what users do")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{fs, fs::File, path::Path};

use jiff::Timestamp;
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row},
};
use serde_json::Value;

use crate::bench::{Bench, Ran, passed, ran};

#[expect(dead_code, reason = "shared with the other integration tests")]
#[path = "../it/bench.rs"]
mod bench;
#[path = "../it/schema.rs"]
mod schema;
#[expect(dead_code, reason = "shared with the other integration tests")]
#[path = "../it/wait.rs"]
mod wait;

/// Valid and failed requests, a conversation and a load.
const CONFIG: &str = "\
runs: 2
prompts: [{ name: \"=a, \\\"b\\\"\", text: hi }, { name: talk, turns: [Hello., Go on.] }]
workloads: { c2: { concurrency: 2, requests: 6, runs: 2 } }
models:
  A: { simulate: { ttft: 6ms, itl: 20ms, tokens: 4, faults: [{ status: 500, request: 3 }] } }
";

fn measure(bench: &Bench, more: &[&str]) -> Ran {
    let arguments = ["run", "--no-calibration", "--no-preflight", "--output-dir=out", "--parquet"];
    ran(&mut bench.binary(&[&arguments, more].concat()))
}

fn rows(path: &Path) -> Vec<Row> {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    reader.get_row_iter(None).unwrap().map(Result::unwrap).collect()
}

/// The cell as JSON; times as microseconds.
fn json(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Long(value) | Field::TimestampMicros(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Str(value) => value.as_str().into(),
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        other => panic!("{other:?}"),
    }
}

fn micros(time: &str) -> i64 {
    time.parse::<Timestamp>().unwrap().as_microsecond()
}

#[test]
fn requests_are_those_of_the_lines() {
    let bench = Bench::new(CONFIG);
    let ran = measure(&bench, &[]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let folder = bench.folder.path().join("out");
    let lines = fs::read_to_string(folder.join("requests.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rows = rows(&folder.join("requests.parquet"));
    assert_eq!(rows.len(), lines.len());
    assert!(lines.iter().any(|line| !line["error_kind"].is_null()));
    for (line, row) in lines.iter().zip(&rows) {
        let line = line.as_object().unwrap();
        assert_eq!(row.len(), line.len());
        for (name, field) in row.get_column_iter() {
            let (expected, actual) = (&line[name], json(field));
            match name.as_str() {
                "started" => assert_eq!(actual, micros(expected.as_str().unwrap())),
                "events" | "uncertainty" | "unread" | "doubts" if !expected.is_null() => {
                    let nested: Value = serde_json::from_str(actual.as_str().unwrap()).unwrap();
                    assert_eq!(&nested, expected, "{name}");
                }
                _ => assert!(is_same(&actual, expected), "{name}: {actual} {expected}"),
            }
        }
    }
}

/// Whether the values are equal: `5` and `5.0` are one number.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

#[test]
fn results_are_those_of_the_csv() {
    let bench = Bench::new(CONFIG);
    // Compressed lines are read too.
    let ran = measure(&bench, &["--requests=zst"]);
    assert_eq!(ran.code, Some(101), "{}", ran.stderr);
    let folder = bench.folder.path().join("out");
    let mut csv = csv::Reader::from_path(folder.join("results.csv")).unwrap();
    let header = csv.headers().unwrap().clone();
    let records: Vec<_> = csv.records().map(Result::unwrap).collect();
    let rows_of_results = rows(&folder.join("results.parquet"));
    assert_eq!(rows_of_results.len(), records.len());
    for (record, row) in records.iter().zip(&rows_of_results) {
        let columns = header.iter().zip(record);
        for ((name, cell), (column, field)) in columns.zip(row.get_column_iter()) {
            assert_eq!(name, column);
            match json(field) {
                Value::Null => assert_eq!(cell, "", "{name}"),
                Value::Bool(value) => assert_eq!(cell, value.to_string(), "{name}"),
                Value::Number(value) if name == "timestamp" => {
                    assert_eq!(value.as_i64(), Some(micros(cell)));
                }
                Value::Number(value) => {
                    assert_eq!(value.as_f64(), cell.parse().ok(), "{name}: {cell}");
                }
                // An apostrophe keeps spreadsheets from evaluating a name.
                value => assert_eq!(value, cell.trim_start_matches('\''), "{name}"),
            }
        }
    }
    assert_eq!(rows(&folder.join("requests.parquet")).len(), records.len());
}

#[test]
fn a_run_without_requests_has_its_results() {
    let bench = Bench::new("models: { A: { simulate: { ttft: 2ms, itl: 20ms, tokens: 4 } } }");
    passed(&measure(&bench, &["--requests=none"]));
    let folder = bench.folder.path().join("out");
    assert!(!rows(&folder.join("results.parquet")).is_empty());
    assert!(!folder.join("requests.parquet").exists());
}
