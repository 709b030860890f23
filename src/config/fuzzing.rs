//! The parser of data sets, for tests with random bytes.

use super::dataset::{self, Text};

/// Reads a data set. Returns the number of its records, and the places of its mistakes in bytes.
pub fn read_data_set(bytes: &[u8], multi_turn: bool) -> (usize, Vec<usize>) {
    let set = dataset::read(&Text::of(bytes.to_vec()), multi_turn);
    (set.records.len(), set.mistakes.iter().map(|mistake| mistake.at).collect())
}
