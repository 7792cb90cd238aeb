//! The operator over the sandbox, in virtual time.

mod cached;
mod canary;
mod claims;
mod cluster_triggers;
mod dry_run;
mod evaluations;
mod external_scaler;
mod fallback;
mod faults;
mod idle;
mod leader;
mod life;
mod loops;
mod metrics;
mod modifiers;
mod push;
mod resource_triggers;
mod scaling;
mod schedules;
mod teller;
mod world;
mod writes;
