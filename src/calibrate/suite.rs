//! `calibrate --full`, for developers of the instrument: errors, CPU time, memory and limits of
//! each transport, next to those of the reference reader. The endpoint and each reader are separate
//! processes, on separate cores if the system allows it.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use llm_stream_core::statistic::Statistic;
use serde::de::DeserializeOwned;

use super::{
    Load, Spread,
    machine::{self, shared_nanoseconds},
    worker::{Answered, Hello, Reading, Report, Served, StreamReader, Trial, WorkerTask, Written},
};

impl Trial {
    /// Measurements of each trial; the figures are their medians.
    pub const RUNS: usize = 3;

    /// Without delays. It has many streams, so that the last ones of a round, when the reader is
    /// idle in part, count little.
    pub const CEILING: Self = Self {
        streams: 64,
        rounds: 8,
        ttft: Duration::ZERO,
        itl: Duration::ZERO,
        tokens: 1024,
        merged: 16,
    };

    /// The trials of the tables, from one stream to 1,024, with the rhythm of [`Load::of`]; then
    /// [`CEILING`](Self::CEILING).
    pub fn all() -> Vec<Self> {
        let timed = [1, 64, 256, 1024].map(|streams| {
            let Load { ttft, itl, tokens, .. } = Load::of(streams);
            let rounds = if streams == 1 { 6 } else { 2 };
            Self { streams, rounds, ttft, itl, tokens, merged: 1 }
        });
        timed.into_iter().chain([Self::CEILING]).collect()
    }
}

/// A measured quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Error of `ttft`, in seconds: the signed median.
    TtftMedian,
    /// Error of `ttft`, in seconds: the 99th percentile of its absolute value.
    TtftP99,
    /// Error of a single gap between tokens, in seconds: the 99th percentile of its absolute value.
    GapP99,
    /// CPU seconds per million tokens, decoding included.
    Cpu,
    /// Peak memory, in bytes.
    Memory,
    /// From the start of the process until the endpoint receives its first request, in seconds.
    FirstRequest,
    /// Tokens per CPU second without delays, 16 events per write, decoding included.
    Ceiling,
    /// Duration of a write call of the endpoint, in seconds: the median.
    WriteMedian,
    /// Duration of a write call of the endpoint: the 99th percentile.
    WriteP99,
    /// Delay of the endpoint's writes behind their schedule, in seconds: the median.
    LateMedian,
    /// Delay of the endpoint's writes: the 99th percentile.
    LateP99,
    /// Share of a core that the endpoint uses.
    ServerCpu,
}

/// The results of the suite.
#[derive(Debug, Default)]
pub struct Full {
    figures: BTreeMap<(usize, StreamReader, Figure), Vec<f64>>,
    /// The clock of each reader's timestamps.
    pub clocks: BTreeMap<StreamReader, &'static str>,
    /// The cores of the endpoint and of the readers, if the processes were pinned.
    pub cores: Option<(usize, usize)>,
    /// The machine.
    pub machine: String,
}

