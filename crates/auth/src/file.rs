//! Parameters in a file that is mounted into the operator: a JSON object of texts.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::Duration;

use tidemark_trigger::Secret;
use tokio::io::AsyncReadExt;

use crate::AuthError;

/// The most bytes of a file. No Secret or ConfigMap that is mounted is larger.
const LIMIT: u64 = 1024 * 1024;

/// Reads the parameters of a file below `root`.
///
/// # Errors
/// There is no root; the path leads out of it; the file cannot be read within `timeout`, is too large, or is not a JSON
/// object of texts.
pub(crate) async fn read(
    root: Option<&Path>,
    object: &str,
    path: &str,
    timeout: Duration,
) -> Result<BTreeMap<String, Secret>, AuthError> {
    let failure =
        |cause: &str| AuthError::File { object: object.to_owned(), path: path.to_owned(), cause: cause.to_owned() };
    let root = root.ok_or_else(|| failure("filepath-auth-root-path not configured"))?;
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    // As KEDA has it, also where the dots are part of a name.
    if !inside || path.contains("..") {
        return Err(failure("it must be a relative path without .."));
    }
    let text = match tokio::time::timeout(timeout, text_of(&root.join(path))).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(failure(&error.to_string())),
        Err(_) => return Err(failure(&format!("not read within {} s", timeout.as_secs_f64()))),
    };
    if text.len() as u64 > LIMIT {
        return Err(failure("it is larger than 1 MiB"));
    }
    // The parser's message may quote the text.
    let parameters: BTreeMap<String, String> =
        serde_json::from_slice(&text).map_err(|_| failure("it is not a JSON object of texts"))?;
    Ok(parameters.into_iter().map(|(name, value)| (name, Secret::from(value))).collect())
}

async fn text_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = tokio::fs::File::open(path).await?;
    if !file.metadata().await?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut text = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut text).await?;
    Ok(text)
}
