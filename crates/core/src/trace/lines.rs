//! Reads the lines of a trace.

use std::{collections::HashMap, time::Duration};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{Trace, TraceFormat, TracedContent, TracedLengths, TracedRequest, find_shared};
use crate::{exact, text::counted};

/// The longest prompt or answer of a trace, in tokens.
const MOST_TOKENS: u64 = 10_000_000;

/// The longest trace, in seconds.
const MOST_SECONDS: f64 = 1e9;

/// The line of a trace that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    /// The byte of the text at which it is.
    pub at: usize,
    /// The message.
    pub what: String,
    /// The hint.
    pub help: &'static str,
}

/// A line as it is written. Other fields are ignored.
#[derive(Deserialize)]
struct Line<'a> {
    timestamp: Option<Value>,
    #[serde(alias = "input_tokens")]
    input_length: Option<Value>,
    #[serde(alias = "output_tokens")]
    output_length: Option<Value>,
    hash_ids: Option<Vec<Value>>,
    chat_id: Option<Value>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// Reads the first `limit` lines of a trace. Without a `format` or a `block_size`, the first line
/// decides.
pub fn read(
    text: &str,
    (format, block_size): (Option<TraceFormat>, Option<u64>),
    limit: usize,
) -> Result<Trace, LineError> {
    let mut lines = Lines { format, block_size, ids: HashMap::new(), first: None };
    let mut requests = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if requests.len() == limit {
            break;
        }
        let begins = at + (line.len() - line.trim_start().len());
        let line_text = line.trim();
        if !line_text.is_empty() {
            requests.push(lines.read(line_text, begins)?);
        }
        at += line.len();
    }
    let Some(format) = lines.format.filter(|_| !requests.is_empty()) else {
        return Err(LineError { at: 0, what: "the trace has no requests".into(), help: FORMS });
    };
    // Times can be out of order in files that several servers wrote.
    requests.sort_by(|a, b| a.0.total_cmp(&b.0));
    let first = requests[0].0;
    let timed = |(seconds, content): (f64, TracedContent)| TracedRequest {
        at: Duration::try_from_secs_f64(seconds - first).unwrap_or_default(),
        content,
    };
    let mut requests: Vec<_> = requests.into_iter().map(timed).collect();
    let block_size = lines.block_size(format);
    find_shared(&mut requests, block_size);
    Ok(Trace { format, block_size, blocks: lines.ids.len(), requests })
}

const FORMS: &str = "a line is {\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500, \
                     \"hash_ids\": [0, 1]}, or {\"timestamp\": 0, \"body\": {…}}";

/// The state that is common to all lines.
struct Lines {
    format: Option<TraceFormat>,
    block_size: Option<u64>,
    /// The number of each block, by its id.
    ids: HashMap<u64, u32>,
    /// The time of the first line.
    first: Option<f64>,
}

impl Lines {
    fn block_size(&self, format: TraceFormat) -> u64 {
        self.block_size.unwrap_or(format.block_size())
    }

    /// Reads the line that begins at the byte `at`: its time in seconds, and its content.
    fn read(&mut self, text: &str, at: usize) -> Result<(f64, TracedContent), LineError> {
        let error = |what: String, help| LineError { at, what, help };
        if !text.starts_with('{') {
            return Err(error("this line is not a JSON object".into(), FORMS));
        }
        let line: Line<'_> = serde_json::from_str(text).map_err(|error| {
            let column = error.column().saturating_sub(1).min(text.len() - 1);
            let column = (0..=column).rev().find(|byte| text.is_char_boundary(*byte));
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            LineError {
                at: at + column.unwrap_or_default(),
                what: format!("this line is not a request of a trace: {what}"),
                help: FORMS,
            }
        })?;
        let own = match (&line.body, &line.chat_id) {
            (Some(_), _) => TraceFormat::Bodies,
            (None, Some(_)) => TraceFormat::Bailian,
            (None, None) => TraceFormat::Mooncake,
        };
        let format = *self.format.get_or_insert(own);
        if (own == TraceFormat::Bodies) != (format == TraceFormat::Bodies) {
            let what = match own {
                TraceFormat::Bodies => "this line has a `body`, and others have lengths",
                _ => "this line has no `body`, and others have one",
            };
            return Err(error(what.into(), "write each kind into another file"));
        }
        let time = line.timestamp.as_ref().and_then(Value::as_f64).map(|t| t / format.per_second());
        let Some(seconds) = time else {
            let help = "a number of milliseconds; of seconds in the format `bailian`";
            return Err(error("`timestamp` must be a number".into(), help));
        };
        let first = *self.first.get_or_insert(seconds);
        if (seconds - first).abs() > MOST_SECONDS {
            let what = "`timestamp` is more than 30 years from that of the first line";
            return Err(error(what.into(), "write all of them in the same unit"));
        }
        let content = match line.body {
            Some(body) => TracedContent::Body(body_of(body).map_err(|what| error(what, FORMS))?),
            None => TracedContent::Lengths(
                self.lengths(&line, format).map_err(|(what, help)| error(what, help))?,
            ),
        };
        Ok((seconds, content))
    }

    fn lengths(
        &mut self,
        line: &Line<'_>,
        format: TraceFormat,
    ) -> Result<TracedLengths, (String, &'static str)> {
        let input = tokens(line.input_length.as_ref(), ("input_length", 1))?;
        // No server generates nothing: an answer has one token or more.
        let output = tokens(line.output_length.as_ref(), ("output_length", 0))?.max(1);
        let block_size = self.block_size(format);
        let ids = line.hash_ids.as_deref().unwrap_or_default();
        let most = input.div_ceil(block_size);
        if ids.len() as u64 > most {
            let what = format!(
                "{} for {}: in blocks of {block_size} they have {most}",
                counted(ids.len(), "hash id"),
                counted(input as usize, "token"),
            );
            return Err((what, "set `block_size` to that of the trace"));
        }
        let mut blocks = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(id) = id.as_u64() else {
                return Err((format!("`{id}` is not a hash id"), "ids are whole numbers"));
            };
            let next = u32::try_from(self.ids.len())
                .map_err(|_| ("the trace has too many different blocks".into(), "shorten it"))?;
            blocks.push(*self.ids.entry(id).or_insert(next));
        }
        Ok(TracedLengths { input, output, blocks, shared: 0 })
    }
}

/// Reads a number of tokens, `least` or more.
fn tokens(value: Option<&Value>, (key, least): (&str, u64)) -> Result<u64, (String, &'static str)> {
    let tokens = value.and_then(exact::whole);
    let tokens = tokens.filter(|tokens| (least..=MOST_TOKENS).contains(tokens));
    tokens.ok_or_else(|| {
        let what = format!("`{key}` must be a whole number from {least} to {MOST_TOKENS}");
        (what, FORMS)
    })
}

/// Reads a recorded body. Numbers are kept as they are written.
fn body_of(raw: &RawValue) -> Result<Value, String> {
    match exact::parse(raw.get()) {
        Some(body @ Value::Object(_)) => Ok(body),
        _ => Err("`body` must be a JSON object: the body of a request".into()),
    }
}
