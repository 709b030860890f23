//! Reads `requests.jsonl`, or the same compressed, line by line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek as _},
    path::{Path, PathBuf},
};

use llm_stream_core::request_line::RequestLine;

use super::zst::FrameReader;
use crate::temporary;

/// The longest line: that of an answer of a few million tokens.
const LONGEST: u64 = 256 << 20;

/// The requests of a stored run, in the order in which they ended.
pub(crate) struct RequestReader {
    lines: BufReader<Box<dyn Read>>,
    path: PathBuf,
    number: usize,
    line: String,
    /// The position of the next line.
    position: u64,
}

/// Opens the file for its content.
fn content(path: &Path) -> io::Result<Box<dyn Read>> {
    let file = File::open(path)?;
    Ok(match is_compressed(path) {
        true => Box::new(FrameReader::new(BufReader::with_capacity(1 << 16, file))),
        false => Box::new(file),
    })
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "zst")
}

/// Opens the file so that its content can be read at any position: a compressed one is written to a
/// temporary file.
pub(super) fn seekable(path: &Path) -> io::Result<File> {
    if !is_compressed(path) {
        return File::open(path);
    }
    let mut file = temporary::file()?;
    io::copy(&mut content(path)?, &mut file)?;
    file.rewind()?;
    Ok(file)
}

impl RequestReader {
    /// Opens the file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let lines = BufReader::with_capacity(1 << 16, content(path)?);
        Ok(Self { lines, path: path.to_owned(), number: 0, line: String::new(), position: 0 })
    }

    /// Returns the next request with the position and the length of its line.
    pub(super) fn next_with_place(
        &mut self,
    ) -> io::Result<Option<((u64, usize), RequestLine<'static>)>> {
        let position = self.position;
        let line = self.read()?;
        self.position += self.line.len() as u64;
        Ok(line.map(|line| ((position, self.line.len()), line)))
    }

    fn read(&mut self) -> io::Result<Option<RequestLine<'static>>> {
        self.line.clear();
        self.number += 1;
        let read = Read::take(&mut self.lines, LONGEST).read_line(&mut self.line);
        let read = read.map_err(|error| self.error(error))?;
        // The last line of a run that was killed may be incomplete.
        if read == 0 || !self.line.ends_with('\n') {
            return match read as u64 {
                LONGEST => Err(self.error("it is too long")),
                _ => Ok(None),
            };
        }
        RequestLine::from_json(&self.line).map(Some).map_err(|error| self.error(error))
    }

    fn error(&self, problem: impl ToString) -> io::Error {
        let (path, number) = (self.path.display(), self.number);
        let what = format!("{path}:{number}: not a request: {}", problem.to_string());
        io::Error::new(io::ErrorKind::InvalidData, what)
    }
}

impl Iterator for RequestReader {
    type Item = io::Result<RequestLine<'static>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
