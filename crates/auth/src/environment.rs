//! The environment of a scale target's container, as its pods would see it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, PodSpec};
use tidemark_trigger::Secret;

use crate::AuthError;
use crate::expansion::expand;
use crate::objects::{Kind, Objects, describe};

/// The most bytes of all names and values together. No more can be given to a process on Linux.
const LIMIT: usize = 6 * 1024 * 1024;

/// The container of that name, or the first one. `None` when the pod has none at all. Only ordinary containers count.
///
/// # Errors
/// There is no container of that name.
pub(crate) fn container<'a>(pod: &'a PodSpec, name: Option<&str>) -> Result<Option<&'a Container>, AuthError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(pod.containers.first()) };
    if pod.containers.is_empty() {
        return Ok(None);
    }
    let found = pod.containers.iter().find(|container| container.name == name);
    found.map(Some).ok_or_else(|| AuthError::UnknownContainer(name.to_owned()))
}

/// Resolves a container's variables: those of `envFrom` first, then `env` in its order, later ones over earlier ones.
/// A source that only a running pod has (`fieldRef` and the like) leaves its variable out, and so does a Secret when
/// `secrets` is false.
///
/// # Errors
/// An object that is needed is missing or cannot be read; the environment is larger than any process could have.
pub(crate) async fn resolve(
    objects: &mut Objects<'_>,
    namespace: &str,
    container: &Container,
    secrets: bool,
) -> Result<BTreeMap<String, Secret>, AuthError> {
    let mut env = Environment { variables: BTreeMap::new(), left: LIMIT, container };
    for source in container.env_from.iter().flatten() {
        let Some((kind, name, optional)) = whole(source) else { continue };
        if kind == Kind::Secret && !secrets {
            continue;
        }
        match objects.data(kind, namespace, name).await? {
            Some(data) => {
                let prefix = source.prefix.as_deref().unwrap_or_default();
                for (key, text) in data.iter() {
                    let Some(text) = text else { continue };
                    env.set(format!("{prefix}{key}"), text.clone())?;
                }
            }
            None if optional => {}
            None => return Err(missing(kind, namespace, name, container)),
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (variable.value.as_deref().unwrap_or_default(), &variable.value_from) {
            ("", Some(source)) => {
                let Some((kind, name, key, optional)) = entry(source) else { continue };
                if kind == Kind::Secret && !secrets {
                    continue;
                }
                match objects.data(kind, namespace, name).await? {
                    Some(data) => data.get(key).cloned().flatten().unwrap_or_default(),
                    None if optional => continue,
                    None => return Err(missing(kind, namespace, name, container)),
                }
            }
            (text, _) => {
                let expanded = expand(text, env.left, |name| env.variables.get(name).map(Secret::expose));
                Secret::from(expanded.ok_or_else(|| too_large(container))?)
            }
        };
        env.set(variable.name.clone(), value)?;
    }
    Ok(env.variables)
}

/// The variables so far, and how many bytes may still come.
struct Environment<'a> {
    variables: BTreeMap<String, Secret>,
    left: usize,
    container: &'a Container,
}

impl Environment<'_> {
    fn set(&mut self, name: String, value: Secret) -> Result<(), AuthError> {
        let size = name.len() + value.expose().len();
        self.left = self.left.checked_sub(size).ok_or_else(|| too_large(self.container))?;
        self.variables.insert(name, value);
        Ok(())
    }
}

fn too_large(container: &Container) -> AuthError {
    AuthError::EnvironmentTooLarge(container.name.clone())
}

/// The object of an `envFrom` entry, and whether it may be missing.
fn whole(source: &EnvFromSource) -> Option<(Kind, &str, bool)> {
    if let Some(map) = &source.config_map_ref {
        return Some((Kind::ConfigMap, &map.name, map.optional.unwrap_or(false)));
    }
    let secret = source.secret_ref.as_ref()?;
    Some((Kind::Secret, &secret.name, secret.optional.unwrap_or(false)))
}

/// The object and key of a `valueFrom`, and whether the object may be missing.
fn entry(source: &EnvVarSource) -> Option<(Kind, &str, &str, bool)> {
    if let Some(secret) = &source.secret_key_ref {
        return Some((Kind::Secret, &secret.name, &secret.key, secret.optional.unwrap_or(false)));
    }
    let map = source.config_map_key_ref.as_ref()?;
    Some((Kind::ConfigMap, &map.name, &map.key, map.optional.unwrap_or(false)))
}

fn missing(kind: Kind, namespace: &str, name: &str, container: &Container) -> AuthError {
    AuthError::MissingForContainer { object: describe(kind, namespace, name), container: container.name.clone() }
}
