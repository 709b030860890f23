//! A secret in all the forms that encoders give it.
//!
//! What they escape differs, and so does how: an encoder of JSON writes `+` as it is, the next one
//! as `\u002B`; an error may be JSON within JSON, or quote a URL. So each character is looked for in
//! each of its forms, and those may be mixed. Letters and digits are never escaped.

use std::ops::Range;

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};

/// The names of characters in HTML.
const ENTITIES: &[(char, &[&str])] = &[
    ('\t', &["Tab"]),
    ('!', &["excl"]),
    ('"', &["quot", "QUOT"]),
    ('#', &["num"]),
    ('$', &["dollar"]),
    ('%', &["percnt"]),
    ('&', &["amp", "AMP"]),
    ('\'', &["apos"]),
    ('(', &["lpar"]),
    (')', &["rpar"]),
    ('*', &["ast", "midast"]),
    ('+', &["plus"]),
    (',', &["comma"]),
    ('.', &["period"]),
    ('/', &["sol"]),
    (':', &["colon"]),
    (';', &["semi"]),
    ('<', &["lt", "LT"]),
    ('=', &["equals"]),
    ('>', &["gt", "GT"]),
    ('?', &["quest"]),
    ('@', &["commat"]),
    ('[', &["lsqb", "lbrack"]),
    ('\\', &["bsol"]),
    (']', &["rsqb", "rbrack"]),
    ('^', &["Hat"]),
    ('_', &["lowbar", "UnderBar"]),
    ('`', &["grave"]),
    ('{', &["lcub", "lbrace"]),
    ('|', &["vert", "verbar"]),
    ('}', &["rcub", "rbrace"]),
];

/// What is looked for.
#[derive(Clone, PartialEq)]
pub(super) struct EncodedSecret {
    text: String,
    /// What it begins with and nobody escapes.
    literal: usize,
    /// Whether it is the part of a Base64 text that the secret alone makes.
    is_base64: bool,
}

impl EncodedSecret {
    pub(super) fn new(text: &str) -> Self {
        let escaped = text.find(|c: char| !c.is_ascii_alphanumeric());
        Self { text: text.to_owned(), literal: escaped.unwrap_or(text.len()), is_base64: false }
    }

    /// `secret` in Base64, where it stands alone or after other bytes, in both alphabets.
    pub(super) fn in_base64(secret: &[u8]) -> impl Iterator<Item = Self> {
        /// Less would be found in any text.
        const SHORTEST: usize = 5;
        // Three bytes are four characters. What other bytes are in is left out.
        let texts = [0, 2, 3].into_iter().zip(0..).map(|(others, before)| {
            let bytes = [&vec![0; before], secret].concat();
            let mut text = BASE64_STANDARD_NO_PAD.encode(&bytes);
            text.truncate(bytes.len() * 8 / 6);
            text.split_off(others)
        });
        let texts: Vec<_> = texts.filter(|text| text.len() >= SHORTEST).collect();
        texts.into_iter().flat_map(|text| {
            let for_urls = text.replace('+', "-").replace('/', "_");
            let other = (for_urls != text).then_some(for_urls);
            [Some(text), other]
                .into_iter()
                .flatten()
                .map(|text| Self { is_base64: true, ..Self::new(&text) })
        })
    }

    /// Its length as it is.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// What it is as it is.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where it is in `bytes`.
    pub(super) fn places(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut places: Vec<Range<usize>> = Vec::new();
        let mut look = |at: usize| {
            let is_free = places.last().is_none_or(|last| last.end <= at);
            if let Some(length) = is_free.then(|| self.length_at(&bytes[at..])).flatten() {
                places.push(at..at + length);
            }
        };
        match &self.text.as_bytes()[..self.literal] {
            [] => (0..bytes.len()).for_each(look),
            literal => memchr::memmem::find_iter(bytes, literal).for_each(&mut look),
        }
        places
    }

    /// How long it is at the beginning of `bytes`, which its literal part begins, if it is there.
    fn length_at(&self, bytes: &[u8]) -> Option<usize> {
        let mut at = self.literal;
        at += length_of(&self.text[self.literal..], &bytes[at..])?;
        if self.is_base64 {
            // Its last bits, and what makes the text whole.
            let is_last = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
            at += usize::from(bytes.get(at).is_some_and(is_last));
            at += bytes[at..].iter().take_while(|byte| **byte == b'=').count();
        }
        Some(at)
    }
}

