//! The tables of a run as Parquet: the rows of `results.csv`, and the requests with lists of arrivals.
//! They are written at the end of the run from these files, a group of rows at a time.

use std::{
    fs::File,
    io::{self, Seek as _, Write},
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use jiff::Timestamp;
use parquet::{
    basic::Compression,
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};
use serde_json::{Map, Value};

use super::{
    folder::{self, REQUESTS_PARQUET, RESULTS, RESULTS_PARQUET},
    requests::RequestReader,
};
use crate::whole_file;

/// The values of a row group, which are held in memory.
const GROUP: usize = 1 << 20;

/// What the cells of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Number,
    Truth,
    Time,
    Numbers,
    Texts,
    /// Nested values, as the text of JSON.
    Json,
}

/// The columns of `results.csv` that are not numbers.
const OF_RESULTS: [(Kind, &[&str]); 4] = [
    (
        Kind::Text,
        &[
            "model_name",
            "error_message",
            "trial",
            "prompt",
            "workload",
            "model",
            "endpoint",
            "protocol",
            "request_id",
            "clock",
            "finish_reason",
            "token_count_source",
            "notes",
            "error_kind",
            "definitions",
            "version",
        ],
    ),
    (Kind::Truth, &["success", "streaming_used", "simulated", "good"]),
    (
        Kind::Whole,
        &[
            "prompt_tokens",
            "response_tokens",
            "total_tokens",
            "run",
            "turn",
            "request",
            "cached_tokens",
            "reasoning_tokens",
            "token_events",
            "shared_arrivals",
            "items",
        ],
    ),
    (Kind::Time, &["timestamp"]),
];

/// The columns of the requests, in the order of the keys of a line.
const OF_REQUESTS: [(&str, Kind); 50] = [
    ("trial", Kind::Text),
    ("model", Kind::Text),
    ("prompt", Kind::Text),
    ("workload", Kind::Text),
    ("run", Kind::Whole),
    ("turn", Kind::Whole),
    ("request", Kind::Whole),
    ("started", Kind::Time),
    ("scheduled_us", Kind::Number),
    ("begun_us", Kind::Number),
    ("handed_over_us", Kind::Number),
    ("ended_us", Kind::Number),
    ("error_kind", Kind::Text),
    ("error_message", Kind::Text),
    ("is_streamed", Kind::Truth),
    ("request_id", Kind::Text),
    ("finish_reason", Kind::Text),
    ("items", Kind::Whole),
    ("prompt_tokens", Kind::Whole),
    ("response_tokens", Kind::Whole),
    ("total_tokens", Kind::Whole),
    ("cached_tokens", Kind::Whole),
    ("reasoning_tokens", Kind::Whole),
    ("token_count", Kind::Text),
    ("connect_us", Kind::Number),
    ("tls_us", Kind::Number),
    ("sent_us", Kind::Number),
    ("lag_us", Kind::Number),
    ("clock", Kind::Text),
    ("first_byte_us", Kind::Number),
    ("first_event_us", Kind::Number),
    ("first_reasoning_us", Kind::Number),
    ("first_answer_us", Kind::Number),
    ("token_arrivals_us", Kind::Numbers),
    ("events", Kind::Json),
    ("other_arrivals_us", Kind::Numbers),
    ("first_event_tokens", Kind::Whole),
    ("end_us", Kind::Number),
    ("uncertainty", Kind::Json),
    ("server_head_us", Kind::Number),
    ("server_queue_us", Kind::Number),
    ("server_prompt_us", Kind::Number),
    ("server_generation_us", Kind::Number),
    ("server_may_hold_first", Kind::Truth),
    ("shows_reasoning", Kind::Truth),
    ("is_good", Kind::Truth),
    ("asked_for_one", Kind::Truth),
    ("notes", Kind::Texts),
    ("unread", Kind::Json),
    ("doubts", Kind::Json),
];

/// Writes the tables of the run in `folder`: the requests only if the run kept them.
pub(crate) fn write(folder: &Path) -> anyhow::Result<()> {
    write_file(&folder.join(RESULTS_PARQUET), |out| results(&folder.join(RESULTS), out))?;
    match folder::requests(folder) {
        Some(path) => write_file(&folder.join(REQUESTS_PARQUET), |out| requests(&path, out)),
        None => Ok(()),
    }
}

