//! References to workloads.

use std::fmt;

use serde_json::Value;

/// A reference to a workload, defaults applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Group and version, `apps/v1` unless given.
    pub api_version: String,
    /// `Deployment` unless given.
    pub kind: String,
    pub name: String,
}

impl Workload {
    /// The target of a ScaledObject or HorizontalPodAutoscaler; `None` where it names none.
    pub fn scaled_by(object: &Value) -> Option<Self> {
        let reference = &object["spec"]["scaleTargetRef"];
        let text = |field: &str| reference[field].as_str().filter(|text| !text.is_empty());
        Some(Self {
            api_version: text("apiVersion").unwrap_or("apps/v1").to_owned(),
            kind: text("kind").unwrap_or("Deployment").to_owned(),
            name: text("name")?.to_owned(),
        })
    }

    /// Whether a ScaledObject or HorizontalPodAutoscaler of the same namespace scales this workload.
    pub(crate) fn is_scaled_by(&self, object: &Value) -> bool {
        // Most scale another one, which its name tells without more ado.
        object["spec"]["scaleTargetRef"]["name"] == *self.name && Self::scaled_by(object).as_ref() == Some(self)
    }

    /// Whether it is of a kind whose pod template is looked at.
    pub fn has_pods(&self) -> bool {
        self.api_version == "apps/v1" && matches!(self.kind.as_str(), "Deployment" | "StatefulSet")
    }

    /// Whether its kind is one that no discovery is asked for, whatever its group: as with KEDA, an object may come before
    /// the definition of its target's kind.
    pub fn is_well_known(&self) -> bool {
        matches!(self.kind.as_str(), "Deployment" | "StatefulSet") && self.api_version.matches('/').count() < 2
    }

    /// Group, version and kind as KEDA writes them, such as `apps/v1.Deployment`; `/v1.Pod` in the core group.
    pub fn type_name(&self) -> String {
        let core = if self.api_version.contains('/') { "" } else { "/" };
        format!("{core}{}.{}", self.api_version, self.kind)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_text_counts_as_unset() {
        let workload = |reference: Value| Workload::scaled_by(&json!({"spec": {"scaleTargetRef": reference}}));
        let plain = workload(json!({"name": "web"})).unwrap();
        assert_eq!(plain.type_name(), "apps/v1.Deployment");
        assert_eq!(workload(json!({"name": "web", "kind": "", "apiVersion": ""})).unwrap(), plain);
        assert_eq!(workload(json!({"name": ""})), None);
        assert_eq!(workload(json!({"name": "x", "kind": "Pod", "apiVersion": "v1"})).unwrap().type_name(), "/v1.Pod");
    }

    #[test]
    fn deployments_and_statefulsets_of_any_group_are_known() {
        let known = |api_version: &str, kind: &str| {
            let workload = Workload { api_version: api_version.into(), kind: kind.into(), name: "web".into() };
            (workload.is_well_known(), workload.has_pods())
        };
        assert_eq!(known("apps/v1", "Deployment"), (true, true));
        assert_eq!(known("apps.kruise.io/v1beta1", "StatefulSet"), (true, false));
        assert_eq!(known("apps/v1", "deployment"), (false, false));
        assert_eq!(known("a/b/c", "Deployment"), (false, false));
    }
}
