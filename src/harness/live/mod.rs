//! The live view: a few rows at the end of the terminal that show the run in progress.
//!
//! A separate thread draws four times a second. The receiving thread only counts its reads in an
//! atomic number. Other threads hand over events and lines; lines are printed with the next drawing,
//! so that a slow terminal delays no trial.

mod draw;
mod figures;
mod histogram;
mod screen;
mod state;
#[cfg(test)]
mod tests;

use std::{
    io, panic,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use llm_stream_core::{recording::Chunk, text::printable};
use ratatui_core::{buffer::Buffer, layout::Rect};

pub(super) use self::screen::{StandardStream, to_stdout};
use self::{
    screen::{Screen, TerminalTraits},
    state::LiveState,
};
use super::terminal;
use crate::{
    env,
    plan::Case,
    run::{Event, Observer, ObserverError},
};

/// The time between two drawings.
const INTERVAL: Duration = Duration::from_millis(250);

/// The screen of this process, for a panic and for a signal that ends it.
static SCREEN: OnceLock<Arc<LiveScreen>> = OnceLock::new();

/// Prints lines, above the view while there is one.
#[derive(Debug, Default)]
pub(super) struct LiveScreen {
    /// `None` without a view: lines are then printed at once.
    screen: Mutex<Option<Screen>>,
    drawing: Mutex<Option<Drawing>>,
}

/// The thread that draws. It ends when the sender is dropped.
#[derive(Debug)]
struct Drawing {
    still_needed: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

/// Feeds the view.
pub(super) struct LiveView {
    state: Arc<Mutex<LiveState>>,
    reads: Arc<AtomicU64>,
    begun: Instant,
}

/// Whether the standard error is a terminal that can show the view and that a person may watch.
pub(super) fn is_possible() -> bool {
    let is_plain = match env::variable("TERM") {
        Ok(term) => term.is_empty() || term == "dumb",
        Err(_) => cfg!(unix),
    };
    terminal::is_watched() && !is_plain && !env::is_set("CI")
}

impl LiveView {
    /// Begins to draw the run of `cases` on `screen`; `subject` is what happens before them.
    pub(super) fn start(
        subject: &str,
        cases: &[Arc<Case>],
        screen: &Arc<LiveScreen>,
    ) -> io::Result<Self> {
        terminal::enable_escapes();
        let reads = Arc::<AtomicU64>::default();
        let groups = cases.iter().map(|case| case.group.clone());
        let state = Arc::new(Mutex::new(LiveState::new(subject, groups, reads.clone())));
        let begun = now();
        let (still_needed, over) = mpsc::channel();
        let (drawn, on) = (state.clone(), screen.clone());
        *locked(&screen.screen) = Some(Screen::default());
        erase_before_panics(screen);
        let draw = move || {
            let closing = Closing(on.clone());
            let terminal = TerminalTraits::of_stderr();
            while over.recv_timeout(INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                on.draw(&drawn, begun.elapsed(), terminal.resized());
            }
            drop(closing);
        };
        let thread = thread::Builder::new().name("live view".into()).spawn(draw);
        let thread = thread.inspect_err(|_| drop(Closing(screen.clone())))?;
        *locked(&screen.drawing) = Some(Drawing { still_needed, thread });
        Ok(Self { state, reads, begun })
    }
}

impl Observer for LiveView {
    fn event(&mut self, event: Event<'_>) -> Result<(), ObserverError> {
        locked(&self.state).take(event, self.begun.elapsed());
        Ok(())
    }

    fn bytes_arrived(&self, _: &Chunk) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }
}

impl LiveScreen {
    /// Prints a text. An error of stdout while the view is drawn is kept for the end of the run.
    pub(super) fn print(&self, stream: StandardStream, text: &[u8]) -> io::Result<()> {
        match (&mut *locked(&self.screen), stream) {
            (Some(screen), _) => {
                screen.push(stream, text);
                Ok(())
            }
            (None, StandardStream::Stdout) => to_stdout(text),
            (None, StandardStream::Stderr) => io::Write::write_all(&mut io::stderr().lock(), text),
        }
    }

    /// Prints a line to stdout.
    pub(super) fn say(&self, line: &str) {
        let line = format!("{}\n", printable(line));
        terminal::keep_error("stdout", self.print(StandardStream::Stdout, line.as_bytes()));
    }

    /// Removes the view and prints the lines that wait.
    pub(super) fn finish(&self) {
        let drawing = locked(&self.drawing).take();
        if let Some(Drawing { still_needed, thread }) = drawing {
            drop(still_needed);
            // A panic of the thread was printed, and the lines have been printed too.
            let _ = thread.join();
        }
    }

    fn draw(&self, state: &Mutex<LiveState>, now: Duration, terminal: TerminalTraits) {
        // The last column stays blank: some terminals wrap a line that reaches it.
        let width = terminal.width.saturating_sub(1).min(draw::WIDEST);
        let view = {
            let mut state = locked(state);
            state.tick(now);
            let height = draw::rows(&state).min(terminal.height.saturating_sub(1));
            let mut view = Buffer::empty(Rect::new(0, 0, width, height));
            draw::draw(&state, now, view.area, &mut view);
            view
        };
        if let Some(screen) = &mut *locked(&self.screen) {
            terminal::keep_error("stdout", screen.update(Some(&view), terminal));
        }
    }

    /// Removes the view until its next drawing, and prints the lines that wait. Gives up if another
    /// thread holds the screen for long, which may be the one that panics.
    fn erase(&self) {
        for _ in 0..100 {
            match self.screen.try_lock() {
                Ok(mut screen) => return erase(&mut screen),
                Err(TryLockError::Poisoned(poisoned)) => return erase(&mut poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

fn erase(screen: &mut Option<Screen>) {
    if let Some(screen) = screen {
        terminal::keep_error("stdout", screen.update(None, TerminalTraits::of_stderr()));
    }
}

/// Removes the view when the thread that draws it ends, also by a panic.
struct Closing(Arc<LiveScreen>);

impl Drop for Closing {
    fn drop(&mut self) {
        let mut screen = locked(&self.0.screen);
        erase(&mut screen);
        *screen = None;
    }
}

/// Removes the view, so that what is printed next is below the lines of the run.
pub(super) fn erase_view() {
    SCREEN.get().into_iter().for_each(|screen| screen.erase());
}

/// Has panics remove the view before they print their message.
fn erase_before_panics(screen: &Arc<LiveScreen>) {
    if SCREEN.set(screen.clone()).is_ok() {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            erase_view();
            print(panic);
        }));
    }
}

impl TerminalTraits {
    fn of_stderr() -> Self {
        // Terminals that wrap lines again. Without a sign of them a line could be removed that is
        // not the view's.
        const REWRAP: [&str; 7] = [
            "ALACRITTY_WINDOW_ID",
            "KITTY_WINDOW_ID",
            "KONSOLE_VERSION",
            "TERM_PROGRAM",
            "TMUX",
            "VTE_VERSION",
            "WT_SESSION",
        ];
        let (width, height) = terminal::size().unwrap_or((80, 24));
        let rewraps = REWRAP.into_iter().any(env::is_set);
        Self { width, height, has_colors: terminal::has_colors(), rewraps }
    }

    fn resized(self) -> Self {
        let (width, height) = terminal::size().unwrap_or((self.width, self.height));
        Self { width, height, ..self }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clock of the view. No figure of a report comes from it.
#[expect(clippy::disallowed_methods, reason = "the live view shows the remaining time")]
fn now() -> Instant {
    Instant::now()
}