/// Writes a table to a temporary file, then replaces the file at `path` as a whole.
fn write_file(path: &Path, table: impl FnOnce(File) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let mut file = tempfile::tempfile_in(path.parent().unwrap_or(Path::new(".")))?;
    table(file.try_clone()?).with_context(context)?;
    file.rewind()?;
    let copy = |out: &mut dyn Write| io::copy(&mut &file, out).map(drop);
    whole_file::write_with(path, &copy).with_context(context)
}

fn results(path: &Path, out: File) -> anyhow::Result<()> {
    let mut reader = csv::Reader::from_path(path)?;
    let header = reader.headers()?.clone();
    let kind = |name: &str| {
        let known = OF_RESULTS.iter().find(|(_, names)| names.contains(&name));
        known.map_or(Kind::Number, |(kind, _)| *kind)
    };
    let columns: Vec<_> = header.iter().map(|name| (name, kind(name))).collect();
    let mut table = Table::new(out, &columns)?;
    for record in reader.records() {
        let record = record?;
        for (column, cell) in table.columns.iter_mut().zip(&record) {
            column
                .push_text(cell)
                .with_context(|| problem(path, record.position(), &column.name))?;
        }
        table.end_row()?;
    }
    table.finish()
}

fn problem(path: &Path, position: Option<&csv::Position>, column: &str) -> String {
    let line = position.map_or(0, csv::Position::line);
    format!("cannot use {}:{line}: column `{column}`", path.display())
}

fn requests(path: &Path, out: File) -> anyhow::Result<()> {
    let mut table = Table::new(out, &OF_REQUESTS)?;
    for line in RequestReader::open(path)? {
        let Value::Object(line) = serde_json::to_value(&line?)? else { continue };
        table.push(line)?;
    }
    table.finish()
}

/// A table that is being written.
struct Table {
    writer: SerializedFileWriter<File>,
    columns: Vec<Column>,
}

/// The cells of a column that are not written yet, with Parquet's definition and repetition levels.
struct Column {
    name: String,
    kind: Kind,
    values: Values,
    defined: Vec<i16>,
    repeated: Vec<i16>,
}

enum Values {
    Texts(Vec<ByteArray>),
    Whole(Vec<i64>),
    Numbers(Vec<f64>),
    Truths(Vec<bool>),
}

impl Table {
    fn new(out: File, columns: &[(&str, Kind)]) -> anyhow::Result<Self> {
        let fields: String = columns.iter().map(|(name, kind)| field(name, *kind)).collect();
        let schema = parse_message_type(&format!("message table {{ {fields} }}"))?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
        let columns = columns.iter().map(|(name, kind)| Column::new(name, *kind)).collect();
        Ok(Self { writer, columns })
    }

    /// Adds a row. A key that is not a column is an error: its values would be lost.
    fn push(&mut self, mut row: Map<String, Value>) -> anyhow::Result<()> {
        for column in &mut self.columns {
            let cell = row.remove(&column.name).unwrap_or(Value::Null);
            column.push(cell).with_context(|| format!("column `{}`", column.name))?;
        }
        if let Some(key) = row.keys().next() {
            anyhow::bail!("no column for `{key}`");
        }
        self.end_row()
    }

    fn end_row(&mut self) -> anyhow::Result<()> {
        let held: usize = self.columns.iter().map(|column| column.defined.len()).sum();
        if held >= GROUP { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let mut group = self.writer.next_row_group()?;
        self.columns.iter_mut().try_for_each(|column| column.write(&mut group))?;
        group.close()?;
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        if self.columns.iter().any(|column| !column.defined.is_empty()) {
            self.flush()?;
        }
        self.writer.close()?;
        Ok(())
    }
}

impl Column {
    fn new(name: &str, kind: Kind) -> Self {
        let values = match kind {
            Kind::Text | Kind::Texts | Kind::Json => Values::Texts(Vec::new()),
            Kind::Whole | Kind::Time => Values::Whole(Vec::new()),
            Kind::Number | Kind::Numbers => Values::Numbers(Vec::new()),
            Kind::Truth => Values::Truths(Vec::new()),
        };
        let (defined, repeated) = (Vec::new(), Vec::new());
        Self { name: name.to_owned(), kind, values, defined, repeated }
    }

