//! What the kubelet does with a Secret that a pod mounts.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

const LOOK: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A folder that shows a Secret's keys as files, and its changes within a second or so, until this is dropped. As with the
/// kubelet, all files change at once: they are links through `..data`, which is replaced. The kubelet takes up to two
/// minutes for it.
#[derive(Debug)]
pub struct SecretVolume {
    folder: PathBuf,
    _task: AbortOnDropHandle<()>,
}

impl SecretVolume {
    /// Mounts the Secret, which need not be there yet, on `folder`, which is made.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn mount(client: Client, namespace: &str, name: &str, folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let secrets: Api<Secret> = Api::namespaced(client, namespace);
        let task = tokio::spawn(follow(secrets, name.to_owned(), folder.to_owned()));
        Ok(Self { folder: folder.to_owned(), _task: AbortOnDropHandle::new(task) })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

async fn follow(secrets: Api<Secret>, name: String, folder: PathBuf) {
    let mut shown = None;
    loop {
        // Without an answer, or without the Secret, what is there stays.
        if let Ok(Ok(Some(secret))) = timeout(ANSWER_WITHIN, secrets.get_opt(&name)).await {
            let version = secret.metadata.resource_version;
            if version != shown {
                match replace(&folder, &secret.data.unwrap_or_default(), version.as_deref().unwrap_or("0")) {
                    Ok(()) => shown = version,
                    Err(error) => tracing::warn!(%error, "the Secret {name} cannot be shown in {}", folder.display()),
                }
            }
        }
        sleep(LOOK).await;
    }
}

fn replace(folder: &Path, data: &BTreeMap<String, ByteString>, version: &str) -> io::Result<()> {
    let (data_link, new_link) = (folder.join("..data"), folder.join("..data_new"));
    let before = fs::read_link(&data_link).ok();
    let content = folder.join(format!("..{version}"));
    fs::create_dir_all(&content)?;
    for (key, ByteString(value)) in data {
        fs::write(content.join(key), value)?;
    }
    let _ = fs::remove_file(&new_link);
    symlink(format!("..{version}"), &new_link)?;
    fs::rename(&new_link, &data_link)?;
    for entry in fs::read_dir(folder)? {
        let (name, path) = entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))?;
        if !name.starts_with("..") && !data.contains_key(&name) {
            fs::remove_file(path)?;
        }
    }
    for key in data.keys().filter(|key| fs::symlink_metadata(folder.join(key)).is_err()) {
        symlink(Path::new("..data").join(key), folder.join(key))?;
    }
    match before.filter(|before| before.as_os_str() != content.file_name().unwrap_or_default()) {
        Some(before) => fs::remove_dir_all(folder.join(before)),
        None => Ok(()),
    }
}
