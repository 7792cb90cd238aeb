//! From a trigger's `authenticationRef` to its parameters.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodSpec;
use kube::{Api, Client};
use tidemark_api::authentication::{EnvRef, KeyRef};
use tidemark_api::{
    AuthenticationKind, AuthenticationRef, AuthenticationSpec, ClusterTriggerAuthentication, PodIdentity,
    TriggerAuthentication,
};
use tidemark_trigger::Secret;

use crate::AuthError;
use crate::environment;
use crate::file;
use crate::objects::{Kind, Objects, describe, get};

/// What an installation says about authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the Secrets and ConfigMaps of ClusterTriggerAuthentications are read.
    pub cluster_object_namespace: Option<String>,
    /// Secrets are read from the cluster object namespace only.
    pub restrict_secret_access: bool,
    /// The folder of the files that ClusterTriggerAuthentications name by `filePath`; `None` refuses them.
    pub file_root: Option<PathBuf>,
    /// Deadline of one read, repeats included.
    pub request_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_object_namespace: None,
            restrict_secret_access: false,
            file_root: None,
            request_timeout: Duration::from_secs(10),
        }
    }
}

/// What an authentication gives to a trigger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The parameters. One that could not be read is there and empty.
    pub parameters: BTreeMap<String, Secret>,
    /// The provider of the pod identity; `None` for none.
    pub pod_identity: Option<String>,
    /// What could not be found, in sentences without any value: `Secret shop/broker has no key "host"`.
    pub missing: Vec<String>,
}

/// Resolves authentications and container environments through the API server. Cheap to clone; keeps nothing.
#[derive(Clone)]
pub struct Resolver {
    client: Client,
    settings: Settings,
}

impl Resolver {
    /// A resolver that reads through this client.
    pub fn new(client: Client, settings: Settings) -> Self {
        Self { client, settings }
    }

    /// The parameters of the authentication that a trigger in `namespace` refers to. `pod` is the scale target's pod
    /// template, for parameters from its environment.
    ///
    /// The sources overwrite each other in the order `env`, `configMapTargetRef`, `secretTargetRef`; beside a `filePath`
    /// none of them counts. An object, key or variable that is not there gives an empty parameter and a sentence in
    /// [`Resolved::missing`]; a missing authentication gives no parameters and a sentence.
    ///
    /// # Errors
    /// A read that fails for another reason than that there is no such object; a source that is not supported; a
    /// namespace whose Secrets may not be read; a file that cannot be read or is not one of parameters.
    pub async fn resolve(
        &self,
        namespace: &str,
        reference: &AuthenticationRef,
        pod: Option<&PodSpec>,
    ) -> Result<Resolved, AuthError> {
        let mut resolved = Resolved::default();
        let scope = Scope::new(namespace, reference, &self.settings);
        let Some(spec) = self.authentication(namespace, reference, &scope.object).await? else {
            resolved.missing.push(format!("{} does not exist", scope.object));
            return Ok(resolved);
        };
        refuse_unsupported(&spec, &scope.object)?;
        let mut objects = Objects::new(&self.client, self.settings.request_timeout);
        let identity = spec.pod_identity.as_ref().filter(|identity| !matches!(identity.provider.as_str(), "" | "none"));
        resolved.pod_identity = identity.map(|identity| identity.provider.clone());
        if let Some(path) = spec.file_path.as_deref().filter(|path| !path.is_empty()) {
            resolved.parameters = self.file(reference, &scope.object, path).await?;
            return Ok(resolved);
        }
        for entry in spec.env.iter().flatten() {
            let value = self.variable(&mut objects, namespace, entry, pod).await?;
            resolved.set(&entry.parameter, value);
        }
        for entry in spec.config_map_target_ref.iter().flatten() {
            let value = from_object(&mut objects, Kind::ConfigMap, scope.namespace()?, entry).await?;
            resolved.set(&entry.parameter, value);
        }
        for entry in spec.secret_target_ref.iter().flatten() {
            let value = from_object(&mut objects, Kind::Secret, scope.secret_namespace()?, entry).await?;
            resolved.set(&entry.parameter, value);
        }
        if let Some(role) = role_of(identity, &scope.object)? {
            resolved.parameters.insert("awsRoleArn".to_owned(), role);
        }
        Ok(resolved)
    }

