//! The fast path of decoding: frames that differ from an earlier one only in their text, as most
//! frames of a stream do.

use std::{borrow::Cow, ops::Range, str};

use super::{Message, MessagePart, TokenKind};
use crate::framing::Frame;

/// A frame with a single generated text, as a template for the following ones.
///
/// Parsing JSON is most of the work of decoding a stream, and in a load it competes with the
/// receive loop for the CPU. The template avoids it and cannot change the result. The learned text
/// was borrowed from the frame, so it is the complete contents of a JSON string without escapes. If
/// a new frame has the same bytes before and after its text, and the text needs no escape either,
/// then the new frame is the same document with another string at this position, and a full parse
/// would return the same message with this text. Any other frame, such as one with another field,
/// an escape or a finish reason, does not match and is parsed.
#[derive(Debug, Default)]
pub struct EventTemplate {
    name: String,
    data: Vec<u8>,
    /// The position of the text in `data`.
    text: Range<usize>,
    kind: Option<TokenKind>,
}

impl EventTemplate {
    /// Returns the text of `frame` if it matches the last [learned](Self::learn) frame.
    pub fn read<'a>(&self, frame: &Frame<'a>) -> Option<(TokenKind, &'a str)> {
        let Frame::Event { name, data, terminated: true } = *frame else { return None };
        let kind = self.kind.filter(|_| name == self.name)?;
        let rest = data.strip_prefix(&self.data[..self.text.start])?;
        let text = rest.strip_suffix(&self.data[self.text.end..])?;
        let is_plain = |byte: &u8| *byte >= b' ' && !matches!(byte, b'"' | b'\\');
        let is_usable = !text.is_empty() && text.iter().all(is_plain);
        is_usable.then(|| str::from_utf8(text).ok().map(|text| (kind, text)))?
    }

    /// Learns `frame` with its contents `message`, if it can be a template, and returns whether it is.
    pub fn learn(&mut self, frame: &Frame<'_>, message: &Message<'_>) -> bool {
        let Frame::Event { name, data, .. } = *frame else { return false };
        let [MessagePart::Token(kind, Cow::Borrowed(text))] = message.parts.as_slice() else {
            return false;
        };
        let Some(range) = position(data, text) else { return false };
        self.name.clear();
        self.name.push_str(name);
        self.data.clear();
        self.data.extend_from_slice(data);
        self.text = range;
        self.kind = Some(*kind);
        true
    }
}

/// Returns the position in `data` of the string from which `text` was borrowed.
fn position(data: &[u8], text: &str) -> Option<Range<usize>> {
    let start = text.as_ptr().addr().checked_sub(data.as_ptr().addr())?;
    let end = start.checked_add(text.len())?;
    let is_quoted = data.get(start.checked_sub(1)?) == Some(&b'"') && data.get(end) == Some(&b'"');
    is_quoted.then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{OpenAiChat, Protocol as _};

    fn frame(data: &str) -> Frame<'_> {
        Frame::Event { name: "", data: data.as_bytes(), terminated: true }
    }

    fn content(json: &str) -> String {
        format!(r#"{{"id":"a","choices":[{{"index":0,"delta":{{"content":{json}}}}}]}}"#)
    }

    /// Returns a template of a frame with the text `x`.
    fn learned() -> EventTemplate {
        let mut template = EventTemplate::default();
        let data = content(r#""x""#);
        let message = OpenAiChat.decode(&frame(&data)).expect("a chunk");
        template.learn(&frame(&data), &message);
        template
    }

    #[test]
    fn a_frame_with_another_text_is_read_by_it() {
        for text in ["y", " word", "longer than the template's", "é 你好 🙂", "}]"] {
            let data = content(&format!("\"{text}\""));
            assert_eq!(learned().read(&frame(&data)), Some((TokenKind::Answer, text)));
        }
    }

    #[test]
    fn a_frame_that_differs_in_more_than_its_text_is_not_read() {
        let texts =
            [r#""""#, r#""a\n""#, r#""a\"""#, "\"a\u{1}\"", "null", r#""y","role":"assistant""#];
        let others = texts.map(content).into_iter();
        let others = others.chain([
            content(r#""y""#).replace("\"a\"", "\"b\""),
            content(r#""y""#).replace("index\":0", "index\":1"),
            content(r#""y""#) + " ",
            content("\"").replace("\"}", "}"),
            "[DONE]".into(),
            String::new(),
        ]);
        for data in others {
            assert_eq!(learned().read(&frame(&data)), None, "{data}");
        }
        let data = content(r#""y""#);
        let other = Frame::Event { name: "error", data: data.as_bytes(), terminated: true };
        assert_eq!(learned().read(&other), None);
        let cut = Frame::Event { name: "", data: data.as_bytes(), terminated: false };
        assert_eq!(learned().read(&cut), None);
        assert_eq!(learned().read(&Frame::Comment(data.as_bytes())), None);
        assert_eq!(EventTemplate::default().read(&frame("")), None);
    }

    #[test]
    fn only_a_lone_borrowed_text_is_a_template() {
        let not = [
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a\n"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"completion_tokens":1}}"#,
        ];
        for data in not {
            let mut template = EventTemplate::default();
            template.learn(&frame(data), &OpenAiChat.decode(&frame(data)).expect("a chunk"));
            assert_eq!(template.kind, None, "{data}");
        }
    }
}
