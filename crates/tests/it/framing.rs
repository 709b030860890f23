//! Any way to cut a stream into pieces gives the same frames, and they are the right ones.

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use llm_stream_core::framing::{Frame, FramingError, SseDecoder};
use proptest::{collection::vec, option, prelude::*, sample::Index};
use sse_stream::SseByteStream;

use crate::protocol::fixtures;

/// A frame that outlives the push.
#[derive(Debug, Clone, PartialEq)]
enum Owned {
    Event { name: String, data: Vec<u8>, terminated: bool },
    Comment(Vec<u8>),
    Stray(Vec<u8>),
}

impl From<Frame<'_>> for Owned {
    fn from(frame: Frame<'_>) -> Self {
        match frame {
            Frame::Event { name, data, terminated } => {
                Self::Event { name: name.into(), data: data.into(), terminated }
            }
            Frame::Comment(text) => Self::Comment(text.into()),
            Frame::Stray(lines) => Self::Stray(lines.into()),
        }
    }
}

impl PartialEq<Frame<'_>> for Owned {
    fn eq(&self, other: &Frame<'_>) -> bool {
        match (self, other) {
            (
                Self::Event { name, data, terminated },
                Frame::Event { name: n, data: d, terminated: t },
            ) => name == n && data == d && terminated == t,
            (Self::Comment(text), Frame::Comment(other))
            | (Self::Stray(text), Frame::Stray(other)) => text == other,
            _ => false,
        }
    }
}

/// Hands the frames of `pieces` to `sink`, to the end or to the error.
fn decode<'a>(
    limit: usize,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    sink: &mut dyn FnMut(Frame<'_>),
) -> Result<(), FramingError> {
    let mut decoder = SseDecoder::new(limit);
    pieces.into_iter().try_for_each(|piece| decoder.push(piece, sink))?;
    decoder.finish(sink);
    Ok(())
}

/// All frames of `pieces`, and how it ended.
fn frames<'a>(
    limit: usize,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Owned>, Result<(), FramingError>) {
    let mut frames = Vec::new();
    let end = decode(limit, pieces, &mut |frame| frames.push(frame.into()));
    (frames, end)
}

fn pieces<'a>(stream: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    places.sort_unstable();
    let starts = [0].into_iter().chain(places.iter().copied());
    let ends = places.iter().copied().chain([stream.len()]);
    starts.zip(ends).map(|(start, end)| &stream[start..end]).collect()
}

prop_compose! {
    /// A stream of lines of every sort, with every line end, whole or cut off.
    fn any_stream(value: &'static str)(
        bom in option::weighted(0.3, Just("\u{feff}")),
        lines in vec((any_line(value), any_line_end()), 0..24),
        tail in option::of(any_line(value)),
    ) -> String {
        let lines: String = lines.into_iter().map(|(line, end)| line + end).collect();
        format!("{}{lines}{}", bom.unwrap_or_default(), tail.unwrap_or_default())
    }
}

fn any_line(value: &'static str) -> impl Strategy<Value = String> {
    let field = prop_oneof![
        4 => Just("data"),
        2 => Just("event"),
        1 => Just("id"),
        1 => Just("retry"),
        2 => Just(""),
        1 => Just("dat"),
        1 => Just("\u{feff}data"),
    ];
    prop_oneof![
        4 => Just(String::new()),
        8 => (field.clone(), proptest::sample::select(&[":", ": ", ":  "][..]), value)
            .prop_map(|(field, colon, value)| format!("{field}{colon}{value}")),
        1 => field.prop_map(Into::into),
        1 => value.prop_filter("a field of its own", |line| !line.starts_with([' ', '\0'])),
    ]
}

fn any_line_end() -> impl Strategy<Value = &'static str> {
    prop_oneof![3 => Just("\n"), 2 => Just("\r\n"), 2 => Just("\r")]
}

/// Values with everything but line ends: colons, spaces, NUL, characters of one to four bytes.
const TEXT: &str = "([ -~]|[: \u{0}éß世🦀\u{feff}]){0,12}";