    /// The environment of a container of the scale target's pods in `namespace`: of the first one when `container` is
    /// unset. Empty when there is no container at all.
    ///
    /// # Errors
    /// No container of that name; a Secret or ConfigMap that the container needs is missing or cannot be read; more than
    /// 6 MiB in all.
    pub async fn container_env(
        &self,
        namespace: &str,
        pod: &PodSpec,
        container: Option<&str>,
    ) -> Result<BTreeMap<String, Secret>, AuthError> {
        let mut objects = Objects::new(&self.client, self.settings.request_timeout);
        self.environment(&mut objects, namespace, pod, container).await
    }

    async fn environment(
        &self,
        objects: &mut Objects<'_>,
        namespace: &str,
        pod: &PodSpec,
        container: Option<&str>,
    ) -> Result<BTreeMap<String, Secret>, AuthError> {
        let secrets = self.settings.allow_secrets_of(namespace);
        match environment::container(pod, container)? {
            Some(container) => environment::resolve(objects, namespace, container, secrets).await,
            None => Ok(BTreeMap::new()),
        }
    }

    /// The parameters in a file.
    async fn file(
        &self,
        reference: &AuthenticationRef,
        object: &str,
        path: &str,
    ) -> Result<BTreeMap<String, Secret>, AuthError> {
        let kind = reference.kind.unwrap_or_default();
        if kind == AuthenticationKind::TriggerAuthentication {
            let cause = "filePath is only supported for ClusterTriggerAuthentication, got kind: TriggerAuthentication";
            return Err(AuthError::Invalid { object: object.to_owned(), cause });
        }
        file::read(self.settings.file_root.as_deref(), object, path, self.settings.request_timeout).await
    }

    async fn authentication(
        &self,
        namespace: &str,
        reference: &AuthenticationRef,
        object: &str,
    ) -> Result<Option<AuthenticationSpec>, AuthError> {
        let (client, timeout) = (self.client.clone(), self.settings.request_timeout);
        let (name, object) = (reference.name.as_str(), object.to_owned());
        Ok(match reference.kind.unwrap_or_default() {
            AuthenticationKind::TriggerAuthentication => {
                let api = Api::<TriggerAuthentication>::namespaced(client, namespace);
                get(&self.client, &api, timeout, object, name).await?.map(|found| found.spec)
            }
            AuthenticationKind::ClusterTriggerAuthentication => {
                let api = Api::<ClusterTriggerAuthentication>::all(client);
                get(&self.client, &api, timeout, object, name).await?.map(|found| found.spec.0)
            }
        })
    }

    /// A variable of the scale target, or why there is none: only a read that fails stops the resolution.
    async fn variable(
        &self,
        objects: &mut Objects<'_>,
        namespace: &str,
        entry: &EnvRef,
        pod: Option<&PodSpec>,
    ) -> Result<Result<Secret, String>, AuthError> {
        let wanted = format!("environment variable {} of the scale target", entry.name);
        let Some(pod) = pod else { return Ok(Err(format!("{wanted}: the target has no pod template"))) };
        let mut env = match self.environment(objects, namespace, pod, entry.container_name.as_deref()).await {
            Ok(env) => env,
            Err(error @ AuthError::Unreadable { .. }) => return Err(error),
            Err(error) => return Ok(Err(format!("{wanted}: {error}"))),
        };
        Ok(env.remove(&entry.name).ok_or_else(|| {
            let container = entry.container_name.as_deref().filter(|name| !name.is_empty());
            match container.or(pod.containers.first().map(|first| first.name.as_str())) {
                Some(container) => format!("{wanted}: container \"{container}\" does not set it"),
                None => format!("{wanted}: the target has no container"),
            }
        }))
    }
}

impl Settings {
    fn allow_secrets_of(&self, namespace: &str) -> bool {
        !self.restrict_secret_access || self.cluster_object_namespace.as_deref() == Some(namespace)
    }
}

impl Resolved {
    /// Sets a parameter over that of an earlier source, empty where it is missing.
    fn set(&mut self, parameter: &str, value: Result<Secret, String>) {
        let value = value.unwrap_or_else(|mut note| {
            if self.parameters.get(parameter).is_some_and(|earlier| !earlier.expose().is_empty()) {
                note.push_str(&format!("; this empties {parameter}, which an earlier source has set"));
            }
            self.missing.push(note);
            Secret::default()
        });
        self.parameters.insert(parameter.to_owned(), value);
    }
}

/// Where an authentication's objects are read.
struct Scope<'a> {
    /// The authentication in words.
    object: String,
    namespace: Option<&'a str>,
    settings: &'a Settings,
}

