//! Tests of the whole: scenarios on the sandbox and on a real control plane, and the command as a user runs it.

mod on_control_plane;
mod on_sandbox;
mod scenario;
mod world;
