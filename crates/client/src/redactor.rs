//! What a request carries and nobody is to see, in case the server sends it back.
//!
//! Nothing is hidden while answers are received. What is shown or written is: messages, what a sample
//! quotes, recordings. A message is made of an answer that was masked before, since a text that is cut
//! may end within a secret. In an answer the mask has the length of what it hides: no byte moves to
//! another read, and the stream stays one that can be decoded.
//!
//! Some keys are words: `EMPTY`, `test`, `text`. Where such a word stands in an answer or a message, it
//! is probably no key, so that less of it is hidden; and never the name of a JSON field.

mod written;

use std::ops::Range;

use bytes::Bytes;
use llm_stream_core::{
    recording::{Recording, RequestError},
    sample::Sample,
};

use self::written::Written;

/// Shorter values would be found in any text, and are no secrets.
const SHORTEST: usize = 4;

/// Shorter values are placeholders: they are hidden in messages, where they are separate words.
const SHORTEST_KEY: usize = 8;

/// The secrets, longest first: one may be part of another.
#[derive(Clone, Default)]
pub struct Redactor(Vec<Known>);

#[derive(Clone)]
struct Known {
    written: Written,
    /// Whether it could be a word or a number of any text.
    is_word: bool,
    /// Whether it is a number of digits.
    is_number: bool,
}

impl Known {
    fn new(written: Written) -> Self {
        let text = written.text();
        let is_short = text.len() < SHORTEST_KEY;
        let is_number = is_number(text);
        Self { is_word: is_short || is_number || is_of_words(text), is_number, written }
    }

    /// Whether it is too short to be looked for in a stream.
    fn is_placeholder(&self) -> bool {
        self.written.len() < SHORTEST_KEY
    }

    /// Where it is in `bytes`; what could be a word, only where it is one.
    fn places(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut places = self.written.places(bytes);
        if self.is_word {
            places.retain(|place| stands_alone(bytes, place) && !is_field(bytes, place));
        }
        places
    }
}

impl Redactor {
    /// These values, and what follows a scheme in them, such as `Bearer`.
    pub fn of<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut secrets = Self::default();
        for value in values {
            secrets.add(value);
            let space = value.iter().position(|byte| *byte == b' ');
            let after = space.filter(|at| value[..*at].iter().all(u8::is_ascii_alphabetic));
            if let Some(at) = after {
                secrets.add(&value[at + 1..]);
            }
        }
        secrets.0.sort_by_key(|known| std::cmp::Reverse(known.written.len()));
        secrets.0.dedup_by(|a, b| a.written == b.written);
        secrets
    }

    fn add(&mut self, value: &[u8]) {
        if value.len() < SHORTEST {
            return;
        }
        let text = String::from_utf8_lossy(value);
        // What a server makes of bytes that it takes for Latin-1.
        let latin1: String = value.iter().copied().map(char::from).collect();
        self.0.extend([Written::new(&text), Written::new(&latin1)].map(Known::new));
        if value.len() >= SHORTEST_KEY {
            self.0.extend(Written::in_base64(value).map(Known::new));
        }
    }

    /// `text` without them.
    pub fn hidden_in(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, known| {
            let (mut hidden, mut after) = (String::new(), 0);
            for place in known.places(text.as_bytes()) {
                hidden += text.get(after..place.start).unwrap_or_default();
                hidden += "***";
                after = place.end;
            }
            hidden + text.get(after..).unwrap_or_default()
        })
    }

    /// What came of an answer, without them. An error is that of `masked`, the error of the answer
    /// without them, if there is one.
    pub fn hidden_in_outcome(
        &self,
        outcome: Result<Sample, RequestError>,
        masked: impl FnOnce(&Self) -> Option<RequestError>,
    ) -> Result<Sample, RequestError> {
        match outcome {
            _ if self.0.is_empty() => outcome,
            Err(error) => Err(self.hide_in_error(masked(self).unwrap_or(error))),
            Ok(mut sample) => {
                let id = sample.request_id.iter_mut().chain([&mut sample.finish_reason]);
                let unread = sample.unread.iter_mut().map(|field| &mut field.name);
                let doubts = sample.doubts.iter_mut().map(|doubt| &mut doubt.reason);
                id.chain(unread).chain(doubts).for_each(|text| *text = self.hidden_in(text));
                Ok(sample)
            }
        }
    }

    /// `error` without them.
    pub fn hide_in_error(&self, error: RequestError) -> RequestError {
        RequestError { message: self.hidden_in(&error.message), ..error }
    }

    /// `recording` without them, be they spread over several reads.
    pub fn hide(&self, mut recording: Recording) -> Recording {
        recording.broken = recording.broken.map(|error| self.hide_in_error(error));
        let Recording { content_type, content_encoding, retry_after, .. } = &mut recording;
        for text in [content_type, content_encoding, retry_after].into_iter().flatten() {
            *text = self.hidden_in(text);
        }
        if self.0.is_empty() {
            return recording;
        }
        let chunks: Vec<_> = recording.chunks.iter().map(|chunk| &chunk.bytes[..]).collect();
        let mut body = chunks.concat();
        let is_stream = (200..300).contains(&recording.status);
        if self.mask(&mut body, is_stream) {
            let mut rest = Bytes::from(body);
            for chunk in &mut recording.chunks {
                chunk.bytes = rest.split_to(chunk.bytes.len());
            }
        }
        recording
    }

    /// Overwrites them in `bytes`, but for what a stream itself could hold; whether there were any.
    fn mask(&self, bytes: &mut [u8], is_stream: bool) -> bool {
        let mut found = false;
        for known in self.0.iter().filter(|known| !(is_stream && known.is_placeholder())) {
            for place in known.places(bytes) {
                if !(is_stream && known.is_number && is_value(bytes, &place)) {
                    bytes[place].fill(b'*');
                    found = true;
                }
            }
        }
        found
    }
}

