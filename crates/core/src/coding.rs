//! The compression of bodies, by their header or their first bytes. The requests allow none.

/// How many first bytes of a body are enough to tell what it is.
pub(crate) const SAMPLE: usize = 512;

/// The name of the compression of a `body`, whose `content-encoding` is this. `None` when the body
/// is text, whatever its header says, or does not show what it is.
pub(crate) fn name(content_encoding: Option<&str>, body: &[u8]) -> Option<String> {
    if odd_share(body) == 0.0 {
        return None;
    }
    let header = content_encoding.into_iter().flat_map(|value| value.split(','));
    // The last one was applied last, and is the first to be undone.
    let mut header = header.map(str::trim);
    let named = header.rfind(|coding| is_compression(coding));
    named.map(full_name).or_else(|| magic(body).map(Into::into))
}

/// Whether `body` begins like text: a few wrong bytes are those of another character set.
pub(crate) fn is_text(body: &[u8]) -> bool {
    odd_share(body) < 0.2
}

/// The share of the first characters that text does not have.
fn odd_share(body: &[u8]) -> f64 {
    let text = String::from_utf8_lossy(&body[..body.len().min(SAMPLE)]);
    // A character may be cut at the end.
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

/// The format that a body of these first bytes has. Brotli and raw deflate leave no mark.
fn magic(body: &[u8]) -> Option<&'static str> {
    match body {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x1f, 0x9d, ..] => Some("compress"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        // RFC 1950: deflate with a window of 32 KiB at most, and a check of both bytes.
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
            // Text is text, whatever the header says.
            (Some("gzip"), b"data: {}\n\n", None),
            (Some("gzip"), "{\"error\":\"\u{e9}".as_bytes(), None),
            (None, b"", None),
            (Some("gzip"), b"", None),
            (None, b"caf\xe9 au lait", None),
            // As zlib begins.
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
