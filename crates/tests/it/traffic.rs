//! Traffic like that of production, through the front door.

mod lengths;
mod mixes;
mod prefixes;
mod think;
mod traces;
