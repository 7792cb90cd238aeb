//! The operator over the sandbox, in virtual time.

mod life;
mod loops;
mod metrics;
mod scaling;
mod world;
