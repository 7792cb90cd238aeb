//! `resourceFieldRef`: requests and limits as values of variables.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use tidemark_engine::quantity;

/// The value of a container's request or limit in units of the divisor, rounded up. Without a limit it is what this machine
/// has.
///
/// # Errors
/// Another container or resource is meant than there is, or a number is none.
pub(super) fn value(pod: &Pod, own: &Container, field: &ResourceFieldSelector) -> Result<String, String> {
    let container = match field.container_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => {
            let spec = pod.spec.as_ref();
            let mut all = spec.into_iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
            all.find(|container| container.name == name).ok_or_else(|| format!("container {name} is not in the pod"))?
        }
        None => own,
    };
    let (side, resource) = field.resource.split_once('.').unwrap_or(("", &field.resource));
    if !matches!(side, "limits" | "requests") || !matches!(resource, "cpu" | "memory") {
        return Err(format!("resourceFieldRef {} does not work here", field.resource));
    }
    let resources = container.resources.as_ref();
    let amounts = match side {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        _ => resources.and_then(|resources| resources.requests.as_ref()),
    };
    let milli = |text: &str| quantity::parse_milli(text).ok_or_else(|| format!("{text:?} is not a quantity"));
    let amount = match amounts.and_then(|amounts| amounts.get(resource)) {
        Some(amount) => milli(&amount.0)?,
        None if side == "requests" => 0,
        None => machine(resource),
    };
    let divisor = field.divisor.as_ref().map(|divisor| milli(&divisor.0)).transpose()?;
    let divisor = divisor.filter(|divisor| *divisor > 0).unwrap_or(1000);
    // Rounded up.
    Ok((amount / divisor + i64::from(amount % divisor > 0)).to_string())
}

/// What this machine has of a resource, in thousandths.
fn machine(resource: &str) -> i64 {
    if resource == "cpu" {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        return i64::try_from(cores).unwrap_or(1) * 1000;
    }
    // Where there is no such file nothing is known, and nothing promised.
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<i64>().ok()).unwrap_or(0);
    kibibytes.saturating_mul(1024 * 1000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_and_limits_are_divided_and_rounded_up() {
        let container: Container = serde_json::from_value(json!({
            "name": "main", "resources": { "requests": { "cpu": "250m", "memory": "100Mi" }, "limits": { "cpu": "1500m" } },
        }))
        .unwrap();
        let value = |resource: &str, divisor: Option<&str>| {
            let field = json!({ "resource": resource, "divisor": divisor });
            value(&Pod::default(), &container, &serde_json::from_value(field).unwrap())
        };
        assert_eq!(value("requests.cpu", None).unwrap(), "1");
        assert_eq!(value("requests.cpu", Some("1m")).unwrap(), "250");
        assert_eq!(value("limits.cpu", Some("0")).unwrap(), "2");
        assert_eq!(value("requests.memory", Some("1Mi")).unwrap(), "100");
        assert!(value("limits.memory", None).unwrap().parse::<i64>().is_ok());
        assert!(value("limits.ephemeral-storage", None).is_err());
    }
}
