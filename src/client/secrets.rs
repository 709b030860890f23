//! What a request carries and nobody is to see, in case the server sends it back.
//!
//! An answer is masked as bytes, before anything reads it, so that no text that is cut, decoded or
//! written down later can hold a part of a secret. The mask has the length of what it hides: no
//! byte moves to another read, and the stream stays one that can be decoded. A value that the wire
//! itself could hold, a word or a number, cannot be masked in a stream without breaking it; there
//! it is masked in texts.

mod written;

use bytes::Bytes;
use http::HeaderValue;

use self::written::Written;
use crate::{
    recording::{Recording, RequestError},
    route::Secret,
};

/// Shorter values would be found in any text, and are no secrets.
const SHORTEST: usize = 4;

/// Secrets, longest first: one may be part of another.
#[derive(Clone, Default)]
pub struct Secrets(Vec<Known>);

#[derive(Clone)]
struct Known {
    written: Written,
    /// Whether the bytes of any answer may hold it.
    is_of_the_wire: bool,
}

impl Secrets {
    /// The values of these headers, and what follows `Bearer` in them; and others.
    pub fn of<'a>(headers: impl IntoIterator<Item = &'a HeaderValue>, others: &[Secret]) -> Self {
        let mut secrets = Self::default();
        for value in headers {
            let value = value.as_bytes();
            secrets.add(value.strip_prefix(b"Bearer ").unwrap_or(value));
        }
        others.iter().for_each(|Secret(secret)| secrets.add(secret.as_bytes()));
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
        let texts = [Written::new(&text), Written::new(&latin1)].into_iter();
        self.0.extend(
            texts
                .chain(Written::in_base64(value))
                .map(|written| Known { is_of_the_wire: is_of_the_wire(written.text()), written }),
        );
    }

    /// `text` without them.
    pub fn hidden_in(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, known| {
            let (mut hidden, mut after) = (String::new(), 0);
            for place in known.written.places(text.as_bytes()) {
                hidden += text.get(after..place.start).unwrap_or_default();
                hidden += "***";
                after = place.end;
            }
            hidden + text.get(after..).unwrap_or_default()
        })
    }

    /// `answer` without them.
    pub(super) fn masked(
        &self,
        answer: Result<Recording, RequestError>,
    ) -> Result<Recording, RequestError> {
        match answer {
            Ok(recording) => Ok(self.hide(recording)),
            Err(error) => Err(self.hide_in_error(error)),
        }
    }

    /// `error` without them.
    pub(super) fn hide_in_error(&self, error: RequestError) -> RequestError {
        RequestError { message: self.hidden_in(&error.message), ..error }
    }

    /// `recording` without them, be they spread over several reads.
    pub(super) fn hide(&self, mut recording: Recording) -> Recording {
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
        for known in self.0.iter().filter(|known| !(is_stream && known.is_of_the_wire)) {
            for place in known.written.places(bytes) {
                bytes[place].fill(b'*');
                found = true;
            }
        }
        found
    }
}

/// Whether the bytes of any answer may hold `value`: a word such as a field's name, or a number.
fn is_of_the_wire(value: &str) -> bool {
    let word = value.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let number = value.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    // Nothing that long and made of letters is a field's name.
    number || (word && value.len() < 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[&[u8]]) -> Secrets {
        let values: Vec<_> =
            values.iter().map(|value| HeaderValue::from_bytes(value).unwrap()).collect();
        Secrets::of(&values, &[])
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
    fn a_word_or_number_of_the_wire_is_masked_in_texts_alone() {
        let values: [&[u8]; 4] = [b"choices", b"finish_reason", b"12345", b"Bearer EMPTY"];
        let event = r#"{"choices":[{"finish_reason":null}],"created":12345,"x":"EMPTY"}"#;
        assert_eq!(masked(&values, event), event);
        assert_eq!(secrets(&values).hidden_in("no EMPTY choices"), "no *** ***");
    }
}
