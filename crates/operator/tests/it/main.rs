//! The operator over the sandbox, in virtual time.

mod faults;
mod life;
mod loops;
mod metrics;
mod scaling;
mod world;
