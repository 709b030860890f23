//! Traffic like that of production, through the front door.

mod mixes;
mod traces;
