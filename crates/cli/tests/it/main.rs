//! Tests of the whole: scenarios on the sandbox and on a real control plane, and the command as a user runs it.

mod bad_input;
mod broker;
mod canary;
mod certificates;
mod changes;
mod cluster;
mod desk;
mod high_availability;
mod install;
mod kubectl;
mod lint;
mod metrics_server;
mod mutated;
mod on_control_plane;
mod on_sandbox;
mod probe;
mod scenario;
mod terminal;
mod up;
mod webhooks;
mod world;
