//! The environment and command line of a container.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, EnvVarSource, Pod, Secret};
use kube::api::ListParams;
use kube::core::DynamicObject;
use kube::{Api, Client, ResourceExt};

use super::protocol::Launch;
use super::{Settings, resources, service_links};
use crate::controllers::{ask, service_kind};

/// Why a container cannot be started: the reason of its waiting state and a sentence.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Obstacle {
    fn config(message: String) -> Self {
        Self { reason: "CreateContainerConfigError", message }
    }

    pub(super) fn run(message: String) -> Self {
        Self { reason: "RunContainerError", message }
    }
}

type Variables = BTreeMap<String, String>;
/// A Secret's or ConfigMap's text values, `None` when there is no such object.
type Values = Option<Variables>;

/// Reads what the environment of a pod's containers refers to.
pub(super) struct Source<'a> {
    pub(super) client: &'a Client,
    pub(super) settings: &'a Settings,
    pub(super) pod: &'a Pod,
    pub(super) address: &'a str,
}

impl Source<'_> {
    /// Everything that is needed to start the container.
    pub(super) async fn launch(&self, container: &Container) -> Result<Launch, Obstacle> {
        let variables = self.variables(container).await?;
        let command = container.command.iter().flatten();
        let given: Vec<_> = command.map(|word| expand(word, &variables)).collect();
        if given.is_empty() {
            return Err(Obstacle::config(format!(
                "container {} has no command: images are not pulled here, so the manifest has to name a program of \
                 this machine",
                container.name
            )));
        }
        let mut arguments = given;
        arguments.extend(container.args.iter().flatten().map(|word| expand(word, &variables)));
        let working_dir = container.working_dir.as_ref().filter(|dir| !dir.is_empty());
        let working_dir =
            working_dir.map_or_else(|| self.settings.working_dir.clone(), |d| self.settings.working_dir.join(d));
        if !working_dir.is_dir() {
            return Err(Obstacle::run(format!("workingDir {} is no folder of this machine", working_dir.display())));
        }
        let environment = self.complete(variables);
        let path = environment.get("PATH").map(String::as_str).unwrap_or_default();
        let program = find(&arguments[0], path, &working_dir).ok_or_else(|| {
            let name = &arguments[0];
            Obstacle::run(if name.contains('/') {
                format!(
                    "exec: {name:?}: no executable file of this machine (looked for from {})",
                    working_dir.display()
                )
            } else {
                format!("exec: {name:?}: executable file not found in $PATH")
            })
        })?;
        Ok(Launch { program, arguments, environment, working_dir })
    }

    /// Adds what every process gets: the few inherited variables, the host name, the programs beside this one.
    fn complete(&self, variables: Variables) -> Variables {
        let mut all = self.settings.environment.clone();
        all.insert("HOSTNAME".to_owned(), self.pod.name_any());
        all.extend(variables);
        if !self.settings.path_prefix.as_os_str().is_empty() {
            let prefix = self.settings.path_prefix.display();
            let path = all.get("PATH").filter(|path| !path.is_empty());
            let path = path.map_or_else(|| prefix.to_string(), |path| format!("{prefix}:{path}"));
            all.insert("PATH".to_owned(), path);
        }
        all
    }

    async fn variables(&self, container: &Container) -> Result<Variables, Obstacle> {
        let mut variables = self.services().await?;
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            for (name, value) in self.bundle(source).await? {
                variables.insert(format!("{prefix}{name}"), value);
            }
        }
        for variable in container.env.iter().flatten() {
            let value = match &variable.value_from {
                None => Some(expand(variable.value.as_deref().unwrap_or_default(), &variables)),
                Some(source) => self.value(container, &variable.name, source).await?,
            };
            if let Some(value) = value {
                variables.insert(variable.name.clone(), value);
            }
        }
        Ok(variables)
    }

    async fn bundle(&self, source: &EnvFromSource) -> Result<Variables, Obstacle> {
        let (kind, name, optional, values) = if let Some(map) = &source.config_map_ref {
            ("configmap", &map.name, map.optional, self.config_map(&map.name).await?)
        } else if let Some(secret) = &source.secret_ref {
            ("secret", &secret.name, secret.optional, self.secret(&secret.name).await?)
        } else {
            return Ok(Variables::new());
        };
        match values {
            Some(values) => Ok(values),
            None if optional == Some(true) => Ok(Variables::new()),
            None => Err(Obstacle::config(format!("{kind} {name:?} not found"))),
        }
    }

    async fn value(
        &self,
        container: &Container,
        variable: &str,
        source: &EnvVarSource,
    ) -> Result<Option<String>, Obstacle> {
        if let Some(field) = &source.field_ref {
            return self.field(&field.field_path).map(Some);
        }
        if let Some(resource) = &source.resource_field_ref {
            return resources::value(self.pod, container, resource).map(Some).map_err(Obstacle::config);
        }
        let (kind, name, key, optional, values) = if let Some(r) = &source.config_map_key_ref {
            ("ConfigMap", &r.name, &r.key, r.optional, self.config_map(&r.name).await?)
        } else if let Some(r) = &source.secret_key_ref {
            ("Secret", &r.name, &r.key, r.optional, self.secret(&r.name).await?)
        } else {
            let message = format!(
                "variable {variable}: only fieldRef, resourceFieldRef, secretKeyRef and configMapKeyRef work here"
            );
            return Err(Obstacle::config(message));
        };
        let namespace = self.namespace();
        let found = values.as_ref().map(|values| values.get(key).cloned());
        match found {
            Some(Some(value)) => Ok(Some(value)),
            _ if optional == Some(true) => Ok(None),
            Some(None) => Err(Obstacle::config(format!("couldn't find key {key} in {kind} {namespace}/{name}"))),
            None => Err(Obstacle::config(format!("{} {name:?} not found", kind.to_lowercase()))),
        }
    }

    fn field(&self, path: &str) -> Result<String, Obstacle> {
        let metadata = &self.pod.metadata;
        let entry = |map: &Option<Variables>, start: &str| {
            let key = path.strip_prefix(start)?.strip_suffix("']")?;
            Some(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default())
        };
        Ok(match path {
            "metadata.name" => self.pod.name_any(),
            "metadata.namespace" => self.namespace(),
            "metadata.uid" => self.pod.uid().unwrap_or_default(),
            "status.podIP" | "status.podIPs" => self.address.to_owned(),
            "status.hostIP" | "status.hostIPs" => "127.0.0.1".to_owned(),
            "spec.nodeName" => super::NODE.to_owned(),
            "spec.serviceAccountName" => {
                self.pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()
            }
            _ => entry(&metadata.labels, "metadata.labels['")
                .or_else(|| entry(&metadata.annotations, "metadata.annotations['"))
                .ok_or_else(|| Obstacle::config(format!("fieldRef {path} does not work here")))?,
        })
    }

    /// Where the Services of the namespace are, as every container is told unless the pod does not want to know.
    async fn services(&self) -> Result<Variables, Obstacle> {
        if self.pod.spec.as_ref().and_then(|spec| spec.enable_service_links) == Some(false) {
            return Ok(Variables::new());
        }
        let services = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace(), &service_kind());
        let services = ask(services.list(&ListParams::default())).await;
        let services = services.map_err(|error| Obstacle::config(format!("services: {}", error.sentence())))?;
        Ok(services.items.iter().flat_map(service_links::of).collect())
    }

    async fn config_map(&self, name: &str) -> Result<Values, Obstacle> {
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace());
        match ask(maps.get(name)).await {
            Ok(map) => Ok(Some(map.data.unwrap_or_default())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(Obstacle::config(format!("configmap {name:?}: {}", error.sentence()))),
        }
    }

    /// Values that are no text cannot be put into an environment and are left out.
    async fn secret(&self, name: &str) -> Result<Values, Obstacle> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace());
        match ask(secrets.get(name)).await {
            Ok(secret) => {
                let data = secret.data.unwrap_or_default().into_iter();
                Ok(Some(data.filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?))).collect()))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(Obstacle::config(format!("secret {name:?}: {}", error.sentence()))),
        }
    }

    fn namespace(&self) -> String {
        self.pod.namespace().unwrap_or_default()
    }
}

