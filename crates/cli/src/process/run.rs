//! The life of a process: its parts, and the signals that end it.

mod parts;
mod signals;

pub use parts::Parts;
pub use signals::{Signals, again};
