//! Tests of the whole: scenarios on the sandbox and on a real control plane, and the command as a user runs it.

mod bad_input;
mod broker;
mod canary;
mod certificates;
mod changes;
mod cluster;
mod demos;
mod desk;
mod high_availability;
mod install;
mod kubectl;
mod lint;
mod manifests;
mod metrics_server;
mod metrics_table;
mod mutated;
mod observability;
mod on_control_plane;
mod on_sandbox;
mod probe;
mod reasons;
// Telemetry's own tests use more of it.
#[path = "../../../telemetry/tests/it/receiver.rs"]
#[allow(dead_code)]
mod receiver;
mod release;
mod scenario;
mod terminal;
mod traces;
mod up;
mod webhooks;
mod with_keda;
mod world;
