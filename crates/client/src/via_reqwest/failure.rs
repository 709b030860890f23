//! Maps hyper's errors to ours, so that both transports print the same for the same bytes.
//!
//! hyper's errors differ only in their texts. An unknown text is printed as it is.

use crate::http1::HttpError;

/// The error in the bytes of an answer, by hyper's root cause; `None` for an unknown cause.
pub(super) fn http_error(cause: &str) -> Option<HttpError> {
    Some(match cause {
        "connection closed before message completed" => HttpError::HeadCut,
        "invalid HTTP version parsed" => HttpError::Version,
        "invalid HTTP status-code parsed" => HttpError::StatusLine,
        "invalid HTTP header parsed" => HttpError::Field,
        "message head is too large" => HttpError::TooLarge,
        "invalid content-length parsed" => HttpError::Length,
        "unexpected transfer-encoding parsed" => HttpError::TransferEncoding,
        "end of file before message length reached" | "unexpected EOF during chunk size line" => {
            HttpError::BodyCut
        }
        "Invalid chunk body CR" | "Invalid chunk body LF" => HttpError::ChunkEnd,
        "Invalid trailer end LF"
        | "Invalid chunk end LF"
        | "Partial header"
        | "chunk trailers bytes over limit"
        | "chunk trailers count overflow" => HttpError::Trailer,
        // httparse's errors occur for trailers only: hyper has its own for heads.
        "invalid header name"
        | "invalid header value"
        | "invalid new line"
        | "too many headers" => HttpError::Trailer,
        "Invalid chunk size LF"
        | "Invalid chunk size line: Invalid Size"
        | "Invalid chunk size line: missing size digit"
        | "Invalid chunk size linear white space"
        | "chunk extensions over limit"
        | "invalid chunk extension contains newline"
        | "invalid chunk size: overflow" => HttpError::ChunkSize,
        _ => return None,
    })
}