    /// Adds a cell of a CSV file.
    fn push_text(&mut self, cell: &str) -> anyhow::Result<()> {
        let value = match self.kind {
            _ if cell.is_empty() => Value::Null,
            Kind::Whole | Kind::Number | Kind::Truth => serde_json::from_str(cell)?,
            // Names that begin like a formula have an apostrophe in front.
            _ => cell.strip_prefix('\'').unwrap_or(cell).into(),
        };
        self.push(value)
    }

    fn push(&mut self, cell: Value) -> anyhow::Result<()> {
        let is_list = matches!(self.kind, Kind::Numbers | Kind::Texts);
        match cell {
            Value::Array(cells) if is_list => {
                let count = cells.len();
                cells.into_iter().try_for_each(|cell| self.push_value(cell))?;
                // An empty list has one entry in the levels and no value.
                self.defined.extend((0..count.max(1)).map(|_| i16::from(count > 0)));
                self.repeated.extend((0..count.max(1)).map(|nth| i16::from(nth > 0)));
            }
            Value::Null if !is_list => self.defined.push(0),
            cell if !is_list => {
                self.push_value(cell)?;
                self.defined.push(1);
            }
            cell => anyhow::bail!("not a list: {cell}"),
        }
        Ok(())
    }

    fn push_value(&mut self, cell: Value) -> anyhow::Result<()> {
        match (&mut self.values, self.kind, cell) {
            (Values::Texts(values), Kind::Json, cell) => {
                values.push(cell.to_string().into_bytes().into())
            }
            (Values::Texts(values), _, Value::String(text)) => {
                values.push(text.into_bytes().into())
            }
            (Values::Whole(values), Kind::Time, Value::String(text)) => {
                values.push(text.parse::<Timestamp>()?.as_microsecond());
            }
            (Values::Whole(values), _, Value::Number(number)) => {
                values.push(number.as_i64().with_context(|| format!("not whole: {number}"))?);
            }
            (Values::Numbers(values), _, Value::Number(number)) => {
                values.push(number.as_f64().with_context(|| format!("not a number: {number}"))?);
            }
            (Values::Truths(values), _, Value::Bool(truth)) => values.push(truth),
            (.., cell) => anyhow::bail!("not a value of this column: {cell}"),
        }
        Ok(())
    }

    fn write(&mut self, group: &mut SerializedRowGroupWriter<'_, File>) -> anyhow::Result<()> {
        let defined = std::mem::take(&mut self.defined);
        let repeated = std::mem::take(&mut self.repeated);
        let repeated = (!repeated.is_empty()).then_some(&repeated[..]);
        match &mut self.values {
            Values::Texts(values) => {
                write_values::<ByteArrayType>(group, values, &defined, repeated)
            }
            Values::Whole(values) => write_values::<Int64Type>(group, values, &defined, repeated),
            Values::Numbers(values) => {
                write_values::<DoubleType>(group, values, &defined, repeated)
            }
            Values::Truths(values) => write_values::<BoolType>(group, values, &defined, repeated),
        }
        .with_context(|| format!("column `{}`", self.name))
    }
}

/// Writes the values of a column, and forgets them.
fn write_values<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &mut Vec<T::T>,
    defined: &[i16],
    repeated: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("more columns than the schema has".into());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, Some(defined), repeated)?;
    values.clear();
    column.close()
}

/// Returns the column in Parquet's language for schemas.
fn field(name: &str, kind: Kind) -> String {
    let list = |element: &str| {
        format!(
            "REQUIRED group {name} (LIST) {{ REPEATED group list {{ REQUIRED {element}; }} }}\n"
        )
    };
    match kind {
        Kind::Text | Kind::Json => format!("OPTIONAL BYTE_ARRAY {name} (STRING);\n"),
        Kind::Whole => format!("OPTIONAL INT64 {name};\n"),
        Kind::Number => format!("OPTIONAL DOUBLE {name};\n"),
        Kind::Truth => format!("OPTIONAL BOOLEAN {name};\n"),
        Kind::Time => format!("OPTIONAL INT64 {name} (TIMESTAMP(MICROS,true));\n"),
        Kind::Numbers => list("DOUBLE element"),
        Kind::Texts => list("BYTE_ARRAY element (STRING)"),
    }
}