proptest! {
    #[test]
    fn any_split_gives_the_same_frames(stream in any_stream(TEXT), cuts in vec(any::<Index>(), 0..8)) {
        let whole = frames(SseDecoder::LINE_LIMIT, [stream.as_bytes()]);
        let split = frames(SseDecoder::LINE_LIMIT, pieces(stream.as_bytes(), &cuts));
        prop_assert_eq!(split, whole);
    }

    #[test]
    fn any_split_of_any_bytes_gives_the_same_frames_and_the_same_error(
        stream in vec(proptest::sample::select(&b"data: event\r\n\r\n\r\n\xEF\xBB\xBF\xFF"[..]), 0..80),
        cuts in vec(any::<Index>(), 0..8),
        limit in 0..30_usize,
    ) {
        let whole = frames(limit, [&stream[..]]);
        prop_assert_eq!(frames(limit, pieces(&stream, &cuts)), whole.clone());
        prop_assert_eq!(frames(limit, stream.chunks(1)), whole);
    }

    /// sse-stream leaves out comments and the unterminated tail, and it hands over events that have
    /// no data line, as raw blocks: these are left out of the comparison. It stops at bytes that are
    /// not UTF-8, which no stream here has. It skips a byte order mark only before the first line.
    #[test]
    fn sse_stream_sees_the_same_events(stream in any_stream(TEXT), cuts in vec(any::<Index>(), 0..8)) {
        prop_assume!(!["\n\u{feff}", "\r\u{feff}"].iter().any(|mark| stream.contains(mark)));
        let pieces = pieces(stream.as_bytes(), &cuts);
        let ours: Vec<_> = frames(SseDecoder::LINE_LIMIT, pieces.clone())
            .0
            .into_iter()
            .filter(|frame| matches!(frame, Owned::Event { terminated: true, .. }))
            .collect();
        prop_assert_eq!(ours, sse_stream_events(&pieces));
    }
}

fn sse_stream_events(pieces: &[&[u8]]) -> Vec<Owned> {
    let pieces: Vec<_> =
        pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece))).collect();
    let blocks = SseByteStream::new(stream::iter(pieces)).collect::<Vec<_>>().now_or_never();
    let blocks = blocks.expect("nothing to wait for").into_iter();
    let events = blocks.map(|block| block.expect("UTF-8")).filter_map(|block| {
        let data = block.data?.into_bytes();
        Some(Owned::Event { name: block.event.unwrap_or_default(), data, terminated: true })
    });
    events.collect()
}

/// A cut matters to the events around it only, so the streams are cut in parts of six events: cutting
/// the whole of each at each byte would decode 3 GB.
#[test]
fn recorded_streams_give_the_same_frames_for_any_split() {
    for fixture in fixtures() {
        let body = fixture.body();
        for part in body.chunk_by(|before, _| *before != b'\n').collect::<Vec<_>>().chunks(12) {
            let part = part.concat();
            let (whole, _) = frames(SseDecoder::LINE_LIMIT, [&part[..]]);
            for cut in 0..part.len() {
                let (head, tail) = part.split_at(cut);
                let mut expected = whole.iter();
                let end = decode(SseDecoder::LINE_LIMIT, [head, tail], &mut |frame| {
                    assert!(
                        expected.next().is_some_and(|e| *e == frame),
                        "{}: {cut}",
                        fixture.name
                    );
                });
                assert_eq!((end, expected.len()), (Ok(()), 0), "{}: {cut}", fixture.name);
            }
        }
    }
}

#[test]
fn recorded_streams_give_the_same_frames_in_pieces_of_any_size() {
    for fixture in fixtures() {
        let body = fixture.body();
        let whole = frames(SseDecoder::LINE_LIMIT, [&body[..]]);
        for size in [1, 2, 3, 7, 64, 1460] {
            let split = frames(SseDecoder::LINE_LIMIT, body.chunks(size));
            assert_eq!(split, whole, "{}, pieces of {size}", fixture.name);
        }
        let as_read = fixture.recording.chunks.iter().map(|chunk| &chunk.bytes[..]);
        assert_eq!(frames(SseDecoder::LINE_LIMIT, as_read), whole, "{}, as read", fixture.name);
    }
}

/// A decoder that looks at the unfinished line again with every piece would need minutes.
#[test]
fn one_long_line_in_single_bytes_takes_linear_time() {
    let line = [&b"data: "[..], &vec![b'x'; 4 << 20], b"\n\n"].concat();
    let mut length = 0;
    let end = decode(SseDecoder::LINE_LIMIT, line.chunks(1), &mut |frame| {
        if let Frame::Event { data, .. } = frame {
            length += data.len();
        }
    });
    assert_eq!((end, length), (Ok(()), 4 << 20));
}
