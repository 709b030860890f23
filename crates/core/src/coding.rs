//! Detects compressed bodies by their header or their first bytes. Requests do not allow
//! compression, because it hides when tokens arrived; some proxies compress anyway.

/// The number of bytes that suffices for the detection.
pub(crate) const SAMPLE: usize = 512;

/// Returns the name of a body's compression; `None` if the body is text, whatever the header says,
/// or of an unknown format.
pub(crate) fn name(content_encoding: Option<&str>, body: &[u8]) -> Option<String> {
    if odd_share(body) == 0.0 {
        return None;
    }
    let header = content_encoding.into_iter().flat_map(|value| value.split(','));
    // The last coding was applied last.
    let mut header = header.map(str::trim);
    let named = header.rfind(|coding| is_compression(coding));
    named.map(full_name).or_else(|| magic(body).map(Into::into))
}

/// Returns whether `body` begins like text. A few invalid bytes are accepted: they belong to
/// another character set.
pub(crate) fn is_text(body: &[u8]) -> bool {
    odd_share(body) < 0.2
}

/// Returns the share of the first characters that do not occur in text.
fn odd_share(body: &[u8]) -> f64 {
    let text = String::from_utf8_lossy(&body[..body.len().min(SAMPLE)]);
    // The sample may end within a character.
    let is_cut = body.len() > SAMPLE;
    let text = if is_cut { text.trim_end_matches('\u{fffd}') } else { &text };
    let is_odd = |c: &char| *c == '\u{fffd}' || (c.is_control() && !c.is_whitespace());
    text.chars().filter(is_odd).count() as f64 / text.chars().count().max(1) as f64
}

fn is_compression(coding: &str) -> bool {
    !coding.is_empty() && !coding.eq_ignore_ascii_case("identity")
}

fn full_name(coding: &str) -> String {
    match coding.to_ascii_lowercase().as_str() {
        "br" => "Brotli".into(),
        "x-gzip" => "gzip".into(),
        "x-compress" => "compress".into(),
        coding => coding.into(),
    }
}

/// Returns the format of a body by its first bytes. Brotli and raw deflate have no signature.
fn magic(body: &[u8]) -> Option<&'static str> {
    match body {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x1f, 0x9d, ..] => Some("compress"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        // RFC 1950: deflate with a window of at most 32 KiB, and a checksum over both bytes.
        [first, second, ..]
            if first & 0x8f == 8 && u16::from_be_bytes([*first, *second]).is_multiple_of(31) =>
        {
            Some("deflate")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_is_named_by_its_header_or_its_first_bytes() {
        let binary = b"\x0b\x02\x80hello\x03";
        for (header, body, named) in [
            (Some("br"), &binary[..], Some("Brotli")),
            (Some("BR"), binary, Some("Brotli")),
            (Some("identity, zstd"), binary, Some("zstd")),
            (Some("gzip, br"), binary, Some("Brotli")),
            (Some("x-gzip"), binary, Some("gzip")),
            (Some("lz4"), binary, Some("lz4")),
            (Some("identity"), binary, None),
            (None, binary, None),
            (None, b"\x1f\x8b\x08\0", Some("gzip")),
            (Some(""), b"\x28\xb5\x2f\xfd\x04", Some("zstd")),
            (None, b"\x78\x9c\xab\xae\x05\0", Some("deflate")),
            (None, b"\x78\x01\xab\xae\x05\0", Some("deflate")),
            (None, b"\x78\xda\xab\xae\x05\0", Some("deflate")),
            // The body is text, whatever the header says.
            (Some("gzip"), b"data: {}\n\n", None),
            (Some("gzip"), "{\"error\":\"\u{e9}".as_bytes(), None),
            (None, b"", None),
            (Some("gzip"), b"", None),
            (None, b"caf\xe9 au lait", None),
            // Text that begins like zlib.
            (None, b"x files", None),
        ] {
            assert_eq!(name(header, body).as_deref(), named, "{header:?} {body:?}");
        }
    }

    #[test]
    fn text_of_another_character_set_or_with_colors_is_text() {
        let long = "é".repeat(SAMPLE);
        for text in [&b"caf\xe9 au lait"[..], b"\x1b[31mout of memory\x1b[0m", b"", long.as_bytes()]
        {
            assert!(is_text(text), "{text:?}");
        }
        assert!(!is_text(b"\x0b\x02\x80hello\x03"));
    }
}
