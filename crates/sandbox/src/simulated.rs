//! What simulated pods do, by annotations of the pod (in a workload: of its pod template).
//!
//! None of these means anything to pods that are processes.

/// All containers end this many whole seconds after they started (`"0"`: at once). Without it they run until the pod is
/// deleted. It may be added later, to end a running pod.
pub const RUN_SECONDS: &str = "tidemark.dev/simulated-run-seconds";

/// The exit code that containers end with, 0 when it is absent.
pub const EXIT_CODE: &str = "tidemark.dev/simulated-exit-code";

/// CPU in use, as a quantity such as `250m`: of each container, or of named ones (`main=250m,proxy=10m`).
pub const CPU: &str = "tidemark.dev/simulated-cpu";

/// Memory in use, as a quantity such as `64Mi`: of each container, or of named ones (`main=64Mi,proxy=8Mi`).
pub const MEMORY: &str = "tidemark.dev/simulated-memory";
