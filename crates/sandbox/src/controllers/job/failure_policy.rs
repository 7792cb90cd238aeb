//! What the failure of a pod means to its Job: `spec.podFailurePolicy`.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use serde_json::Value;

/// What becomes of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts towards the backoff limit.
    Counts,
    /// It does not count.
    Ignored,
    /// It ends the Job; the message says which rule it was.
    EndsJob(String),
}

/// One rule; the first that fits decides.
pub(super) struct Rule(Value);

impl Rule {
    pub(super) fn all(rules: &Value) -> Vec<Self> {
        rules.as_array().into_iter().flatten().cloned().map(Self).collect()
    }

    /// What the failed pod fits, in words.
    fn fits(&self, pod: &Pod, number: usize) -> Option<String> {
        let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        let codes = &self.0["onExitCodes"];
        if !codes.is_null() {
            let (container, code) = exit_codes(pod).find(|(container, code)| {
                let named = codes["containerName"].as_str().is_none_or(|name| name == container.name);
                let listed = codes["values"].as_array().into_iter().flatten().any(|value| *value == *code);
                named && *code != 0 && listed == (codes["operator"] != "NotIn")
            })?;
            return Some(format!(
                "Container {} for pod {name} failed with exit code {code} matching {} rule at index {number}",
                container.name,
                self.0["action"].as_str().unwrap_or_default()
            ));
        }
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let wanted = self.0["onPodConditions"].as_array().into_iter().flatten();
        let found = wanted.into_iter().find(|wanted| {
            let status = wanted["status"].as_str().unwrap_or("True");
            conditions.iter().any(|found| wanted["type"] == *found.type_ && found.status == status)
        })?;
        Some(format!(
            "Pod {name} has condition {} matching {} rule at index {number}",
            found["type"].as_str().unwrap_or_default(),
            self.0["action"].as_str().unwrap_or_default()
        ))
    }
}

/// The verdict of the rules on a failed pod.
pub(super) fn judge(rules: &[Rule], pod: &Pod) -> Verdict {
    let decided = rules.iter().enumerate().find_map(|(number, rule)| Some((rule, rule.fits(pod, number)?)));
    match decided {
        Some((rule, message)) if rule.0["action"] == "FailJob" => Verdict::EndsJob(message),
        Some((rule, _)) if rule.0["action"] == "Ignore" => Verdict::Ignored,
        _ => Verdict::Counts,
    }
}

fn exit_codes(pod: &Pod) -> impl Iterator<Item = (&ContainerStatus, i32)> {
    let status = pod.status.as_ref();
    let first = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let main = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    first
        .iter()
        .chain(main)
        .filter_map(|container| Some((container, container.state.as_ref()?.terminated.as_ref()?.exit_code)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn failed(code: i32) -> Pod {
        let pod = json!({
            "metadata": { "name": "work-1", "namespace": "shop" },
            "status": {
                "phase": "Failed",
                "conditions": [{ "type": "DisruptionTarget", "status": "True" }],
                "containerStatuses": [{
                    "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": { "terminated": { "exitCode": code } },
                }],
            },
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = Rule::all(&json!([
            { "action": "FailJob", "onExitCodes": { "containerName": "main", "operator": "In", "values": [42] } },
            { "action": "Count", "onExitCodes": { "operator": "NotIn", "values": [7] } },
            { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
        ]));
        let message = "Container main for pod shop/work-1 failed with exit code 42 matching FailJob rule at index 0";
        assert_eq!(judge(&rules, &failed(42)), Verdict::EndsJob(message.to_owned()));
        assert_eq!(judge(&rules, &failed(1)), Verdict::Counts);
        assert_eq!(judge(&rules, &failed(7)), Verdict::Ignored);
        assert_eq!(judge(&rules[..1], &failed(7)), Verdict::Counts);
    }
}
