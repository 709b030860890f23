//! What a request carries and nobody is to see, in case the server sends it back.
//!
//! An answer is masked as bytes, before anything reads it, so that no text that is cut, decoded or
//! written down later can hold a part of a secret. The mask has the length of what it hides: no
//! byte moves to another read, and the stream stays one that can be decoded. A value that the wire
//! itself could hold, a word or a number, cannot be masked there without breaking the stream; it
//! is masked in texts.

use bytes::Bytes;
use http::HeaderValue;

use crate::{
    recording::{Recording, RequestError},
    route::Secret,
};

/// Shorter values would be found in any text, and are no secrets.
const SHORTEST: usize = 4;

/// Secrets, longest first: one may be part of another.
#[derive(Clone, Default)]
pub struct Secrets {
    /// As they can stand in an answer's bytes.
    in_bytes: Vec<Vec<u8>>,
    in_text: Vec<String>,
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
        secrets.in_bytes.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.in_text.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }

    fn add(&mut self, value: &[u8]) {
        if value.len() < SHORTEST {
            return;
        }
        let text = String::from_utf8_lossy(value).into_owned();
        // What a server makes of bytes that it takes for Latin-1.
        let latin1: String = value.iter().copied().map(char::from).collect();
        if !is_of_the_wire(value) {
            self.in_bytes.push(value.to_vec());
            for text in [&text, &latin1] {
                self.in_bytes
                    .extend([text.clone(), in_json(text), in_ascii_json(text)].map(Into::into));
            }
        }
        self.in_text.extend([in_json(&text), text, latin1]);
    }

    /// `text` without them.
    pub fn hidden_in(&self, text: &str) -> String {
        self.in_text.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
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
        recording.content_type = recording.content_type.map(|kind| self.hidden_in(&kind));
        if self.in_bytes.is_empty() {
            return recording;
        }
        let chunks: Vec<_> = recording.chunks.iter().map(|chunk| &chunk.bytes[..]).collect();
        let mut body = chunks.concat();
        if self.mask(&mut body) {
            let mut rest = Bytes::from(body);
            for chunk in &mut recording.chunks {
                chunk.bytes = rest.split_to(chunk.bytes.len());
            }
        }
        recording
    }

    /// Overwrites them in `bytes`; whether there were any.
    fn mask(&self, bytes: &mut [u8]) -> bool {
        let mut found = false;
        for secret in &self.in_bytes {
            let places: Vec<_> = memchr::memmem::find_iter(bytes, secret).collect();
            for at in places {
                bytes[at..at + secret.len()].fill(b'*');
                found = true;
            }
        }
        found
    }
}

/// Whether the bytes of any answer may hold `value`: a word such as a field's name, or a number.
fn is_of_the_wire(value: &[u8]) -> bool {
    let word = value.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    let number = value.iter().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte));
    // Nothing that long and made of letters is a field's name.
    number || (word && value.len() < 24)
}

/// `text` as it stands within a JSON string.
fn in_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The same by an encoder that keeps to ASCII, such as Python's.
fn in_ascii_json(text: &str) -> String {
    let mut units = [0; 2];
    let mut escaped = String::new();
    for character in in_json(text).chars() {
        match character.is_ascii() {
            true => escaped.push(character),
            false => character
                .encode_utf16(&mut units)
                .iter()
                .for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    escaped
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
        secrets(values).mask(&mut bytes);
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
