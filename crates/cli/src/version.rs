//! `tidemark version`: which build this is, and what it works with.

use std::io::Write;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::json;

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from, where the build said so.
pub const COMMIT: &str = match option_env!("TIDEMARK_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// The oldest Rust that it can be built with.
pub const TOOLCHAIN: &str = concat!("rust", env!("CARGO_PKG_RUST_VERSION"));
/// The release of KEDA whose objects, values, flags and metrics it takes and gives.
pub const KEDA: &str = "2.21";
/// The oldest and the newest Kubernetes that it is for.
pub const KUBERNETES: [&str; 2] = ["1.30", "1.37"];

/// `tidemark version`.
#[derive(Clone, Copy, Debug, Args)]
pub struct VersionArgs {
    /// How it is printed
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Output,
}

/// Ways to print the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

/// Prints version, commit, and what it works with.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(args: &VersionArgs) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{}", text(args.output)).context("cannot write to standard output")
}

fn text(output: Output) -> String {
    let [oldest, newest] = KUBERNETES;
    match output {
        Output::Text => format!(
            "tidemark {VERSION} (commit {COMMIT})\ndrop-in for KEDA {KEDA}\nfor Kubernetes {oldest} to {newest}"
        ),
        Output::Json => json!({
            "version": VERSION, "commit": COMMIT, "keda": KEDA,
            "kubernetes": {"oldest": oldest, "newest": newest},
        })
        .to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_tell_the_same() {
        let [oldest, newest] = KUBERNETES;
        let json: serde_json::Value = serde_json::from_str(&text(Output::Json)).unwrap();
        assert_eq!(json["kubernetes"], json!({"oldest": oldest, "newest": newest}));
        let plain = text(Output::Text);
        for key in ["version", "commit", "keda"] {
            assert!(plain.contains(json[key].as_str().unwrap()), "{key}: {plain}");
        }
        assert!(plain.starts_with(&format!("tidemark {VERSION} ")), "the first line stays as scripts know it");
        assert!(plain.contains(&format!("Kubernetes {oldest} to {newest}")));
    }
}