impl Full {
    /// Measures `trials`, each `runs` times, in child processes of `program`, which must have the
    /// command `part`. Calls `announce` before each measurement.
    pub fn measure(
        program: &Path,
        trials: &[Trial],
        runs: usize,
        announce: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Self> {
        let mut full = Self { machine: machine::description(), ..Self::default() };
        for run in 1..=runs {
            for &trial in trials {
                for reader in StreamReader::ALL {
                    let (streams, name) = (trial.streams, reader.name());
                    announce(&format!("run {run} of {runs}: {streams} streams, {name}"));
                    full.run(program, trial, reader)
                        .with_context(|| format!("{streams} streams, {name}"))?;
                }
            }
        }
        Ok(full)
    }

    /// The median of a figure over the runs; `None` if the system does not report it.
    pub fn of(&self, streams: usize, reader: StreamReader, figure: Figure) -> Option<f64> {
        let values = self.figures.get(&(streams, reader, figure))?;
        Statistic::Median.of(values).ok()
    }

    /// Tokens per CPU second without delays.
    pub fn ceiling(&self, reader: StreamReader) -> Option<f64> {
        self.of(Trial::CEILING.streams, reader, Figure::Ceiling)
    }

    /// The numbers of streams with measured errors.
    pub fn streams(&self) -> Vec<usize> {
        let mut streams: Vec<_> =
            self.figures.keys().filter(|key| key.2 == Figure::GapP99).map(|key| key.0).collect();
        streams.dedup();
        streams
    }

    fn run(&mut self, program: &Path, trial: Trial, reader: StreamReader) -> anyhow::Result<()> {
        let mut server = EndpointWorker::start(program, trial, reader)?;
        let begun = shared_nanoseconds();
        let task = WorkerTask::Read(Reading { trial, hello: server.hello.clone(), reader });
        let read = part(program, &task)?.output().context("the reader did not start")?;
        anyhow::ensure!(read.status.success(), "the reader failed ({})", read.status);
        let report: Report = serde_json::from_slice(&read.stdout)?;
        self.cores = server.hello.core.zip(report.core);
        let mut note = |figure, value| {
            self.figures.entry((trial.streams, reader, figure)).or_default().push(value);
        };
        let per_token = report.cpu.map(|cpu| cpu.as_secs_f64() / report.tokens as f64);
        if !trial.is_timed() {
            per_token.into_iter().for_each(|each| note(Figure::Ceiling, 1.0 / each));
            return Ok(());
        }
        self.clocks.insert(reader, report.stamped_by.name());
        per_token.into_iter().for_each(|each| note(Figure::Cpu, each * 1e6));
        report.memory.into_iter().for_each(|bytes| note(Figure::Memory, bytes as f64));
        let served = server.served()?;
        if let Some(first) = served.answers.iter().map(|answer| answer.received).min() {
            note(Figure::FirstRequest, seconds(first, begun));
        }
        for (figure, value) in errors(&report, &served)?.into_iter().chain(endpoint(&served)?) {
            note(figure, value);
        }
        if let Some(cpu) = served.cpu {
            note(Figure::ServerCpu, cpu.as_secs_f64() / report.took.as_secs_f64());
        }
        Ok(())
    }
}

/// Seconds from `from` to `to`.
fn seconds(to: u64, from: u64) -> f64 {
    (to as f64) * 1e-9 - (from as f64) * 1e-9
}

/// Computes the errors of a reader.
fn errors(report: &Report, served: &Served) -> anyhow::Result<[(Figure, f64); 3]> {
    let answers: HashMap<_, _> = served.answers.iter().map(|a| (a.id.as_str(), a)).collect();
    let (mut ttft, mut gap) = (Vec::new(), Vec::new());
    for stream in &report.streams {
        let answer: &&Answered =
            answers.get(stream.id.as_str()).context("a stream is not in the endpoint's log")?;
        let arrivals = stream.tokens.iter().map(|token| stream.origin + token.as_nanos() as u64);
        let off: Vec<_> = arrivals
            .zip(&answer.writes)
            .map(|(arrival, Written(_, began, _))| arrival.cast_signed() - began.cast_signed())
            .map(|nanoseconds| nanoseconds as f64 * 1e-9)
            .collect();
        ttft.extend(off.first());
        gap.extend(off.windows(2).map(|pair| pair[1] - pair[0]));
    }
    let (ttft, gap) = (Spread::of(&ttft)?, Spread::of(&gap)?);
    Ok([(Figure::TtftMedian, ttft.median), (Figure::TtftP99, ttft.p99), (Figure::GapP99, gap.p99)])
}

/// Computes how long the endpoint's write calls took, and how late they began.
fn endpoint(served: &Served) -> anyhow::Result<[(Figure, f64); 4]> {
    let writes = || served.answers.iter().flat_map(|answer| &answer.writes);
    let calls: Vec<_> = writes().map(|Written(_, began, end)| seconds(*end, *began)).collect();
    let late: Vec<_> = writes().map(|Written(due, began, _)| seconds(*began, *due)).collect();
    let (calls, late) = (Spread::of(&calls)?, Spread::of(&late)?);
    Ok([
        (Figure::WriteMedian, calls.median),
        (Figure::WriteP99, calls.p99),
        (Figure::LateMedian, late.median),
        (Figure::LateP99, late.p99),
    ])
}

/// Returns the command of a worker process for `task`.
fn part(program: &Path, task: &WorkerTask) -> anyhow::Result<Command> {
    let mut command = Command::new(program);
    command.args(["part", &serde_json::to_string(task)?]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    Ok(command)
}

/// The endpoint in a separate process, which ends when this is dropped.
struct EndpointWorker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    hello: Hello,
}

impl EndpointWorker {
    fn start(program: &Path, trial: Trial, reader: StreamReader) -> anyhow::Result<Self> {
        let mut command = part(program, &WorkerTask::Serve(trial, reader))?;
        let mut child =
            command.stdin(Stdio::piped()).spawn().context("the endpoint did not start")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.context("the endpoint's process has no pipes")?;
        let mut stdout = BufReader::new(stdout);
        let hello = line(&mut stdout)?;
        Ok(Self { child, stdin, stdout, hello })
    }

    /// Returns the endpoint's log so far.
    fn served(&mut self) -> anyhow::Result<Served> {
        self.stdin.write_all(b"\n")?;
        line(&mut self.stdout)
    }
}

impl Drop for EndpointWorker {
    fn drop(&mut self) {
        // Fails if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line<T: DeserializeOwned>(from: &mut impl BufRead) -> anyhow::Result<T> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    serde_json::from_str(&line).context("the endpoint's process wrote no valid JSON")
}
