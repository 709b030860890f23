//! Masks the secrets of a request wherever a server or a proxy sends them back.
//!
//! An error message often quotes the request and its key, and results and recordings are shared. So
//! every text that is shown or stored passes through a [`Redactor`]. Nothing is masked while an
//! answer is received: the receive loop does no work that is not timing.
//!
//! A mask in a recording has the length of the secret. No byte moves to another read, and the JSON
//! of the stream can still be decoded. Some keys are words, such as `EMPTY` or `text`: these are
//! masked only where they stand alone, and never as the name of a JSON field.

mod encodings;

use std::ops::Range;

use bytes::Bytes;
use llm_stream_core::{
    recording::{Recording, RequestError},
    sample::Sample,
};

use self::encodings::{base32_forms, base64_forms, hex_form, layers};

/// Shorter values occur in any text and are not masked, bytes.
const SHORTEST: usize = 4;

/// Shorter values are placeholders: they are masked in messages, not in streams.
const SHORTEST_KEY: usize = 8;

/// Masks secrets in texts and recordings.
#[derive(Clone, Default)]
pub struct Redactor(Vec<EncodedSecret>);

/// One form of a secret to search for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct EncodedSecret {
    text: Vec<u8>,
    /// Whether it is the secret in Base64, Base32 or hexadecimal digits, which no other text equals.
    is_derived: bool,
}

impl EncodedSecret {
    /// Creates a form to search for. The case of a key's letters does not matter: proxies and logs
    /// change it. A word in another case is another word.
    fn new(text: Vec<u8>, is_derived: bool) -> Self {
        let mut secret = Self { text, is_derived };
        if !secret.is_word() {
            secret.text.make_ascii_lowercase();
        }
        secret
    }

    fn is_short(&self) -> bool {
        self.text.len() < SHORTEST_KEY
    }

    fn is_number(&self) -> bool {
        self.text.iter().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte))
    }

    /// Whether a text that quotes no key may have it. No field name is as long as a key and made of
    /// letters only.
    fn is_word(&self) -> bool {
        let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
        let is_name = self.text.len() < 24 && self.text.iter().all(is_letter);
        !self.is_derived && (self.is_short() || self.is_number() || is_name)
    }

    /// Whether an occurrence is masked. A stream has words and numbers of its protocol, and could
    /// not be decoded without them.
    fn is_masked(&self, text: &[u8], range: &Range<usize>, is_stream: bool) -> bool {
        let is_key = !self.is_word() || stands_alone(text, range) && !is_field_name(text, range);
        let is_protocol =
            !self.is_derived && (self.is_short() || self.is_number() && is_bare_value(text, range));
        is_key && !(is_stream && is_protocol)
    }
}

impl Redactor {
    /// The length of the shortest value that is masked, bytes.
    pub const SHORTEST: usize = SHORTEST;

    /// Masks these values, and what follows a scheme in them, such as `Bearer`.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut forms = Vec::new();
        for value in values {
            forms.extend(forms_of(value));
            let space = value.iter().position(|byte| *byte == b' ');
            let scheme = space.filter(|at| value[..*at].iter().all(u8::is_ascii_alphabetic));
            forms.extend(scheme.into_iter().flat_map(|at| forms_of(&value[at + 1..])));
        }
        forms.sort_unstable();
        forms.dedup();
        Self(forms)
    }

    /// Returns `text` with `***` for each secret.
    pub fn redact(&self, text: &str) -> String {
        // NUL marks the masked bytes. No message contains it otherwise.
        let mut bytes = text.as_bytes().to_vec();
        if !self.mask(&mut bytes, 0, false) {
            return text.to_owned();
        }
        let runs = bytes.chunk_by(|one, other| (*one == 0) == (*other == 0));
        let shown = |run: &[u8]| match run[0] {
            0 => "***".to_owned(),
            _ => String::from_utf8_lossy(run).into_owned(),
        };
        runs.map(shown).collect()
    }

    /// Redacts the texts of a sample, or an error.
    ///
    /// A message is cut to a length, which may cut a secret in two. So `reread` reads the redacted
    /// answer again, and its error replaces the first one.
    pub fn redact_outcome(
        &self,
        outcome: Result<Sample, RequestError>,
        reread: impl FnOnce(&Self) -> Option<RequestError>,
    ) -> Result<Sample, RequestError> {
        match outcome {
            _ if self.0.is_empty() => outcome,
            Err(error) => Err(self.redact_error(reread(self).unwrap_or(error))),
            Ok(mut sample) => {
                let id = sample.request_id.iter_mut().chain([&mut sample.finish_reason]);
                let unread = sample.unread.iter_mut().map(|field| &mut field.name);
                let doubts = sample.doubts.iter_mut().map(|doubt| &mut doubt.reason);
                id.chain(unread).chain(doubts).for_each(|text| *text = self.redact(text));
                Ok(sample)
            }
        }
    }

    /// Redacts the message of `error`.
    pub fn redact_error(&self, error: RequestError) -> RequestError {
        RequestError { message: self.redact(&error.message), ..error }
    }

    /// Redacts `recording`. A secret may lie across several chunks.
    pub fn redact_recording(&self, mut recording: Recording) -> Recording {
        if self.0.is_empty() {
            return recording;
        }
        recording.broken = recording.broken.map(|error| self.redact_error(error));
        let Recording { content_type, content_encoding, retry_after, server, .. } = &mut recording;
        for text in [content_type, content_encoding, retry_after, server].into_iter().flatten() {
            *text = self.redact(text);
        }
        let is_stream = (200..300).contains(&recording.status);
        let mut body = recording.body();
        if self.mask(&mut body, b'*', is_stream) {
            let mut rest = Bytes::from(body);
            for chunk in &mut recording.chunks {
                chunk.bytes = rest.split_to(chunk.bytes.len());
            }
        }
        recording
    }

    /// Overwrites the secrets in `bytes`, however they are encoded; returns whether there are any.
    fn mask(&self, bytes: &mut [u8], with: u8, is_stream: bool) -> bool {
        // All ranges before the first mask: a masked layer would decode differently.
        let mut found = Vec::new();
        for layer in layers(bytes) {
            let lower = layer.text.to_ascii_lowercase();
            for secret in &self.0 {
                let text = if secret.is_word() { &layer.text } else { &lower };
                let starts = memchr::memmem::find_iter(text, &secret.text);
                let ranges = starts.map(|at| layer.source(at..at + secret.text.len()));
                found.extend(ranges.filter(|range| secret.is_masked(bytes, range, is_stream)));
            }
        }
        found.iter().for_each(|range| bytes[range.clone()].fill(with));
        !found.is_empty()
    }
}

