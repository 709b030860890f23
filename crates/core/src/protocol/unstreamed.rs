//! Answers that are not streamed: one JSON document for the whole answer.

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::{
    ChatRequest, DecodeError, Envelope, Message, MessagePart, Protocol, RequestIntent, TextFields,
    json::JsonTree, wire,
};
use crate::{
    framing::{Frame, Framing},
    prompt::Image,
};

/// A protocol that also has answers that are not streamed.
pub(super) trait DocumentForm: Protocol {
    /// The path of requests, if it differs from that of streamed answers.
    fn document_path(&self) -> &'static str {
        self.path()
    }

    /// Decodes a whole answer, without its end.
    fn document<'a>(&self, tree: &JsonTree<'a>, fields: &TextFields) -> Message<'a>;

    /// Formats a whole answer, without errors.
    fn document_json(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Value;
}

/// The variant of a protocol whose answers are not streamed, for a model with `stream: false`.
///
/// The only frame is the whole body. A document that is complete is the end of its answer.
#[derive(Debug)]
pub(super) struct Unstreamed<P>(pub(super) P);

impl<P: DocumentForm> Protocol for Unstreamed<P> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn path(&self) -> &'static str {
        self.0.document_path()
    }

    fn prefix(&self) -> &'static str {
        self.0.prefix()
    }

    fn framing(&self) -> Framing {
        Framing::Document
    }

    fn end_marks(&self) -> &'static [&'static str] {
        &[]
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        self.0.headers()
    }

    fn key_header(&self) -> (HeaderName, &'static str) {
        self.0.key_header()
    }

    fn body(&self, ask: &ChatRequest<'_>) -> Value {
        let mut body = self.0.body(ask);
        if let Value::Object(fields) = &mut body {
            fields.remove("stream_options");
            // A protocol whose path decides has no such field.
            if let Some(stream) = fields.get_mut("stream") {
                *stream = false.into();
            }
        }
        body
    }

    fn fewest_tokens(&self) -> u64 {
        self.0.fewest_tokens()
    }

    fn length_fields(&self) -> &'static [&'static str] {
        self.0.length_fields()
    }

    fn tool_fields(&self) -> &'static [&'static str] {
        self.0.tool_fields()
    }

    fn has_roles(&self) -> bool {
        self.0.has_roles()
    }

    fn takes(&self, image: &Image) -> bool {
        self.0.takes(image)
    }

    fn limits(&self) -> &'static [&'static str] {
        self.0.limits()
    }

    fn forbidden_field(&self, key: &str, value: &Value) -> Option<String> {
        match key {
            "stream" if *value == false => None,
            "stream" => Some("`stream` is set by the model's field `stream`".into()),
            "stream_options" if !value.is_null() => {
                Some("`stream_options` is for streams, and the model has `stream: false`".into())
            }
            _ => self.0.forbidden_field(key, value),
        }
    }

    fn request_intent(&self, body: &Map<String, Value>) -> RequestIntent {
        // Without a stream the usage is always part of the answer.
        RequestIntent { usage: true, stream: false, ..self.0.request_intent(body) }
    }

    fn decode_with<'a>(
        &self,
        frame: &Frame<'a>,
        fields: &TextFields,
    ) -> Result<Message<'a>, DecodeError> {
        decode(frame, |tree| Ok(self.0.document(tree, fields)))
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        match wire::errors_of(&message.parts).next() {
            Some(error) => self.encode_error(500, error),
            None => self.0.document_json(message, envelope).to_string().into_bytes(),
        }
    }

    fn ending(&self, parts: Vec<MessagePart<'static>>) -> Vec<Vec<MessagePart<'static>>> {
        self.0.ending(parts)
    }

    fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
        self.0.encode_error(status, message)
    }

    fn decode_error(&self, body: &[u8]) -> Option<String> {
        self.0.decode_error(body)
    }
}

/// Decodes the frame with the whole body; `read` interprets its JSON. The document's end is the end
/// of the answer.
pub(super) fn decode<'a>(
    frame: &Frame<'a>,
    read: impl Fn(&JsonTree<'a>) -> Result<Message<'a>, DecodeError>,
) -> Result<Message<'a>, DecodeError> {
    let Frame::Event { data, .. } = *frame else { return Ok(Message::default()) };
    match JsonTree::parse(data) {
        Ok(tree @ JsonTree::Object(_)) => {
            let mut message = read(&tree)?;
            if !message.parts.contains(&MessagePart::End) {
                message.parts.push(MessagePart::End);
            }
            Ok(message)
        }
        Ok(_) => {
            Err(DecodeError(format!("the answer is not a JSON object: {}", wire::excerpt(data))))
        }
        Err(_) if is_stream(data) => Err(DecodeError(format!(
            "the server streamed its answer, although the request has `stream: false`: {}",
            wire::excerpt(data)
        ))),
        Err(error) => {
            let excerpt = wire::excerpt(data);
            Err(DecodeError(match error.is_eof() {
                true => format!("the JSON of the answer is cut ({error}): {excerpt}"),
                false => format!("the answer is not JSON ({error}): {excerpt}"),
            }))
        }
    }
}

/// Returns whether a body is a stream of events.
fn is_stream(data: &[u8]) -> bool {
    ["data:", "event:", ":"].iter().any(|start| data.starts_with(start.as_bytes()))
}
