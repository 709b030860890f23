//! Zstandard: a file is a sequence of frames, each of which can be read without the others.

use std::io::{self, BufRead, Read};

use ruzstd::{
    decoding::{
        BlockDecodingStrategy, FrameDecoder,
        errors::{FrameDecoderError, ReadFrameHeaderError},
    },
    encoding::{CompressionLevel, compress_to_vec},
};

/// Returns a frame with `bytes`.
pub(crate) fn frame(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// Reads the content of all frames. The end of a file that was cut is the end of its last whole block:
/// a process that is killed leaves such a file.
pub(crate) struct FrameReader<R> {
    source: R,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

impl<R: BufRead> FrameReader<R> {
    /// Reads the frames of `source`.
    pub(crate) fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new(), is_in_frame: false }
    }

    /// Decodes a block, or begins a frame.
    fn advance(&mut self) -> io::Result<()> {
        if self.is_in_frame && self.decoder.is_finished() {
            self.is_in_frame = false;
            let (stored, actual) =
                (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
            if stored.is_some() && stored != actual {
                return Err(damaged("a checksum does not match"));
            }
        }
        let decoded = match self.is_in_frame {
            true => {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, one).map(drop)
            }
            false => self.decoder.reset(&mut self.source),
        };
        match decoded {
            Ok(()) => {
                self.is_in_frame = true;
                Ok(())
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => self.skip(length.into()),
            Err(error) => self.end(&error),
        }
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        io::copy(&mut self.source.by_ref().take(length), &mut io::sink()).map(drop)
    }

    /// Ends the content where the file ends. An error before its end is damage.
    fn end(&mut self, error: &FrameDecoderError) -> io::Result<()> {
        self.is_in_frame = false;
        match self.source.fill_buf()?.is_empty() {
            true => Ok(()),
            false => Err(damaged(&error.to_string())),
        }
    }

    fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(!self.is_in_frame && self.source.fill_buf()?.is_empty())
    }
}

impl<R: BufRead> Read for FrameReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            if self.is_at_end()? {
                return Ok(0);
            }
            self.advance()?;
        }
    }
}

fn damaged(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged Zstandard data: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(from: usize, to: usize) -> Vec<u8> {
        (from..to).flat_map(|n| format!("line {n} of the requests\n").into_bytes()).collect()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        FrameReader::new(bytes).read_to_end(&mut content).map(|_| content)
    }

    /// Two frames, of several blocks each.
    fn file() -> (Vec<u8>, Vec<u8>, usize) {
        let (first, second) = (lines(0, 12_000), lines(12_000, 20_000));
        let (a, b) = (frame(&first), frame(&second));
        ([first, second].concat(), [&a[..], &b[..]].concat(), a.len())
    }

    #[test]
    fn all_frames_are_read() {
        let (content, file, _) = file();
        assert!(content.len() > 300_000 && file.len() * 2 < content.len());
        assert!(read(&file).unwrap() == content);
        assert!(read(&[]).unwrap().is_empty());
        // A frame that readers skip: <https://datatracker.ietf.org/doc/html/rfc8878#section-3.1.2>
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &file].concat();
        assert!(read(&skipped).unwrap() == content);
    }

    #[test]
    fn a_file_that_is_cut_anywhere_has_its_whole_frames() {
        let (content, file, first) = file();
        let whole = lines(0, 12_000).len();
        for cut in (0..file.len()).step_by(997).chain([1, 4, 5, first - 1, first, first + 1]) {
            let read = read(&file[..cut]).unwrap_or_else(|error| panic!("{cut}: {error}"));
            assert!(content.starts_with(&read), "{cut}");
            assert!(read.len() >= if cut >= first { whole } else { 0 }, "{cut}");
        }
    }

    #[test]
    fn damage_is_an_error() {
        let (_, file, first) = file();
        for at in [first / 2, first - 2] {
            let mut file = file.clone();
            file[at] ^= 0x55;
            let error = read(&file).unwrap_err().to_string();
            assert!(error.starts_with("damaged Zstandard data: "), "{error}");
        }
        let error = read(b"{\"trial\":\"this is JSON\"}\n").unwrap_err().to_string();
        assert!(error.starts_with("damaged Zstandard data: "), "{error}");
    }
}
