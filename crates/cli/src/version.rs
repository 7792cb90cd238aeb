//! `tidemark version`: which build this is.

use std::io::Write;

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from, where the build said so.
pub const COMMIT: &str = match option_env!("TIDEMARK_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// The oldest Rust that it can be built with.
pub const TOOLCHAIN: &str = concat!("rust", env!("CARGO_PKG_RUST_VERSION"));

/// Prints version and commit.
///
/// # Errors
/// Standard output is closed.
pub fn print() -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "tidemark {VERSION} (commit {COMMIT})")?;
    Ok(())
}
