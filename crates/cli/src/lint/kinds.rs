//! Which objects are ours, and which are meant to be.

use tidemark_admission::{KINDS, Path};
use tidemark_api::{EVENTING_GROUP, GROUP, VERSION};
use tidemark_trigger::nearest::nearest;

/// What an object is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Of no concern but for references to it.
    Other,
    /// Of a kind of ours.
    Ours { group: &'static str, kind: &'static str },
    /// Nobody serves it, though it looks like ours. The field at fault, and the message.
    Mistaken(Path, String),
}

/// The group of KEDA 1, whose objects look like today's.
const OLD_GROUP: &str = "keda.k8s.io";

/// What an object of this kind is to us.
pub fn standing(api_version: &str, kind: &str) -> Standing {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let known = KINDS.iter().find(|(_, known)| *known == kind);
    if group != GROUP && group != EVENTING_GROUP {
        let Some((right, _)) = known else { return Standing::Other };
        let meant = group.is_empty() || group == OLD_GROUP || nearest(group, [GROUP, EVENTING_GROUP]).is_some();
        return if meant { wrong_version(api_version, kind, right) } else { Standing::Other };
    }
    match known {
        Some((right, _)) if *right != group || version != VERSION => wrong_version(api_version, kind, right),
        Some((group, kind)) => Standing::Ours { group, kind },
        None => {
            let hint = nearest(kind, KINDS.iter().map(|(_, known)| *known));
            let hint = hint.map(|near| format!(", did you mean {near}?")).unwrap_or_default();
            Standing::Mistaken(Path::of(["kind"]), format!("there is no kind {kind} in {api_version}{hint}"))
        }
    }
}

fn wrong_version(api_version: &str, kind: &str, group: &str) -> Standing {
    let message = format!("there is no kind {kind} in {api_version}, did you mean {group}/{VERSION}?");
    Standing::Mistaken(Path::of(["apiVersion"]), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_to_be_ours_is_told_from_what_is_not() {
        let ours = |group, kind| Standing::Ours { group, kind };
        assert_eq!(standing("keda.sh/v1alpha1", "ScaledJob"), ours(GROUP, "ScaledJob"));
        assert_eq!(standing("eventing.keda.sh/v1alpha1", "CloudEventSource"), ours(EVENTING_GROUP, "CloudEventSource"));
        for (api_version, kind) in [
            ("apps/v1", "Deployment"),
            ("example.com/v1", "ScaledObject"),
            ("http.keda.sh/v1alpha1", "HTTPScaledObject"),
        ] {
            assert_eq!(standing(api_version, kind), Standing::Other, "{api_version} {kind}");
        }
        for (api_version, kind, path, hint) in [
            ("keda.sh/v1", "ScaledObject", "apiVersion", "keda.sh/v1alpha1?"),
            ("keda.k8s.io/v1alpha1", "ScaledObject", "apiVersion", "keda.sh/v1alpha1?"),
            ("kede.sh/v1alpha1", "ScaledJob", "apiVersion", "keda.sh/v1alpha1?"),
            ("v1", "ScaledJob", "apiVersion", "keda.sh/v1alpha1?"),
            ("keda.sh/v1alpha1", "CloudEventSource", "apiVersion", "eventing.keda.sh/v1alpha1?"),
            ("keda.sh/v1alpha1", "ScaledObjct", "kind", "ScaledObject?"),
            ("keda.sh/v1alpha1", "Zebra", "kind", "keda.sh/v1alpha1"),
        ] {
            let Standing::Mistaken(at, message) = standing(api_version, kind) else { panic!("{api_version} {kind}") };
            assert_eq!(at.to_string(), path);
            assert!(message.ends_with(hint), "{message}");
        }
    }
}
