//! A connection: a timestamping socket, with or without TLS on top.

use std::io::{self, Read as _, Write as _};

use llm_stream_core::recording::RequestError;
use rustls::ClientConnection;

use super::incoming::{Arrival, Incoming};
use crate::{server_address::ResolvedAddress, socket::TimedSocket};

/// A connection that is open or being opened.
pub(super) struct Connection {
    pub(super) socket: TimedSocket,
    pub(super) tls: Option<Box<ClientConnection>>,
}

impl Connection {
    /// Starts to connect.
    pub(super) fn to(address: &ResolvedAddress) -> io::Result<Self> {
        Ok(Self { socket: TimedSocket::connect(address)?, tls: None })
    }

    /// Whether the TCP connection is established. Fails if it cannot be.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        self.socket.stream.is_connected()
    }

    /// Whether the TLS handshake is incomplete.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether a kept connection can carry a request: the server has neither closed it nor sent data.
    pub(super) fn is_open(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            match self.socket.read(buffer) {
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                Ok(read) if read.bytes == 0 => return false,
                // A TLS server may send session tickets at any time; HTTP sends nothing.
                Ok(read) => {
                    let bytes = &buffer[..read.bytes];
                    if !self.tls.as_mut().is_some_and(|tls| is_without_data(tls, bytes)) {
                        return false;
                    }
                }
            }
        }
    }

    /// Advances the TLS handshake; returns whether bytes were read or written.
    pub(super) fn advance_handshake(&mut self) -> Result<bool, HandshakeError> {
        let Some(tls) = &mut self.tls else { return Ok(false) };
        let mut moved = false;
        while tls.wants_write() {
            match tls.write_tls(&mut self.socket.stream) {
                Ok(_) => moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if tls.wants_read() {
            match tls.read_tls(&mut self.socket) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(moved),
                Err(error) => return Err(error.into()),
            }
            let processed = tls.process_new_packets();
            if processed.is_err() {
                // Sends the alert with the reason. The connection is lost in any case.
                let _ = tls.write_tls(&mut self.socket.stream);
            }
            processed?;
        }
        Ok(moved)
    }

    /// Encrypts the request over TLS; returns the bytes that are left to write in plain.
    pub(super) fn seal(&mut self, request: Vec<u8>) -> io::Result<Vec<u8>> {
        let Some(tls) = &mut self.tls else { return Ok(request) };
        // By default rustls buffers 64 KiB; a prompt may be longer.
        tls.set_buffer_limit(None);
        tls.writer().write_all(&request)?;
        Ok(Vec::new())
    }

    /// Writes what the kernel accepts; returns whether bytes are left.
    pub(super) fn write(&mut self, rest: &mut &[u8]) -> io::Result<bool> {
        let blocks = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(written) => *rest = &rest[written..],
                Err(error) if blocks(&error) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            match tls.write_tls(&mut self.socket.stream) {
                Ok(_) => {}
                Err(error) if blocks(&error) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Narrows the arrival of a read that is exactly one TLS record: no byte of it can be decrypted
    /// before its last byte arrives.
    pub(super) fn arrival(&self, bytes: &[u8], arrival: Arrival) -> Arrival {
        match self.tls.is_some() && arrival.is_exact && is_one_record(bytes) {
            true => Arrival { since: arrival.at, ..arrival },
            false => arrival,
        }
    }

    /// Whether parts of this read may have different arrivals that matter. A single event has one
    /// arrival, the read's timestamp.
    pub(super) fn needs_segments(&self, bytes: &[u8], incoming: &Incoming) -> bool {
        let is_one = match self.tls {
            Some(_) => is_one_record(bytes),
            None => is_one_event(bytes) && incoming.reader.head().is_some(),
        };
        !bytes.is_empty() && !is_one
    }

    /// Passes on one read: its first `segments` with their own arrivals, and the rest.
    pub(super) fn take_segments(
        &mut self,
        mut bytes: &[u8],
        segments: &[(usize, Arrival)],
        mut arrival: Arrival,
        incoming: &mut Incoming,
    ) -> Result<(), HandshakeError> {
        let is_end = bytes.is_empty();
        for (length, known) in segments {
            let segment;
            (segment, bytes) = bytes.split_at(*length);
            self.take(segment, *known, incoming)?;
            // The rest of the read cannot have arrived before its earlier segments.
            arrival.since = arrival.since.max(known.at);
            arrival.at = arrival.at.max(known.at);
        }
        match is_end || !bytes.is_empty() {
            true => self.take(bytes, arrival, incoming),
            false => Ok(()),
        }
    }

    /// Passes on bytes with their arrival. An empty read means that the server has closed.
    fn take(
        &mut self,
        bytes: &[u8],
        arrival: Arrival,
        incoming: &mut Incoming,
    ) -> Result<(), HandshakeError> {
        if bytes.is_empty() {
            return match self.tls {
                Some(_) => Ok(incoming.cut(arrival)?),
                None => Ok(incoming.close(arrival)?),
            };
        }
        let taken = match &mut self.tls {
            None => incoming.take(bytes, arrival).map_err(HandshakeError::from),
            Some(tls) => decrypt(tls, bytes, |plain| incoming.take(plain, arrival)),
        };
        // Bytes before an error are part of the recording.
        incoming.end_read(arrival);
        taken?;
        let closed = self.tls.as_mut().is_some_and(|tls| {
            tls.process_new_packets().is_ok_and(|state| state.peer_has_closed())
        });
        match closed {
            true => Ok(incoming.close(arrival)?),
            false => Ok(()),
        }
    }
}

/// Whether these bytes end with a JSON event and contain the end of no other.
fn is_one_event(bytes: &[u8]) -> bool {
    let is_end = |end: &usize| {
        let line = &bytes[..*end];
        line.strip_suffix(b"\r").unwrap_or(line).ends_with(b"}")
    };
    let mut ends = memchr::memchr_iter(b'\n', bytes).filter(is_end);
    let is_last = |end: usize| bytes[end..].trim_ascii().is_empty();
    ends.next().is_some_and(is_last) && ends.next().is_none()
}

/// Whether these bytes are exactly one TLS record.
fn is_one_record(bytes: &[u8]) -> bool {
    let [20..=23, 3, _, high, low, rest @ ..] = bytes else { return false };
    rest.len() == usize::from(u16::from_be_bytes([*high, *low]))
}

/// The reason why a TLS connection failed.
pub(super) enum HandshakeError {
    Io(io::Error),
    Tls(rustls::Error),
    /// The decrypted bytes are not a valid answer.
    Answer(RequestError),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<RequestError> for HandshakeError {
    fn from(error: RequestError) -> Self {
        Self::Answer(error)
    }
}

/// Decrypts `bytes` and passes the plain text to `sink`. Bytes after `close_notify` are ignored: they
/// are not authenticated, and rustls does not accept them.
fn decrypt(
    tls: &mut ClientConnection,
    mut bytes: &[u8],
    mut sink: impl FnMut(&[u8]) -> Result<(), RequestError>,
) -> Result<(), HandshakeError> {
    let mut plain = [0; 16 << 10];
    while !bytes.is_empty() && tls.read_tls(&mut bytes)? > 0 {
        let mut left = tls.process_new_packets()?.plaintext_bytes_to_read();
        while left > 0 {
            let read = tls.reader().read(&mut plain)?;
            sink(&plain[..read])?;
            left -= read;
        }
    }
    Ok(())
}

/// Whether `bytes` are TLS messages without data, and the server has not closed.
fn is_without_data(tls: &mut ClientConnection, bytes: &[u8]) -> bool {
    let mut silent = true;
    let taken = decrypt(tls, bytes, |_| {
        silent = false;
        Ok(())
    });
    let closed = tls.process_new_packets().map_or(true, |state| state.peer_has_closed());
    taken.is_ok() && silent && !closed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_is_distinguished_from_several_and_from_parts() {
        let one: [&[u8]; 4] = [
            b"9\r\ndata: {}\n\n\r\n",
            b"data: {\"a\":1}\r\n\r\n",
            b"{\"done\":false}\n",
            b"event: x\ndata: {}\n\n",
        ];
        let other: [&[u8]; 6] = [
            b"",
            b"data: {}\n\ndata: {}\n\n",
            b"data: {}\n\ndata: [DONE]\n\n",
            b"data: {}\n\n: ping\n\n",
            b"data: {}\n\ndata: {\"a",
            b"data: {\"a",
        ];
        assert_eq!(one.map(is_one_event), [true; 4]);
        assert_eq!(other.map(is_one_event), [false; 6]);
    }

    #[test]
    fn one_record_is_distinguished_from_several_and_from_parts() {
        assert!(is_one_record(&[23, 3, 3, 0, 2, 1, 1]));
        assert!(!is_one_record(&[23, 3, 3, 0, 2, 1]));
        assert!(!is_one_record(&[23, 3, 3, 0, 1, 1, 23, 3, 3, 0, 1, 1]));
        assert!(!is_one_record(&[7, 3, 3, 0, 2, 1, 1]), "the rest of one");
        assert!(!is_one_record(&[]));
    }
}
