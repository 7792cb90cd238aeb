//! Users that are no administrators.

use std::fs;
use std::io;
use std::path::PathBuf;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::aggregation::within;
use crate::certificates::write_private;
use crate::{ControlPlane, Error};

impl ControlPlane {
    /// A kubeconfig of a ServiceAccount, with a token for an hour; its default namespace is the account's. Namespace and
    /// account are made unless they are there. The account may do nothing until a role is bound to it.
    ///
    /// # Errors
    /// When the API server refuses, or a file cannot be written.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<PathBuf, Error> {
        let client = self.client().await?;
        create(&Api::<Namespace>::all(client.clone()), namespace).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
        create(&accounts, name).await?;
        let request = TokenRequest { spec: TokenRequestSpec::default().into(), ..TokenRequest::default() };
        let made = within(accounts.create_token_request(name, &PostParams::default(), &request)).await?;
        let token = made.status.map(|status| status.token.unwrap_or_default()).unwrap_or_default();
        self.write_user(&format!("{namespace}.{name}"), namespace, |user| *user = json!({"token": token}))
    }

    /// A kubeconfig of any user and groups, by impersonation.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn user(&self, name: &str, groups: &[&str]) -> Result<PathBuf, Error> {
        self.write_user(&name.replace(['/', ':'], "."), "default", |user| {
            user["as"] = name.into();
            user["as-groups"] = groups.into();
        })
    }

    /// The administrator's kubeconfig with another user in it.
    fn write_user(&self, file: &str, namespace: &str, change: impl FnOnce(&mut Value)) -> Result<PathBuf, Error> {
        let text = fs::read(self.kubeconfig())?;
        let mut document: Value = serde_json::from_slice(&text).map_err(io::Error::other)?;
        change(&mut document["users"][0]["user"]);
        document["contexts"][0]["context"]["namespace"] = namespace.into();
        let folder = self.directory().join("users");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{file}.kubeconfig"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => write_private(&path, document.to_string().as_bytes())?,
        }
        Ok(path)
    }
}

/// Creates an object that is nothing but its name.
async fn create<K>(api: &Api<K>, name: &str) -> Result<(), Error>
where
    K: serde::Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    let object = serde_json::from_value(json!({"metadata": {"name": name}})).map_err(io::Error::other)?;
    match within(api.create(&PostParams::default(), &object)).await {
        Err(Error::Api(kube::Error::Api(status))) if status.code == 409 => Ok(()),
        outcome => outcome.map(drop),
    }
}
