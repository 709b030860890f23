//! Traffic like that of production, through the front door.

mod traces;
