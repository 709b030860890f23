//! Undoes the escapes of JSON, URLs and HTML, so that one search finds a secret in all of them.
//!
//! Encoders differ in what they escape and how: one writes `+`, the next `\u002B`; an error may be
//! JSON within JSON, or quote a URL. Instead of a pattern for each combination, a text is decoded
//! layer by layer until nothing is left to decode. Decoding need not be exact. It has to map all
//! forms of a secret to the same bytes, and each decoded byte to its source.

use std::{iter, ops::Range};

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};

/// Most layers that are decoded, so that no answer makes the search quadratic.
const DEPTH: usize = 6;

/// The characters that HTML has names for, each behind its names.
const ENTITIES: &str = "excl! quot\" num# dollar$ percnt% amp& apos' lpar( rpar) ast* midast* plus+ \
    comma, period. sol/ colon: semi; lt< equals= gt> quest? commat@ lsqb[ lbrack[ bsol\\ rsqb] \
    rbrack] hat^ lowbar_ underbar_ grave` lcub{ lbrace{ vert| verbar| rcub} rbrace} tab\t";

/// A text after some layers of decoding.
#[derive(Clone)]
pub(super) struct Decoded {
    pub(super) text: Vec<u8>,
    /// For each layer, the positions behind its escapes: in the decoded text and in its source.
    shifts: Vec<Vec<(usize, usize)>>,
}

/// `text` as it is, then decoded once, twice and so on, until it does not change.
pub(super) fn layers(text: &[u8]) -> impl Iterator<Item = Decoded> {
    let plain = Decoded { text: text.to_vec(), shifts: Vec::new() };
    iter::successors(Some(plain), Decoded::next).take(DEPTH)
}

impl Decoded {
    /// Where a part of the decoded text stands in the original one.
    pub(super) fn source(&self, range: Range<usize>) -> Range<usize> {
        let before = |at: usize, shifts: &Vec<(usize, usize)>| {
            let passed = &shifts[..shifts.partition_point(|(decoded, _)| *decoded <= at)];
            passed.last().map_or(at, |(decoded, source)| source + at - decoded)
        };
        let original = |at| self.shifts.iter().rev().fold(at, before);
        original(range.start)..original(range.end)
    }

    /// The next layer, if there is anything to decode.
    fn next(&self) -> Option<Self> {
        let (mut text, mut shifts) = (Vec::with_capacity(self.text.len()), Vec::new());
        let mut rest = &self.text[..];
        while let Some((byte, after)) = rest.split_first() {
            match escape(rest) {
                Some((length, decoded)) => {
                    text.extend_from_slice(&decoded);
                    rest = &rest[length..];
                    shifts.push((text.len(), self.text.len() - rest.len()));
                }
                None => {
                    text.push(*byte);
                    rest = after;
                }
            }
        }
        let shifts = [&self.shifts[..], &[shifts]].concat();
        (text != self.text).then_some(Self { text, shifts })
    }
}

/// The escape at the beginning of `text`: its length, and what it stands for.
fn escape(text: &[u8]) -> Option<(usize, Vec<u8>)> {
    match text.first()? {
        b'+' => Some((1, b" ".to_vec())),
        b'%' if matches!(text.get(1), Some(b'u' | b'U')) => {
            let character = char::from_u32(number(text.get(2..6)?, 16)?)?;
            Some((6, character.to_string().into()))
        }
        b'%' => Some((3, vec![u8::try_from(number(text.get(1..3)?, 16)?).ok()?])),
        b'&' => entity(text),
        b'\\' => backslash(text),
        _ => None,
    }
}

/// `&#43;`, `&#x2b;` or `&plus;`.
fn entity(text: &[u8]) -> Option<(usize, Vec<u8>)> {
    let end = text.iter().take(12).position(|byte| *byte == b';')?;
    let character = match &text[1..end] {
        [b'#', b'x' | b'X', digits @ ..] => char::from_u32(number(digits, 16)?)?,
        [b'#', digits @ ..] => char::from_u32(number(digits, 10)?)?,
        name => {
            let mut entities = ENTITIES.split(' ').map(|entity| entity.split_at(entity.len() - 1));
            let is_it = |(known, _): &(&str, &str)| known.as_bytes().eq_ignore_ascii_case(name);
            entities.find(is_it)?.1.chars().next()?
        }
    };
    Some((end + 1, character.to_string().into()))
}

/// `\u002b`, `\u{2b}`, `\x2b`, or a character that follows backslashes: JSON within JSON has many.
fn backslash(text: &[u8]) -> Option<(usize, Vec<u8>)> {
    let slashes = text.iter().take_while(|byte| **byte == b'\\').count();
    if let Some(in_braces) = text[slashes..].strip_prefix(b"u{") {
        let end = in_braces.iter().take(8).position(|byte| *byte == b'}')?;
        let character = char::from_u32(number(&in_braces[..end], 16)?)?;
        return Some((slashes + end + 3, character.to_string().into()));
    }
    if let Some(b'x' | b'X') = text.get(slashes) {
        let digits = text.get(slashes + 1..slashes + 3).and_then(|digits| number(digits, 16));
        if let Some(byte) = digits.and_then(|number| u8::try_from(number).ok()) {
            return Some((slashes + 3, vec![byte]));
        }
    }
    let escaped = text.get(slashes + 1..slashes + 5).and_then(|digits| number(digits, 16));
    match (*text.get(slashes)?, escaped.and_then(char::from_u32)) {
        (b'u', Some(character)) => Some((slashes + 5, character.to_string().into())),
        (b't', _) => Some((slashes + 1, b"\t".to_vec())),
        (byte, _) => Some((slashes + 1, vec![byte])),
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let is_digit = |byte: &u8| char::from(*byte).is_digit(radix);
    let text = str::from_utf8(digits).ok().filter(|_| digits.iter().all(is_digit))?;
    u32::from_str_radix(text, radix).ok()
}

/// `secret` in Base64 behind zero to two other bytes, in both alphabets, without the characters that
/// other bytes determine as well.
pub(super) fn base64_forms(secret: &[u8]) -> impl Iterator<Item = String> {
    let aligned = |(before, skipped): (usize, usize)| {
        let bytes = [&vec![0; before], secret].concat();
        let mut text = BASE64_STANDARD_NO_PAD.encode(&bytes);
        text.truncate(bytes.len() * 8 / 6);
        text.split_off(skipped)
    };
    let standard = [(0, 0), (1, 2), (2, 3)].map(aligned).into_iter();
    standard.flat_map(|text| [text.replace('+', "-").replace('/', "_"), text])
}

/// `secret` in Base32 behind zero to four other bytes, without the characters that other bytes
/// determine as well.
pub(super) fn base32_forms(secret: &[u8]) -> impl Iterator<Item = String> {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    (0..5).map(move |before| {
        let bytes = [&vec![0; before], secret].concat();
        let bit = |at: usize| usize::from(bytes[at / 8] >> (7 - at % 8) & 1);
        let character = |nth: usize| {
            let value = (nth * 5..nth * 5 + 5).fold(0, |value, at| value << 1 | bit(at));
            char::from(ALPHABET[value])
        };
        ((before * 8).div_ceil(5)..bytes.len() * 8 / 5).map(character).collect()
    })
}

/// `secret` in hexadecimal digits.
pub(super) fn hex_form(secret: &[u8]) -> String {
    secret.iter().map(|byte| format!("{byte:02x}")).collect()
}
