//! What a cluster says about front proxies and clients: the ConfigMap `kube-system/extension-apiserver-authentication`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use super::PATIENCE;

/// How front proxies and clients are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontProxy {
    /// PEM bundle of the CA that signs front proxies' certificates.
    pub client_ca: String,
    /// The names that these certificates may have; empty allows all.
    pub allowed_names: Vec<String>,
    /// The headers that name the user; the first one that is there counts.
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    /// What the names of further headers about the user begin with.
    pub extra_prefixes: Vec<String>,
    /// PEM bundle of the CA that signs the certificates of users; empty where users have none.
    pub users_ca: String,
}

/// The front proxy's settings cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read ConfigMap kube-system/extension-apiserver-authentication: {0}")]
    Read(#[from] Box<kube::Error>),
    #[error("the API server did not answer in time")]
    TimedOut,
    #[error(
        "ConfigMap kube-system/extension-apiserver-authentication has no {0}: the API server runs without an \
         aggregation layer (--requestheader-client-ca-file)"
    )]
    Missing(&'static str),
    #[error("ConfigMap kube-system/extension-apiserver-authentication: {key} is not a JSON list of strings")]
    Malformed { key: &'static str },
}

impl FrontProxy {
    /// Reads the settings from the cluster.
    ///
    /// # Errors
    /// The ConfigMap cannot be read or lacks what is needed.
    pub async fn read(client: &Client) -> Result<Self, Error> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
        let map = tokio::time::timeout(PATIENCE, maps.get("extension-apiserver-authentication"))
            .await
            .map_err(|_| Error::TimedOut)?
            .map_err(Box::new)?;
        Self::parse(&map.data.unwrap_or_default())
    }

    /// The settings in the ConfigMap's data.
    ///
    /// # Errors
    /// An entry that is needed is missing, or is not what it should be.
    pub fn parse(data: &BTreeMap<String, String>) -> Result<Self, Error> {
        let list = |key: &'static str| match data.get(key) {
            None => Ok(Vec::new()),
            Some(text) => serde_json::from_str(text).map_err(|_| Error::Malformed { key }),
        };
        let required = |key: &'static str| match list(key)? {
            found if found.is_empty() => Err(Error::Missing(key)),
            found => Ok(found),
        };
        Ok(Self {
            client_ca: data
                .get("requestheader-client-ca-file")
                .filter(|pem| !pem.trim().is_empty())
                .cloned()
                .ok_or(Error::Missing("requestheader-client-ca-file"))?,
            allowed_names: list("requestheader-allowed-names")?,
            username_headers: required("requestheader-username-headers")?,
            uid_headers: list("requestheader-uid-headers")?,
            group_headers: list("requestheader-group-headers")?,
            extra_prefixes: list("requestheader-extra-headers-prefix")?,
            users_ca: data.get("client-ca-file").cloned().unwrap_or_default(),
        })
    }

    /// PEM bundle of all CAs that sign clients' certificates, for the TLS layer.
    pub fn all_cas(&self) -> String {
        format!("{}\n{}", self.client_ca, self.users_ca)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_aggregation_is_named_as_such() {
        let error = FrontProxy::parse(&BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("aggregation layer"), "{error}");
    }
}