/// The forms of one secret, none where it is too short to be one.
fn forms_of(value: &[u8]) -> Vec<EncodedSecret> {
    if value.len() < SHORTEST {
        return Vec::new();
    }
    let utf8 = String::from_utf8_lossy(value).into_owned();
    // A server may read the bytes of a header as Latin-1.
    let latin1 = value.iter().copied().map(char::from).collect();
    let derived = base64_forms(value).chain(base32_forms(value)).chain([hex_form(value)]);
    let derived = derived.filter(|_| value.len() >= SHORTEST_KEY).map(|text| (text, true));
    let texts = [utf8, latin1].map(|text| (text, false)).into_iter().chain(derived);
    // A secret may contain an escape sequence, which is decoded in the text that quotes it.
    let decoded = texts.flat_map(|(text, is_derived)| {
        let layers = layers(text.as_bytes()).map(|layer| layer.text);
        layers.map(|text| (text, is_derived)).collect::<Vec<_>>()
    });
    let long = decoded.filter(|(text, _)| text.len() >= SHORTEST);
    long.map(|(text, is_derived)| EncodedSecret::new(text, is_derived)).collect()
}

/// Whether the text in `range` is not part of a longer word.
fn stands_alone(text: &[u8], range: &Range<usize>) -> bool {
    let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let before = text[..range.start].last();
    !before.is_some_and(is_of_word) && !text.get(range.end).is_some_and(is_of_word)
}

/// Whether the text in `range` is the name of a JSON field: in quotes that a colon follows. JSON
/// within JSON has backslashes before its quotes.
fn is_field_name(text: &[u8], range: &Range<usize>) -> bool {
    let after = text[range.end..].trim_ascii_start();
    let slashes = after.iter().take_while(|byte| **byte == b'\\').count();
    let colon = after[slashes..].strip_prefix(b"\"").map(<[u8]>::trim_ascii_start);
    text[..range.start].ends_with(b"\"") && colon.is_some_and(|rest| rest.starts_with(b":"))
}

