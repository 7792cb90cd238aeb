//! Where a trigger's parameters come from when they do not stand in its metadata: TriggerAuthentications, and the
//! environment of the scale target's containers.
//!
//! Nothing is kept between two calls: a rotated Secret works from the next call on.

mod environment;
mod error;
mod expansion;
mod file;
mod objects;
mod resolver;
#[cfg(test)]
mod tests;
mod trigger;

pub use error::AuthError;
pub use resolver::{Resolved, Resolver, Settings};
pub use trigger::{Place, needs_environment};
