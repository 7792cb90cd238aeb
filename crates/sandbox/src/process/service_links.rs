//! The variables that tell a container where a Service is: `SHOP_SERVICE_HOST` and its like.

use kube::ResourceExt;
use kube::core::DynamicObject;

/// The variables of one Service; none when it has no address of its own.
pub(super) fn of(service: &DynamicObject) -> Vec<(String, String)> {
    let spec = &service.data["spec"];
    let address = spec["clusterIP"].as_str().filter(|address| !matches!(*address, "" | "None"));
    let (Some(address), Some(ports)) = (address, spec["ports"].as_array()) else { return Vec::new() };
    let name = shell_name(&service.name_any());
    let mut variables = vec![(format!("{name}_SERVICE_HOST"), address.to_owned())];
    for (index, port) in ports.iter().enumerate() {
        let Some(number) = port["port"].as_u64() else { continue };
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let url = format!("{}://{address}:{number}", protocol.to_lowercase());
        if index == 0 {
            variables.push((format!("{name}_SERVICE_PORT"), number.to_string()));
            variables.push((format!("{name}_PORT"), url.clone()));
        }
        if let Some(of_port) = port["name"].as_str().filter(|name| !name.is_empty()) {
            variables.push((format!("{name}_SERVICE_PORT_{}", shell_name(of_port)), number.to_string()));
        }
        let prefix = format!("{name}_PORT_{number}_{protocol}");
        variables.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        variables.push((format!("{prefix}_PORT"), number.to_string()));
        variables.push((format!("{prefix}_ADDR"), address.to_owned()));
        variables.push((prefix, url));
    }
    variables
}

fn shell_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn variables(spec: serde_json::Value) -> BTreeMap<String, String> {
        let service = json!({ "metadata": { "name": "my-shop" }, "spec": spec });
        of(&serde_json::from_value(service).unwrap()).into_iter().collect()
    }

    #[test]
    fn host_and_ports_have_the_names_that_programs_expect() {
        let ports = json!([{ "port": 80 }, { "port": 81, "name": "admin-ui" }]);
        let variables = variables(json!({ "clusterIP": "127.96.0.5", "ports": ports }));
        assert_eq!(variables["MY_SHOP_SERVICE_HOST"], "127.96.0.5");
        assert_eq!((&*variables["MY_SHOP_SERVICE_PORT"], &*variables["MY_SHOP_SERVICE_PORT_ADMIN_UI"]), ("80", "81"));
        assert_eq!(variables["MY_SHOP_PORT_81_TCP"], "tcp://127.96.0.5:81");
    }

    #[test]
    fn a_headless_service_has_no_variables() {
        assert!(variables(json!({ "clusterIP": "None", "ports": [{ "port": 80 }] })).is_empty());
    }
}
