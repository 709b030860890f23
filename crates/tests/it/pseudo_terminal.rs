//! A terminal for a program under test: the kernel's pseudo-terminal, and an emulator that shows
//! what a person would see.

use std::{
    ffi::OsString,
    fs::File,
    io::{Read, Write},
    num::NonZeroU16,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    process::{Command, ExitStatus},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::wait::{self, Process};

/// Variables that change what a program writes to a terminal.
const OF_TERMINALS: [&str; 8] = [
    "CI",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLUMNS",
    "NO_COLOR",
    "TERM_PROGRAM",
    "TMUX",
    "VTE_VERSION",
];

/// A program in a terminal.
pub(crate) struct PseudoTerminal {
    process: Process,
    master: File,
    seen: Arc<Mutex<Seen>>,
    reading: JoinHandle<()>,
}

/// What the program wrote.
struct Seen {
    bytes: Vec<u8>,
    emulator: vt100::Parser,
}

/// What is in the terminal when the program has ended.
pub(crate) struct Left {
    pub(crate) status: ExitStatus,
    pub(crate) bytes: String,
    /// All lines, also those that were scrolled away.
    pub(crate) lines: Vec<String>,
    /// The column of the cursor.
    pub(crate) column: u16,
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn nonzero(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("a size")
}

impl PseudoTerminal {
    /// Starts the program as the session of a terminal with this size, so that control characters
    /// are signals.
    pub(crate) fn start(command: &Command, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, size(columns, rows)).unwrap();
        let path = OsString::from_vec(ptsname(&master, Vec::new()).unwrap().into_bytes());
        let slave = || {
            let opened = File::options().read(true).write(true).open(&path);
            OwnedFd::from(opened.unwrap())
        };
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        session.current_dir(command.get_current_dir().unwrap()).env("TERM", "xterm-256color");
        for name in OF_TERMINALS {
            session.env_remove(name);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        session.stdin(slave()).stdout(slave()).stderr(slave());
        let process = Process::as_it_is(&mut session);
        // The parent's ends of the terminal close with it, and then reading ends.
        drop(session);
        let master = File::from(master);
        let emulator = vt100::Parser::new(nonzero(rows), nonzero(columns), 10_000);
        let seen = Arc::new(Mutex::new(Seen { bytes: Vec::new(), emulator }));
        let reading = read(master.try_clone().unwrap(), seen.clone());
        Self { process, master, seen, reading }
    }

    /// Types a text.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Sends a signal to the program.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Gives the terminal another size.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let mut seen = self.seen.lock().unwrap();
        seen.emulator.set_size(nonzero(rows), nonzero(columns));
        tcsetwinsize(&self.master, size(columns, rows)).unwrap();
    }

    /// The rows of the screen.
    pub(crate) fn screen(&self) -> String {
        self.seen.lock().unwrap().emulator.screen().contents()
    }

    /// Waits until the screen has this text.
    pub(crate) fn wait_for(&self, text: &str) {
        wait::until(text, || self.screen().contains(text));
    }

    /// Waits for the end of the program.
    pub(crate) fn end(mut self) -> Left {
        let status = self.process.end();
        wait::joined(self.reading);
        let mut seen = self.seen.lock().unwrap();
        let bytes = String::from_utf8_lossy(&seen.bytes).into_owned();
        let screen = seen.emulator.screen_mut();
        let column = screen.cursor_position().1;
        let lines = lines(screen);
        Left { status, bytes, lines, column }
    }
}

fn read(mut master: File, seen: Arc<Mutex<Seen>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 1 << 16];
        // The end of a terminal is an error.
        while let Ok(read @ 1..) = master.read(&mut buffer) {
            let mut seen = seen.lock().unwrap();
            seen.bytes.extend_from_slice(&buffer[..read]);
            seen.emulator.process(&buffer[..read]);
        }
    })
}

/// The lines of the screen and those above it.
fn lines(screen: &mut vt100::Screen) -> Vec<String> {
    let columns = screen.size().1.get();
    let mut lines = Vec::new();
    for above in (1..=screen.scrollback_len()).rev() {
        screen.set_scrollback(above);
        lines.extend(screen.rows(0, columns).take(1));
    }
    screen.set_scrollback(0);
    lines.extend(screen.rows(0, columns));
    lines
}
