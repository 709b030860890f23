//! The parser of HTTP responses, for tests with random bytes.

use bytes::BytesMut;

use crate::http1::ResponseReader;

/// Parses a response that arrives in `pieces` before the server closes the connection, and appends
/// its body to `body`. Returns the status and whether the connection may be reused.
pub fn read_response(
    pieces: &mut dyn Iterator<Item = &[u8]>,
    body: &mut BytesMut,
) -> Result<(Option<u16>, bool), String> {
    let mut reader = ResponseReader::new();
    for piece in pieces {
        reader.push(piece, body).map_err(|error| error.to_string())?;
    }
    reader.close().map_err(|error| error.to_string())?;
    Ok((reader.head().map(|head| head.status.as_u16()), reader.keeps_alive()))
}