/// How long `text` is at the beginning of `bytes`, in whatever forms its characters are there.
fn length_of(text: &str, bytes: &[u8]) -> Option<usize> {
    let literal = text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (literal, rest) = text.split_at(literal);
    let bytes = bytes.strip_prefix(literal.as_bytes())?;
    let Some(character) = rest.chars().next() else { return Some(literal.len()) };
    let rest = &rest[character.len_utf8()..];
    let mut utf8 = [0; 4];
    let utf8 = character.encode_utf8(&mut utf8).as_bytes();
    let as_it_is = match character {
        '\\' => backslash(bytes),
        _ => [slashed(utf8, bytes), None, None],
    };
    // `%` and `&` begin what they are encoded as, so one form may be another's beginning.
    let encoded = [in_url(utf8, bytes), in_html(character, bytes), escaped(character, bytes)];
    let all = encoded.into_iter().chain(as_it_is).flatten();
    all.into_iter()
        .find_map(|length| Some(literal.len() + length + length_of(rest, &bytes[length..])?))
}

/// As it is, or after backslashes: `\/`, `\\\"`.
fn slashed(utf8: &[u8], bytes: &[u8]) -> Option<usize> {
    let slashes = slashes(bytes);
    let rest = &bytes[slashes..];
    let is_tab = utf8 == b"\t" && slashes > 0 && rest.starts_with(b"t");
    let length = if is_tab { Some(1) } else { rest.starts_with(utf8).then_some(utf8.len()) };
    length.map(|length| slashes + length)
}

/// A backslash, which stands once, twice or four times.
fn backslash(bytes: &[u8]) -> [Option<usize>; 3] {
    let slashes = slashes(bytes);
    [2, 1, 4].map(|many| (slashes >= many).then_some(many))
}

fn slashes(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| **byte == b'\\').count()
}

/// As `\u002b`, two of them beyond the first plane.
fn escaped(character: char, bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for unit in character.encode_utf16(&mut [0; 2]) {
        let slashes = slashes(&bytes[at..]);
        let digits = bytes[at + slashes..].strip_prefix(b"u")?.get(..4)?;
        if slashes == 0 || number(digits, 16)? != u32::from(*unit) {
            return None;
        }
        at += slashes + 5;
    }
    Some(at)
}

/// As `%2B`, or `%252B` where that was encoded again; a blank as `+` as well.
fn in_url(utf8: &[u8], bytes: &[u8]) -> Option<usize> {
    if utf8 == b" " && bytes.starts_with(b"+") {
        return Some(1);
    }
    let mut at = 0;
    for byte in utf8 {
        let mut rest = bytes[at..].strip_prefix(b"%")?;
        at += 1;
        // A percent sign itself is `%25`.
        while let Some(inner) = rest.strip_prefix(b"25")
            && inner.get(..2).is_some_and(|digits| number(digits, 16) == Some((*byte).into()))
        {
            (rest, at) = (inner, at + 2);
        }
        if number(rest.get(..2)?, 16)? != u32::from(*byte) {
            return None;
        }
        at += 2;
    }
    Some(at)
}

/// As `&#43;`, `&#x2b;` or `&plus;`, or `&amp;plus;` where that was encoded again.
fn in_html(character: char, bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes.strip_prefix(b"&")?;
    while let Some(inner) = rest.strip_prefix(b"amp;")
        && entity(character, inner).is_some()
    {
        rest = inner;
    }
    Some(bytes.len() - rest.len() + entity(character, rest)?)
}

/// The same without its ampersand.
fn entity(character: char, bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().take(12).position(|byte| *byte == b';')?;
    let is_it = match &bytes[..end] {
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16) == Some(character.into()),
        [b'#', digits @ ..] => number(digits, 10) == Some(character.into()),
        name => ENTITIES.iter().any(|(of, names)| {
            *of == character && names.iter().any(|known| known.as_bytes() == name)
        }),
    };
    is_it.then_some(end + 1)
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let is_digit = |byte: &u8| char::from(*byte).is_digit(radix);
    let text = str::from_utf8(digits).ok().filter(|_| digits.iter().all(is_digit))?;
    u32::from_str_radix(text, radix).ok()
}