fn is_number(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
}

/// Whether `value` could be a field's name or another word of a protocol: nothing as long as a key and
/// made of letters is.
fn is_of_words(value: &str) -> bool {
    value.len() < 24 && value.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
}

/// Whether the text at `place` is not part of a longer word.
fn stands_alone(bytes: &[u8], place: &Range<usize>) -> bool {
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let before = bytes[..place.start].last();
    !before.is_some_and(is_of_word) && !bytes.get(place.end).is_some_and(is_of_word)
}

/// Whether it is the name of a JSON field: in quotes, with a colon after them. JSON within JSON has
/// backslashes before its quotes.
fn is_field(bytes: &[u8], place: &Range<usize>) -> bool {
    let after = bytes[place.end..].trim_ascii_start();
    let slashes = after.iter().take_while(|byte| **byte == b'\\').count();
    let colon = after[slashes..].strip_prefix(b"\"").map(<[u8]>::trim_ascii_start);
    bytes[..place.start].ends_with(b"\"") && colon.is_some_and(|rest| rest.starts_with(b":"))
}

/// Whether it is a value of JSON without quotes.
fn is_value(bytes: &[u8], place: &Range<usize>) -> bool {
    let before = bytes[..place.start].trim_ascii_end().last();
    before.is_some_and(|byte| b":,[".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[&[u8]]) -> Redactor {
        Redactor::of(values.iter().copied())
    }

    fn masked(values: &[&[u8]], text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        secrets(values).mask(&mut bytes, true);
        assert_eq!(bytes.len(), text.len(), "no byte moves");
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_secret_is_masked_however_it_is_written() {
        let key = "Bearer sk-é\"\\-1234".as_bytes();
        for written in
            [r#"sk-é"\-1234"#, r#"sk-é\"\\-1234"#, r#"sk-\u00e9\"\\-1234"#, r#"sk-Ã©"\-1234"#]
        {
            let told = masked(&[key], &format!("key {written} is bad"));
            assert!(!told.contains("1234") && told.ends_with("* is bad"), "{told}");
        }
    }

    #[test]
    fn a_secret_is_masked_in_the_forms_of_usual_encoders() {
        let key = "Bearer sk/+&<>'=\"1234".as_bytes();
        for written in [
            // PHP; Go; .NET; JSON within JSON.
            r#"sk\/+&<>'=\"1234"#,
            r#"sk/+\u0026\u003c\u003e'=\"1234"#,
            r#"sk/\u002B\u0026\u003C\u003E\u0027=\u00221234"#,
            r#"sk\\\/\\u002b&<>\\u0027\\u003d\\\"1234"#,
            // Of a URL, once and twice.
            "sk%2F%2B%26%3C%3E%27%3D%221234",
            "sk/%2b%26%3c%3e'%3d%221234",
            "sk%252F%252B%2526%253C%253E%2527%253D%25221234",
            // HTML.
            "sk/+&amp;&lt;&gt;&#39;=&quot;1234",
            "sk&#x2F;&#x2b;&amp;&lt;&gt;&#x27;&#61;&#34;1234",
            "sk&sol;&#043;&#38;&LT;&gt;&apos;&equals;&QUOT;1234",
        ] {
            let told = masked(&[key], &format!("key {written} is bad"));
            assert!(!told.contains("1234") && told.ends_with("* is bad"), "{told}");
            let told = secrets(&[key]).hidden_in(&format!("é {written} é {written}"));
            assert_eq!(told, "é *** é ***");
        }
        // Basic credentials, and whole lines of headers.
        for (text, rest) in [
            ("c2svKyY8Pic9IjEyMzQ=", ""),
            ("c2svKyY8Pic9IjEyMzQ", ""),
            ("c2svKyY8Pic9IjEyMzQ%3D", "%3D"),
            ("dTpzay8rJjw-Jz0iMTIzNA", "dTp"),
            ("dTpzay8rJjw+Jz0iMTIzNAo=", "dTpz"),
        ] {
            let told = secrets(&[key]).hidden_in(&format!("[{text}]"));
            assert!(told.contains("***") && told.len() < 16, "{text}: {told} {rest}");
        }
        assert_eq!(secrets(&[key]).hidden_in("sk/+&<>'=\"123 sk"), "sk/+&<>'=\"123 sk");
    }

    #[test]
    fn of_what_is_no_stream_all_is_masked() {
        let mut refused = *b"your key EMPTY, \"code\":12345";
        assert!(secrets(&[b"Bearer EMPTY", b"12345"]).mask(&mut refused, false));
        assert_eq!(refused, *b"your key *****, \"code\":*****");
    }

    #[test]
    fn the_longest_goes_first() {
        assert_eq!(
            masked(&[b"sk-abc", b"Bearer sk-abc-def-1"], "x sk-abc-def-1 y"),
            "x ************ y"
        );
        assert_eq!(secrets(&[b"hush", b"hush-hush"]).hidden_in("hush-hush"), "***");
    }

    #[test]
    fn a_key_that_is_a_word_is_hidden_where_it_is_no_part_of_json() {
        let event = r#"{"text":"text","type": "text","created":12345678,"n":"12345678"}"#;
        let hidden = r#"{"text":"text","type": "text","created":12345678,"n":"********"}"#;
        assert_eq!(masked(&[b"text", b"12345678"], event), hidden);
        assert_eq!(secrets(&[b"text"]).hidden_in(event), event.replace(r#""text","#, r#""***","#));
        let of = |key: &[u8], text: &str| secrets(&[key]).hidden_in(text);
        assert_eq!(of(b"text", "no context, text-only: text"), "no context, ***-only: ***");
        assert_eq!(of(b"a", "a key is a key"), "a key is a key");
        assert_eq!(of(b"Bearer a", "a Bearer"), "a Bearer");
        // A long one is a key, also as a word; the name of a field is not.
        let key: &[u8] = b"Bearer abcdefghijklmnop";
        let event = r#"{"abcdefghijklmnop":"abcdefghijklmnop"}"#;
        assert_eq!(masked(&[key], event), r#"{"abcdefghijklmnop":"****************"}"#);
        let escaped = r#"{\"abcdefghijklmnop\" : \"abcdefghijklmnop\"}"#;
        assert_eq!(of(key, escaped), r#"{\"abcdefghijklmnop\" : \"***\"}"#);
        // A secret that is not a word is hidden everywhere.
        assert_eq!(
            masked(&[b"sk-12345"], r#"{"sk-12345":1,"x":"ysk-12345z"}"#),
            r#"{"********":1,"x":"y********z"}"#
        );
    }

    #[test]
    fn a_word_or_number_of_the_wire_is_masked_in_texts_alone() {
        let values: [&[u8]; 4] = [b"choices", b"finish_reason", b"12345", b"Bearer EMPTY"];
        let event = r#"{"choices":[{"finish_reason":null}],"created":12345,"x":"EMPTY"}"#;
        assert_eq!(masked(&values, event), event);
        assert_eq!(secrets(&values).hidden_in("no EMPTY choices"), "no *** ***");
    }
}
