//! Runs a script without a server and without a clock: the recording has each event at its
//! scheduled time. Simulations of many runs use it.

use llm_stream_core::{
    protocol::{Envelope, Message, Protocol},
    recording::{Chunk, ErrorKind, MemoryHold, Recording, RequestError, StampedBy, Uncertainty},
};

use crate::{
    Script,
    script::{RequestFacts, ScriptedResponse, StreamEnd},
};

impl Script {
    /// Returns the recording of request `number`, or `None` if the script does not answer it with a
    /// stream.
    pub fn recorded(&self, number: u64, protocol: &dyn Protocol) -> Option<Recording> {
        let facts = RequestFacts {
            number,
            max_tokens: None,
            min_tokens: 0,
            prompt_chars: 40,
            include_usage: true,
        };
        let ScriptedResponse::Stream(mut stream) = self.answer(&facts) else { return None };
        let (id, envelope) = (self.id(number), Envelope { model: "simulated", created: 0 });
        let mut chunks = Vec::new();
        for step in stream.by_ref() {
            let encoded = step.messages.into_iter().map(|parts| {
                let message = Message { id: Some(id.as_str().into()), parts };
                protocol.encode(&message, &envelope)
            });
            let bytes = encoded.collect::<Vec<_>>().concat().into();
            chunks.push(Chunk { at: step.at, uncertainty: std::time::Duration::ZERO, bytes });
        }
        let ended_at = chunks.last().map(|chunk| chunk.at).unwrap_or_default();
        let broken = match stream.ending() {
            StreamEnd::Clean => None,
            StreamEnd::Stall => Some((ErrorKind::InterTokenTimeout, "the script stalls")),
            StreamEnd::Reset => Some((ErrorKind::Broken, "the script resets")),
        };
        Some(Recording {
            origin: None,
            status: 200,
            content_type: Some("text/event-stream".into()),
            head_time: None,
            content_encoding: None,
            retry_after: None,
            server: None,
            http_version: "HTTP/1.1".into(),
            connect: None,
            tls: None,
            sent: None,
            headers_at: ended_at.min(self.ttft),
            chunks,
            ended_at,
            stamped_by: StampedBy::Kernel,
            uncertainty: Uncertainty::default(),
            broken: broken.map(|(kind, message)| RequestError::new(kind, message)),
            hold: MemoryHold::default(),
        })
    }
}