impl<'a> Scope<'a> {
    fn new(namespace: &'a str, reference: &AuthenticationRef, settings: &'a Settings) -> Self {
        let name = &reference.name;
        match reference.kind.unwrap_or_default() {
            AuthenticationKind::TriggerAuthentication => Self {
                object: describe("TriggerAuthentication", namespace, name),
                namespace: Some(namespace),
                settings,
            },
            AuthenticationKind::ClusterTriggerAuthentication => {
                let object = format!("ClusterTriggerAuthentication {name}");
                Self { object, namespace: settings.cluster_object_namespace.as_deref(), settings }
            }
        }
    }

    fn namespace(&self) -> Result<&'a str, AuthError> {
        self.namespace.ok_or_else(|| AuthError::NoClusterObjectNamespace { object: self.object.clone() })
    }

    fn secret_namespace(&self) -> Result<&'a str, AuthError> {
        let namespace = self.namespace()?;
        if self.settings.allow_secrets_of(namespace) {
            return Ok(namespace);
        }
        Err(AuthError::Restricted { object: self.object.clone(), namespace: namespace.to_owned() })
    }
}

/// An entry of a Secret or ConfigMap, or why there is none.
async fn from_object(
    objects: &mut Objects<'_>,
    kind: Kind,
    namespace: &str,
    entry: &KeyRef,
) -> Result<Result<Secret, String>, AuthError> {
    let KeyRef { parameter, name, key, .. } = entry;
    if name.is_empty() || key.is_empty() {
        return Ok(Err(format!("parameter {parameter} needs both the name and the key of a {kind}")));
    }
    let object = describe(kind, namespace, name);
    Ok(match objects.data(kind, namespace, name).await? {
        None => Err(format!("{object} does not exist")),
        Some(data) => match data.get(key) {
            Some(Some(text)) => Ok(text.clone()),
            Some(None) => Err(format!("{object}: the value of \"{key}\" is not UTF-8 text")),
            None => Err(format!("{object} has no key \"{key}\"")),
        },
    })
}

/// An authentication is taken whole or not at all: a trigger without half of its parameters might log in as another.
fn refuse_unsupported(spec: &AuthenticationSpec, object: &str) -> Result<(), AuthError> {
    let workload =
        |identity: &PodIdentity| identity.provider == "aws" && identity.identity_owner.as_deref() == Some("workload");
    let fields = [
        ("spec.hashiCorpVault", spec.hashi_corp_vault.as_ref().is_some_and(|vault| !vault.secrets.is_empty())),
        ("spec.azureKeyVault", spec.azure_key_vault.is_some()),
        ("spec.azureServicePrincipal", spec.azure_service_principal.is_some()),
        ("spec.gcpSecretManager", spec.gcp_secret_manager.is_some()),
        ("spec.awsSecretManager", spec.aws_secret_manager.is_some()),
        (
            "spec.boundServiceAccountToken",
            spec.bound_service_account_token.as_ref().is_some_and(|tokens| !tokens.is_empty()),
        ),
        ("spec.oauth2", spec.oauth2.is_some()),
        (
            "spec.podIdentity.identityOwner: workload",
            spec.pod_identity.as_ref().is_some_and(|identity| workload(identity) && no_role(identity)),
        ),
        (
            "spec.podIdentity.provider: aws-eks",
            spec.pod_identity.as_ref().is_some_and(|identity| identity.provider == "aws-eks"),
        ),
    ];
    match fields.into_iter().find(|(_, used)| *used) {
        Some((field, _)) => Err(AuthError::Unsupported { object: object.to_owned(), field }),
        None => Ok(()),
    }
}

fn no_role(identity: &PodIdentity) -> bool {
    identity.role_arn.as_deref().unwrap_or_default().is_empty()
}

/// The role that an identity names, once it is free of contradictions.
fn role_of(identity: Option<&PodIdentity>, object: &str) -> Result<Option<Secret>, AuthError> {
    let Some(identity) = identity else { return Ok(None) };
    let invalid = |cause| Err(AuthError::Invalid { object: object.to_owned(), cause });
    match identity.provider.as_str() {
        "azure-workload" if identity.identity_id.as_deref() == Some("") => {
            invalid("podIdentity.identityId is empty; name an identity or leave the field out")
        }
        "aws" if no_role(identity) => Ok(None),
        "aws" if identity.identity_owner.as_deref() == Some("workload") => {
            invalid("podIdentity.roleArn and identityOwner: workload exclude each other")
        }
        "aws" => Ok(identity.role_arn.as_deref().map(Secret::from)),
        _ => Ok(None),
    }
}