/// Whether the text in `range` is a JSON value without quotes.
fn is_bare_value(text: &[u8], range: &Range<usize>) -> bool {
    let before = text[..range.start].trim_ascii_end().last();
    before.is_some_and(|byte| b":,[".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(values: &[&[u8]]) -> Redactor {
        Redactor::new(values.iter().copied())
    }

    fn masked(values: &[&[u8]], text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        redactor(values).mask(&mut bytes, b'*', true);
        assert_eq!(bytes.len(), text.len(), "no byte moves");
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_secret_is_masked_however_it_is_written() {
        let key = "Bearer sk-é\"\\-1234".as_bytes();
        for written in
            [r#"sk-é"\-1234"#, r#"sk-é\"\\-1234"#, r#"sk-\u00e9\"\\-1234"#, r#"sk-Ã©"\-1234"#]
        {
            let redacted = masked(&[key], &format!("key {written} is bad"));
            assert!(!redacted.contains("1234") && redacted.ends_with("* is bad"), "{redacted}");
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
            let redacted = masked(&[key], &format!("key {written} is bad"));
            assert!(!redacted.contains("1234") && redacted.ends_with("* is bad"), "{redacted}");
            let redacted = redactor(&[key]).redact(&format!("é {written} é {written}"));
            assert_eq!(redacted, "é *** é ***");
        }
        // Basic credentials, and whole lines of headers.
        for (text, rest) in [
            ("c2svKyY8Pic9IjEyMzQ=", ""),
            ("c2svKyY8Pic9IjEyMzQ", ""),
            ("c2svKyY8Pic9IjEyMzQ%3D", "%3D"),
            ("dTpzay8rJjw-Jz0iMTIzNA", "dTp"),
            ("dTpzay8rJjw+Jz0iMTIzNAo=", "dTpz"),
        ] {
            let redacted = redactor(&[key]).redact(&format!("[{text}]"));
            assert!(redacted.contains("***") && redacted.len() < 16, "{text}: {redacted} {rest}");
        }
        assert_eq!(redactor(&[key]).redact("sk/+&<>'=\"123 sk"), "sk/+&<>'=\"123 sk");
    }

    #[test]
    fn a_key_is_masked_in_other_cases_digits_and_full_escapes() {
        let key = b"Bearer sk-Abc+1234/xyz";
        let secret = "sk-Abc+1234/xyz";
        let each = |escape: &dyn Fn(u32) -> String| {
            secret.chars().map(|c| escape(u32::from(c))).collect::<String>()
        };
        let hex = each(&|c| format!("{c:02x}"));
        let written = [
            secret.to_uppercase(),
            secret.to_lowercase(),
            hex.to_uppercase(),
            hex,
            each(&|c| format!("%{c:02x}")),
            each(&|c| format!("%25{c:02X}")),
            each(&|c| format!("%u{c:04x}")),
            each(&|c| format!("&#{c};")),
            each(&|c| format!("&#x{c:x};")),
            each(&|c| format!("&#0{c};")),
            each(&|c| format!("\\u{c:04x}")),
            each(&|c| format!("\\\\u{c:04X}")),
            each(&|c| format!("\\u{{{c:x}}}")),
            each(&|c| format!("\\x{c:02x}")),
        ];
        for written in written {
            assert_eq!(redactor(&[key]).redact(&format!("é [{written}]")), "é [***]");
        }
        // Base32 of RFC 4648: alone, in small letters, and behind one to four other bytes.
        for text in [
            "ONVS2QLCMMVTCMRTGQXXQ6L2",
            "onvs2qlcmmvtcmrtgqxxq6l2",
            "KVZWWLKBMJRSWMJSGM2C66DZPI======",
            "KVKXG2ZNIFRGGKZRGIZTIL3YPF5A====",
            "KVKVK43LFVAWEYZLGEZDGNBPPB4XU===",
            "KVKVKVLTNMWUCYTDFMYTEMZUF54HS6Q=",
        ] {
            let redacted = redactor(&[key]).redact(text);
            assert!(redacted.contains("***") && redacted.len() <= 18, "{text}: {redacted}");
        }
        // Another word, and digits of another text.
        assert_eq!(redactor(&[b"EMPTY"]).redact("Empty empty EMPTY"), "Empty empty ***");
    }

    #[test]
    fn of_what_is_no_stream_all_is_masked() {
        let mut refused = *b"your key EMPTY, \"code\":12345";
        assert!(redactor(&[b"Bearer EMPTY", b"12345"]).mask(&mut refused, b'*', false));
        assert_eq!(refused, *b"your key *****, \"code\":*****");
    }

    #[test]
    fn the_longest_goes_first() {
        assert_eq!(
            masked(&[b"sk-abc", b"Bearer sk-abc-def-1"], "x sk-abc-def-1 y"),
            "x ************ y"
        );
        assert_eq!(redactor(&[b"hush", b"hush-hush"]).redact("hush-hush"), "***");
    }

    #[test]
    fn a_key_that_is_a_word_is_hidden_where_it_is_no_part_of_json() {
        let event = r#"{"text":"text","type": "text","created":12345678,"n":"12345678"}"#;
        let hidden = r#"{"text":"text","type": "text","created":12345678,"n":"********"}"#;
        assert_eq!(masked(&[b"text", b"12345678"], event), hidden);
        assert_eq!(redactor(&[b"text"]).redact(event), event.replace(r#""text","#, r#""***","#));
        let of = |key: &[u8], text: &str| redactor(&[key]).redact(text);
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
        assert_eq!(redactor(&values).redact("no EMPTY choices"), "no *** ***");
    }
}
