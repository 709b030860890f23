//! The targets of `cargo fuzz`; see `targets`.

pub mod targets;
