//! The kubeconfig by which kubectl and others reach `up`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// Writes a kubeconfig that only the user may read. It is complete whenever it exists.
///
/// # Errors
/// The file or its folder cannot be written.
pub fn write(path: &Path, server: &str, ca: &str, token: &str) -> anyhow::Result<()> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "tidemark",
        "clusters": [{"name": "tidemark", "cluster": {
            "server": server, "certificate-authority-data": STANDARD.encode(ca),
        }}],
        "users": [{"name": "tidemark", "user": {"token": token}}],
        "contexts": [{"name": "tidemark", "context": {"cluster": "tidemark", "user": "tidemark"}}],
    });
    let failed = || format!("cannot write the kubeconfig {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(failed)?;
    let part = path.with_extension("part");
    // A leftover of another mode would keep its mode.
    let _ = std::fs::remove_file(&part);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).with_context(failed)?;
    file.write_all(format!("{config:#}\n").as_bytes()).with_context(failed)?;
    std::fs::rename(&part, path).with_context(failed)
}

/// The user's folder for state that outlives no run: logs and the kubeconfig.
///
/// # Errors
/// Neither `XDG_STATE_HOME` nor `HOME` is set.
pub fn state_folder() -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("tidemark"))
        .context("neither XDG_STATE_HOME nor HOME is set: set one, it takes the logs and the kubeconfig")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_user_may_read_it() {
        let folder = std::env::temp_dir().join(format!("tidemark-kubeconfig-{}", std::process::id()));
        let path = folder.join("config");
        write(&path, "https://127.0.0.1:1", "CA", "token").unwrap();
        write(&path, "https://127.0.0.1:2", "CA", "token").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        let config = kube::config::Kubeconfig::read_from(&path).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(config.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://127.0.0.1:2"));
    }
}
