//! Trigger types that ask a database.

pub mod postgresql;
