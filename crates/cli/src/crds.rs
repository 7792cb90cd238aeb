//! `tidemark crds`.

use std::io::{self, Write};

use anyhow::Context;

/// Prints the CustomResourceDefinitions as YAML documents.
///
/// # Errors
/// Standard output cannot be written.
pub fn print() -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for crd in tidemark_api::crds() {
        let text = serde_saphyr::to_string(&crd).context("a definition cannot be printed")?;
        write!(out, "---\n{text}").context("cannot write to standard output")?;
    }
    out.flush().context("cannot write to standard output")
}
