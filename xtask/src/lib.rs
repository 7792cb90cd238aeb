//! Development tasks of Tidemark, and what the test harness shares with them: the pinned control plane and process
//! groups that cannot outlive whoever started them.
//!
//! Only the standard library and a JSON reader: `cargo xtask` starts within seconds on a fresh machine.

pub mod control_plane;
pub mod demo;
pub mod dependencies;
pub mod helm;
pub mod network;
pub mod process_group;
pub mod promql;
pub mod schemas;
pub mod services;
pub mod test;
