//! Who owns which field: sets of paths, how they follow from two states of an object, and what an apply does with them.

mod client;
mod compare;
mod managers;
mod merge;
mod path;
mod set;

pub(super) use client::{KUBECTL, applied_by_client, note_applied};
pub(super) use managers::{Managers, Operation, Writer};
pub(super) use merge::{applied, untyped};
