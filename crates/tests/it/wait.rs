//! Waits that end: a process, a thread or a condition that hangs fails its test, not the whole run.

use std::{
    io::Read,
    ops::{Deref, DerefMut},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Far longer than any test takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// cargo may compile a crate.
pub(crate) const PATIENCE_WITH_CARGO: Duration = Duration::from_secs(900);

/// A process that is killed when its time is over, or when it is dropped. After the kill its pipes
/// end, so each read from them and each wait for the process has the same bound.
pub(crate) struct Process {
    child: Child,
    _still_needed: mpsc::Sender<()>,
}

impl Process {
    /// Starts `command` with pipes for what it prints.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::with_patience(command, PATIENCE)
    }

    fn with_patience(command: &mut Command, patience: Duration) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::spawn(command, patience)
    }

    /// Starts `command` with the streams that it has.
    pub(crate) fn as_it_is(command: &mut Command) -> Self {
        Self::spawn(command, PATIENCE)
    }

    fn spawn(command: &mut Command, patience: Duration) -> Self {
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (still_needed, over) = mpsc::channel::<()>();
        let id = child.id();
        thread::spawn(move || {
            if over.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                signal(id, "KILL");
            }
        });
        Self { child, _still_needed: still_needed }
    }

    /// Sends a signal by its name, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for the end of the process.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.child.wait().expect("an end")
    }

    /// Waits for the end of the process, and returns what it printed and nothing has read yet.
    pub(crate) fn output(mut self) -> Output {
        let read = |pipe: Option<Box<dyn Read + Send>>| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut pipe) = pipe {
                    pipe.read_to_end(&mut bytes).expect("a pipe");
                }
                bytes
            })
        };
        let stdout = read(self.child.stdout.take().map(|pipe| Box::new(pipe) as _));
        let stderr = read(self.child.stderr.take().map(|pipe| Box::new(pipe) as _));
        let [stdout, stderr] = [stdout, stderr].map(|bytes| bytes.join().expect("what it printed"));
        Output { status: self.end(), stdout, stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

/// Runs a command to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    Process::start(command).output()
}

/// Runs cargo to its end.
pub(crate) fn output_of_cargo(command: &mut Command) -> Output {
    Process::with_patience(command, PATIENCE_WITH_CARGO).output()
}

/// Sends a signal by its name, such as `INT`, to a process.
pub(crate) fn signal(process: u32, name: &str) {
    let kill = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    assert!(kill.expect("kill").success(), "{name} {process}");
}

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs `work` on its own thread and waits for its result.
pub(crate) fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, result) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    result.recv_timeout(PATIENCE).expect("a result of the thread")
}

/// Waits for the end of a thread.
pub(crate) fn joined<T>(thread: JoinHandle<T>) -> T {
    until("the end of a thread", || thread.is_finished());
    thread.join().expect("a thread that does not panic")
}

#[cfg(unix)]
#[test]
fn a_process_that_hangs_is_killed_when_its_time_is_over() {
    let mut command = Command::new("sleep");
    let process = Process::with_patience(command.arg("60"), Duration::from_millis(50));
    let begun = Instant::now();
    assert_eq!(process.output().status.code(), None);
    assert!(begun.elapsed() < Duration::from_secs(30));
}
