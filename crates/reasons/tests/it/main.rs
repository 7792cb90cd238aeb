//! Explanations of an operator over the sandbox, in virtual time.

mod cases;
mod memory;
mod world;
