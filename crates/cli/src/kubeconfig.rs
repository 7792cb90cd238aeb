//! The kubeconfig by which kubectl and others reach `up`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::Kubeconfig;
use serde_json::json;

/// The name of the cluster, the user and the context.
const NAME: &str = "tidemark";

/// Writes a kubeconfig that only the user may read. It is complete whenever it exists.
///
/// # Errors
/// The file or its folder cannot be written, or the file holds something that this function did not write.
pub fn write(path: &Path, server: &str, ca: &str, token: &str) -> anyhow::Result<()> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": NAME,
        "clusters": [{"name": NAME, "cluster": {
            "server": server, "certificate-authority-data": STANDARD.encode(ca),
        }}],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
    });
    let failed = || format!("cannot write the kubeconfig {}", path.display());
    if std::fs::metadata(path).is_ok_and(|file| file.len() > 0) && servers(path).is_none() {
        return Err(anyhow!("it is there already, and no earlier `tidemark up` wrote it")).with_context(failed);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(failed)?;
    let name = path.file_name().unwrap_or_default().display();
    let part = folder.join(format!(".{name}.{}.part", std::process::id()));
    let written = write_private(&part, &format!("{config:#}\n")).and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        // It holds the token.
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(failed)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    // A leftover of another mode would keep its mode.
    let _ = std::fs::remove_file(path);
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// Removes the kubeconfig, unless another run has written its own in the same place.
pub fn remove(path: &Path, server: &str) {
    if servers(path).is_some_and(|servers| servers.iter().any(|known| known == server)) {
        // It is of no use any more, and harmless: its server is gone.
        let _ = std::fs::remove_file(path);
    }
}

/// The servers in a kubeconfig that [`write`] wrote; none for any other file.
fn servers(path: &Path) -> Option<Vec<String>> {
    let config = Kubeconfig::read_from(path).ok()?;
    let ours = !config.clusters.is_empty() && config.clusters.iter().all(|cluster| cluster.name == NAME);
    ours.then(|| config.clusters.into_iter().filter_map(|cluster| cluster.cluster?.server).collect())
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
    fn only_the_user_may_read_it_and_no_other_file_is_touched() {
        let folder = std::env::temp_dir().join(format!("tidemark-kubeconfig-{}", std::process::id()));
        let path = folder.join("config");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.part"), "another's").unwrap();
        write(&path, "https://127.0.0.1:1", "CA", "token").unwrap();
        write(&path, "https://127.0.0.1:2", "CA", "token").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        let config = Kubeconfig::read_from(&path).unwrap();
        remove(&path, "https://127.0.0.1:1");
        assert!(path.exists(), "it is another run's");
        remove(&path, "https://127.0.0.1:2");
        assert!(!path.exists());
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(left, ["config.part"], "and nothing else is touched or left");
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(config.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://127.0.0.1:2"));
    }
}
