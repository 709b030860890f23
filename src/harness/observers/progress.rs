//! The progress line on a terminal: trial, tokens, speed and remaining time. The receive loop only
//! sends its chunks through a channel; the display's thread decodes and counts them.

use std::{
    fmt::Write,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use llm_stream_core::{
    framing::{Decoder, Frame},
    protocol::{MessagePart, Protocol},
    recording::Chunk,
    text::visible,
};

use crate::{
    plan::{Case, Task},
    run::{Event, Observer, ObserverError, TrialPosition},
};

/// The interval between two drawings.
const TICK: Duration = Duration::from_millis(125);

/// The progress line. The thread that draws it shares its state.
pub(in crate::harness) struct Progress {
    bar: ProgressBar,
    shared: Arc<Mutex<Shared>>,
    chunks: mpsc::Sender<Chunk>,
}

struct Shared {
    heading: String,
    position: Option<TrialPosition>,
    /// When the trial in flight started, since the start of the first one.
    begun: Duration,
    stream: Option<Stream>,
    load: Option<Load>,
    chunks: mpsc::Receiver<Chunk>,
}

/// The load in progress.
#[derive(Clone, Copy)]
struct Load {
    ended: usize,
    of: Option<usize>,
    tokens: u64,
}

/// The answer in progress.
struct Stream {
    decoder: Decoder,
    protocol: &'static dyn Protocol,
    tokens: u64,
    first: Duration,
    last: Duration,
}

impl Progress {
    /// Creates a progress line on stderr.
    pub(in crate::harness) fn new() -> Self {
        let (chunks, receiver) = mpsc::channel();
        let shared = Shared {
            heading: String::new(),
            position: None,
            begun: Duration::ZERO,
            stream: None,
            load: None,
            chunks: receiver,
        };
        let shared = Arc::new(Mutex::new(shared));
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
        let drawn = shared.clone();
        let line = move |state: &ProgressState, out: &mut dyn Write| {
            let _ = out.write_str(&visible(&lock(&drawn).line(state.elapsed())));
        };
        let style = ProgressStyle::with_template("{spinner} {line}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        bar.set_style(style.with_key("line", line));
        bar.enable_steady_tick(TICK);
        Self { bar, shared, chunks }
    }

    /// The bar, for writers that suspend it.
    pub(in crate::harness) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// Shows a request that starts.
    fn begin(&self, heading: String, case: &Case, position: TrialPosition) {
        if position.trial == 1 {
            self.bar.reset_elapsed();
        }
        // Before the lock: the drawing thread holds the bar and waits for the lock.
        let begun = self.bar.elapsed();
        let mut shared = lock(&self.shared);
        shared.drain();
        shared.begun = begun;
        shared.heading = heading;
        shared.position = Some(position);
        shared.stream = Some(Stream::new(case.target.protocol));
        shared.load = None;
    }

    /// Shows that a request of a load has ended, with its tokens if it is valid.
    fn counted(&self, ended: usize, of: Option<usize>, tokens: Option<u64>) {
        let mut shared = lock(&self.shared);
        let before = shared.load.map_or(0, |load| load.tokens);
        shared.load = Some(Load { ended, of, tokens: before + tokens.unwrap_or(0) });
    }
}

impl Observer for Progress {
    fn event(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        match event {
            Event::WarmUpStarted { case, position } => {
                self.begin(format!("{}  warm-up", case.target.name), case, position);
            }
            Event::RequestStarted { case, position } => {
                self.begin(heading(case, position), case, position);
            }
            Event::LoadProgress { ended, of, tokens } => self.counted(ended, of, tokens),
            _ => {}
        }
        Ok(())
    }

    fn bytes_arrived(&self, chunk: &Chunk) {
        // Fails only if the display is gone; the measurement does not depend on it.
        let _ = self.chunks.send(chunk.clone());
    }
}

fn heading(case: &Case, TrialPosition { task, tasks, run, runs, .. }: TrialPosition) -> String {
    let what = match &case.task {
        Task::Prompt(_) => "prompt",
        Task::Workload(_) => "workload",
    };
    format!("{}  {what} {task}/{tasks}  run {run}/{runs}", case.target.name)
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn drain(&mut self) {
        while let Ok(chunk) = self.chunks.try_recv() {
            if let Some(stream) = &mut self.stream {
                stream.take(&chunk);
            }
        }
    }

    fn line(&mut self, elapsed: Duration) -> String {
        self.drain();
        let Some(position) = self.position else { return String::new() };
        let mut line = format!("{}  {}/{}", self.heading, position.trial, position.trials);
        if let Some(stream) = self.stream.as_ref().filter(|stream| stream.tokens > 0) {
            let _ = write!(line, "  {} tokens", stream.tokens);
            if let Some(speed) = stream.speed() {
                let _ = write!(line, "  {speed:.1} tok/s");
            }
        }
        if let Some(Load { ended, of, tokens }) = self.load {
            let of = of.map(|of| format!("/{of}")).unwrap_or_default();
            let seconds = elapsed.saturating_sub(self.begun).as_secs_f64();
            let _ = write!(line, "  {ended}{of} requests  {:.1} tok/s", tokens as f64 / seconds);
        }
        if let Some(left) = left(position, self.begun, elapsed) {
            let _ = write!(line, "  {} left", clock(left));
        }
        line
    }
}

/// Estimates the remaining time from the mean time of the finished trials.
fn left(position: TrialPosition, begun: Duration, elapsed: Duration) -> Option<Duration> {
    let done = u32::try_from(position.trial.checked_sub(1)?).ok().filter(|&done| done > 0)?;
    let all = u32::try_from(position.trials).ok()?;
    Some((begun / done * all).saturating_sub(elapsed))
}

impl Stream {
    fn new(protocol: &'static dyn Protocol) -> Self {
        Self {
            decoder: protocol.framing().decoder(),
            protocol,
            tokens: 0,
            first: Duration::ZERO,
            last: Duration::ZERO,
        }
    }

    /// Counts the token events of `chunk`. Errors are ignored here; the trial reports them when it
    /// ends.
    fn take(&mut self, chunk: &Chunk) {
        let (protocol, mut events) = (self.protocol, 0);
        let mut sink = |frame: Frame<'_>| {
            let message = protocol.decode(&frame).unwrap_or_default();
            events +=
                u64::from(message.parts.iter().any(|part| matches!(part, MessagePart::Token(..))));
        };
        let _ = self.decoder.push(&chunk.bytes, &mut sink);
        if events > 0 {
            if self.tokens == 0 {
                self.first = chunk.at;
            }
            self.last = chunk.at;
            self.tokens += events;
        }
    }

    fn speed(&self) -> Option<f64> {
        let time = (self.last - self.first).as_secs_f64();
        (time > 0.0).then(|| (self.tokens - 1) as f64 / time)
    }
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
