//! Sizes in bytes, such as `512 MB`.

use llm_stream_client::memory::LEAST_MEMORY;

use super::{
    reader::{Entry, Reader},
    yaml::Yaml,
};

/// The largest size, bytes.
const MOST: f64 = 1e12;

/// The size of `max_memory`, in bytes.
pub(super) fn size(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<usize> {
    let written = match &entry.value.value {
        Yaml::Text(text) => text.clone(),
        Yaml::Int(_) | Yaml::Float(_) => reader.written(entry),
        _ => {
            reader.wrong(entry, "a size", entry.example());
            return None;
        }
    };
    match parse_size(&written) {
        Ok(size) => Some(size),
        Err(what) => {
            let help = format!("for example `{}{}`", entry.lead, entry.example());
            reader.error(entry, format!("{} {what}", entry.label), help);
            None
        }
    }
}

/// Parses a size in `MB` or `GB`, powers of ten; an error completes a sentence.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let (number, factor) = match text.strip_suffix("MB") {
        Some(number) => (number, 1e6),
        None => match text.strip_suffix("GB") {
            Some(number) => (number, 1e9),
            None => return Err(format!("requires a size in `MB` or `GB`, not `{text}`")),
        },
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = number.trim();
    let size = number.parse::<f64>().ok().filter(|_| is_number(number)).map(|size| size * factor);
    match size {
        None => Err(format!("requires a size in `MB` or `GB`, not `{text}`")),
        Some(size) if size < LEAST_MEMORY as f64 => Err("must be at least `16 MB`".into()),
        Some(size) if size > MOST => Err("must be at most `1000 GB`".into()),
        Some(size) => Ok(size as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_have_a_unit_and_bounds() {
        assert_eq!(parse_size("512 MB"), Ok(512_000_000));
        assert_eq!(parse_size(" 1.5GB "), Ok(1_500_000_000));
        for wrong in ["", "MB", "512", "512 mb", "-1 GB", "1e3 MB", "inf GB", "15 MB", "2000 GB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