/// Replaces `$(NAME)` by the variable's value; a name that is not known stays as it is, and `$$` stands for `$`.
fn expand(text: &str, variables: &Variables) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

/// The executable file that a command names: a path, seen from the working folder, or a name in the search path.
pub(super) fn find(name: &str, search: &str, working_dir: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let executable = |path: &PathBuf| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name.contains('/') {
        return Some(working_dir.join(name)).filter(executable);
    }
    let folders = search.split(':').filter(|folder| !folder.is_empty() && !name.is_empty());
    folders.map(|folder| working_dir.join(folder).join(name)).find(executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_the_kubelet_does() {
        let variables = [("A".to_owned(), "1".to_owned())].into();
        let cases = [
            ("$(A)", "1"),
            ("x$(A)y$(B)", "x1y$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A $ $(", "$A $ $("),
            ("a$", "a$"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn a_command_is_looked_for_in_the_path_or_from_the_working_folder() {
        assert_eq!(find("sh", "/nowhere:/bin", Path::new("/")), Some("/bin/sh".into()));
        assert_eq!(find("bin/sh", "", Path::new("/")), Some("/bin/sh".into()));
        assert_eq!(find("sh", "", Path::new("/bin")), None);
        let plain = std::env::temp_dir().join(format!("tidemark-plain-{}", std::process::id()));
        std::fs::write(&plain, "").unwrap();
        let found = find(plain.to_str().unwrap(), "", Path::new("/"));
        std::fs::remove_file(&plain).unwrap();
        assert_eq!(found, None, "a file that is not executable");
    }
}
