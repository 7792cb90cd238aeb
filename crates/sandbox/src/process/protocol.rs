//! What is said between the kubelet and a shim: JSON, one message per line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A container's process, ready to be started. It has no `Debug`: the environment may hold secrets.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Launch {
    /// Absolute path.
    pub(super) program: PathBuf,
    /// `argv[0]` and what follows.
    pub(super) arguments: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub(super) environment: BTreeMap<String, String>,
    pub(super) working_dir: PathBuf,
}

/// To the shim, on its standard input. The end of the input means that the sender has gone.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// The first order, given once.
    Start(Launch),
    /// SIGTERM to the group now and SIGKILL after this many milliseconds.
    Stop { grace: u64 },
}

/// From the shim, on its standard output.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    Started,
    /// The process could not be started.
    Failed {
        message: String,
    },
    /// Exit code as a shell gives it: 128 and the signal for a process that a signal has ended.
    Exited {
        code: i32,
        signal: Option<i32>,
    },
}
