//! What a manifest can ask for and a process of this machine does not get.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Volumes that every pod may name, mounted here by nobody and missed by nobody.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/";

/// The wishes that are not fulfilled, in words, without what changes nothing for a process.
pub(super) fn wishes(spec: &PodSpec) -> Vec<&'static str> {
    let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
    let any = |wish: fn(&Container) -> bool| containers().any(wish);
    let context = spec.security_context.as_ref();
    let user = context.is_some_and(|context| {
        context.run_as_user.is_some()
            || context.run_as_group.is_some()
            || context.run_as_non_root == Some(true)
            || context.supplemental_groups.is_some()
            || context.sysctls.is_some()
    });
    let table = [
        (any(mounts), "volumeMounts (processes see the files of this machine)"),
        (any(|container| container.volume_devices.is_some()), "volumeDevices"),
        (user || any(security), "securityContext (processes run as the user who runs this)"),
        (any(limits), "resource limits"),
        (any(post_start), "lifecycle.postStart"),
        (any(|container| container.stdin == Some(true) || container.tty == Some(true)), "stdin and tty"),
        (any(host_ports), "hostPort (a process listens where it wants to)"),
        (spec.active_deadline_seconds.is_some(), "activeDeadlineSeconds of a pod"),
        (
            spec.host_aliases.is_some() || spec.dns_config.is_some(),
            "hostAliases and dnsConfig (this machine's names count)",
        ),
        (spec.node_selector.is_some() || spec.affinity.is_some(), "nodeSelector and affinity (there is one node)"),
        (spec.runtime_class_name.is_some(), "runtimeClassName"),
        (spec.share_process_namespace == Some(true), "shareProcessNamespace"),
    ];
    table.into_iter().filter(|(wished, _)| *wished).map(|(_, wish)| wish).collect()
}

fn mounts(container: &Container) -> bool {
    container.volume_mounts.iter().flatten().any(|mount| !mount.mount_path.starts_with(SERVICE_ACCOUNT))
}

fn security(container: &Container) -> bool {
    container.security_context.as_ref().is_some_and(|context| {
        context.run_as_user.is_some()
            || context.run_as_group.is_some()
            || context.run_as_non_root == Some(true)
            || context.privileged == Some(true)
            || context.read_only_root_filesystem == Some(true)
            || context.capabilities.is_some()
    })
}

fn limits(container: &Container) -> bool {
    container.resources.as_ref().is_some_and(|resources| resources.limits.is_some())
}

fn post_start(container: &Container) -> bool {
    container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some())
}

fn host_ports(container: &Container) -> bool {
    container.ports.iter().flatten().any(|port| port.host_port.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn only_what_changes_something_is_told() {
        let wishes = |spec| super::wishes(&serde_json::from_value(spec).unwrap()).join("; ");
        let plain = json!({
            "securityContext": {}, "volumes": [{ "name": "unused", "emptyDir": {} }],
            "containers": [{ "name": "main", "resources": { "requests": { "cpu": "1" } }, "volumeMounts": [
                { "name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" },
            ] }],
        });
        assert_eq!(wishes(plain), "");
        let wild = json!({
            "securityContext": { "runAsUser": 1000 }, "activeDeadlineSeconds": 5,
            "containers": [{ "name": "main", "volumeMounts": [{ "name": "data", "mountPath": "/data" }], "tty": true }],
        });
        let told = wishes(wild);
        for word in ["volumeMounts", "securityContext", "stdin and tty", "activeDeadlineSeconds"] {
            assert!(told.contains(word), "{told}");
        }
    }
}
