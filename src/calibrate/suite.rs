//! The whole instrument measured: errors, CPU, memory and limits of each transport next to those of
//! the reference reader. The endpoint and each reader are separate processes, on separate cores where
//! the system allows it.

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
    /// How often each is measured; the figures are medians of that.
    pub const RUNS: usize = 3;

    /// As fast as it goes; of many streams, so that those left at the end of a round count little.
    pub const CEILING: Self = Self {
        streams: 64,
        rounds: 8,
        ttft: Duration::ZERO,
        itl: Duration::ZERO,
        tokens: 1024,
        merged: 16,
    };

    /// Those of the tables, from one stream to 1,024, in the rhythm of [`Load::of`]; then
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

/// What is measured of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// The error of `ttft`, seconds: the median with its sign.
    TtftMedian,
    /// The 99th percentile of its size.
    TtftP99,
    /// The error of single gaps between tokens, seconds: the 99th percentile of its size.
    GapP99,
    /// CPU seconds a million tokens, decoding included.
    Cpu,
    /// Most memory, bytes.
    Memory,
    /// From the start of the process until the endpoint has its first request, seconds.
    FirstRequest,
    /// Tokens a second of CPU without delays, 16 events a write, decoding included.
    Ceiling,
    /// How long a write call of the endpoint takes, seconds: the median.
    WriteMedian,
    /// The 99th percentile.
    WriteP99,
    /// How late the endpoint writes, seconds: the median.
    LateMedian,
    /// The 99th percentile.
    LateP99,
    /// The part of a core that the endpoint takes.
    ServerCpu,
}

/// What was measured.
#[derive(Debug, Default)]
pub struct Full {
    figures: BTreeMap<(usize, StreamReader, Figure), Vec<f64>>,
    /// Whose clock stamped what a reader read.
    pub clocks: BTreeMap<StreamReader, &'static str>,
    /// The cores of the endpoint and of the readers, if they were kept there.
    pub cores: Option<(usize, usize)>,
    /// The machine.
    pub machine: String,
}

impl Full {
    /// Measures `trials`, each as often as `runs`, in children of `program`, which knows `part`.
    /// `tell` gets what is being measured.
    pub fn measure(
        program: &Path,
        trials: &[Trial],
        runs: usize,
        tell: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Self> {
        let mut full = Self { machine: machine::description(), ..Self::default() };
        for run in 1..=runs {
            for &trial in trials {
                for reader in StreamReader::ALL {
                    let (streams, name) = (trial.streams, reader.name());
                    tell(&format!("run {run} of {runs}: {streams} streams, {name}"));
                    full.run(program, trial, reader)
                        .with_context(|| format!("{streams} streams, {name}"))?;
                }
            }
        }
        Ok(full)
    }

    /// The median of a figure over the runs; `None` where the system does not give it.
    pub fn of(&self, streams: usize, reader: StreamReader, figure: Figure) -> Option<f64> {
        let values = self.figures.get(&(streams, reader, figure))?;
        Statistic::Median.of(values).ok()
    }

    /// Tokens a second of CPU, without delays.
    pub fn ceiling(&self, reader: StreamReader) -> Option<f64> {
        self.of(Trial::CEILING.streams, reader, Figure::Ceiling)
    }

    /// Of how many streams at the same time there are errors.
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

/// From `from` to `to`, seconds.
fn seconds(to: u64, from: u64) -> f64 {
    (to as f64) * 1e-9 - (from as f64) * 1e-9
}

/// How wrong a reader was.
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

/// How long the endpoint's write calls took, and how late they were.
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

/// A child that does a part.
fn part(program: &Path, task: &WorkerTask) -> anyhow::Result<Command> {
    let mut command = Command::new(program);
    command.args(["part", &serde_json::to_string(task)?]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    Ok(command)
}

/// The endpoint in a separate process, which ends with this.
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
        let (stdin, stdout) = pipes.context("a child without pipes")?;
        let mut stdout = BufReader::new(stdout);
        let hello = line(&mut stdout)?;
        Ok(Self { child, stdin, stdout, hello })
    }

    /// What it did so far.
    fn served(&mut self) -> anyhow::Result<Served> {
        self.stdin.write_all(b"\n")?;
        line(&mut self.stdout)
    }
}

impl Drop for EndpointWorker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line<T: DeserializeOwned>(from: &mut impl BufRead) -> anyhow::Result<T> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    serde_json::from_str(&line).context("the endpoint said nothing that can be understood")
}
