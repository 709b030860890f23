//! Interprets the bytes of an answer for the receive loop: when the last token arrived, and whether
//! the answer has ended. The loop asks only when no bytes come.

use std::time::Duration;

use llm_stream_core::{protocol::Protocol, recording::Chunk, sample};

use crate::ending::{EndMarks, EndProbe};

/// The form of an answer, by which the client finds its end when the server keeps the body open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerForm {
    /// A stream of tokens in the client's protocol.
    Stream {
        /// Whether the token counts come from the server's usage, which may follow the end marker.
        needs_usage: bool,
    },
    /// One JSON document, such as a list of models or an answer without a stream. Its tokens do not
    /// arrive one by one.
    Document,
}

/// Parses the answers of one client.
#[derive(Debug)]
pub(super) struct AnswerParser {
    pub(super) marks: EndMarks,
    protocol: &'static dyn Protocol,
    form: AnswerForm,
}

impl AnswerParser {
    /// Parses answers of `form` in `protocol`.
    pub(super) fn new(protocol: &'static dyn Protocol, form: AnswerForm) -> Self {
        Self { marks: EndMarks::of(protocol.end_marks()), protocol, form }
    }

    /// Returns the arrival of the last generated token in `chunks`.
    pub(super) fn last_token(&self, chunks: &[Chunk]) -> Option<Duration> {
        match self.form {
            AnswerForm::Stream { .. } => sample::tokens_so_far(chunks, self.protocol).0,
            AnswerForm::Document => None,
        }
    }
}

impl EndProbe for AnswerParser {
    fn has_ended(&self, chunks: &[Chunk], seen: usize) -> bool {
        match self.form {
            AnswerForm::Stream { .. } => sample::has_ended(chunks, seen, self.protocol),
            AnswerForm::Document => sample::is_document(chunks),
        }
    }

    fn lacks_usage(&self, chunks: &[Chunk]) -> bool {
        match self.form {
            AnswerForm::Stream { needs_usage } => {
                needs_usage && sample::lacks_usage(chunks, self.protocol)
            }
            AnswerForm::Document => false,
        }
    }
}
