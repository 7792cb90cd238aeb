//! KEDA's own operator in the same cluster.

use std::collections::BTreeSet;

use anyhow::bail;
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use tidemark_clock::Clock;
use tidemark_operator::leader::LeaseSettings;

/// What our own Deployments carry, under whatever names they are installed.
pub const OWN_LABEL: &str = "tidemark.dev/component";
/// What KEDA's Deployment carries, whoever installed it.
const KEDA: &str = "app.kubernetes.io/name=keda-operator";
/// Who writes our own Leases.
const OWN_MANAGER: &str = "tidemark";

const REMEDY: &str = "two operators would undo each other's work. Scale the other one to zero first; or share its Lease \
    with --leader-elect, --leader-election-id and POD_NAMESPACE, and Tidemark takes over when it goes; or look without \
    writing with --dry-run; or, if they never see the same objects, start with --beside-keda";

/// Refuses to start beside an operator of KEDA's that runs: both would write the same objects. One that shares the Lease
/// is no hindrance: whoever holds it works, and the other one waits.
///
/// Its Deployment is looked for where this operator has rights: in all namespaces, or in those of `watched` and in the
/// installations' own.
///
/// # Errors
/// There is such an operator.
pub async fn refuse(
    client: &Client,
    lease: &LeaseSettings,
    elects: bool,
    watched: &[String],
    clock: Clock,
) -> anyhow::Result<()> {
    for deployment in deployments(client, lease, watched).await {
        if is_running(&deployment) && !shares_lease(&deployment, lease, elects) {
            let (namespace, name) = (deployment.namespace().unwrap_or_default(), deployment.name_any());
            bail!("KEDA's operator runs in this cluster (Deployment {namespace}/{name}): {REMEDY}");
        }
    }
    // One that runs by other means than a Deployment, or where this one may not look, is told by its Lease.
    let own = (lease.namespace.as_str(), lease.name.as_str());
    let kedas = LeaseSettings::default();
    let kedas = (kedas.namespace.as_str(), kedas.name.as_str());
    let places = [own, (own.0, kedas.1), kedas];
    for (namespace, name) in places.into_iter().filter(|place| !(elects && *place == own)) {
        let found = Api::<Lease>::namespaced(client.clone(), namespace).get_opt(name).await;
        let Some(found) = found.unwrap_or_default() else { continue };
        let Some(holder) = live_holder(&found, clock) else { continue };
        // Other installations of Tidemark have Leases of their own, and their own objects.
        if (namespace, name) == own || !is_ours(&found) {
            bail!("an operator runs in this cluster ({holder} holds the Lease {namespace}/{name}): {REMEDY}");
        }
    }
    Ok(())
}

/// Deployments that may be KEDA's operator, as far as the role of this one allows to look.
async fn deployments(client: &Client, lease: &LeaseSettings, watched: &[String]) -> Vec<Deployment> {
    let params = ListParams::default().labels(KEDA);
    if watched.is_empty()
        && let Ok(found) = Api::<Deployment>::all(client.clone()).list(&params).await
    {
        return found.items;
    }
    let kedas = LeaseSettings::default().namespace;
    let places: BTreeSet<_> = [&lease.namespace, &kedas].into_iter().chain(watched).collect();
    let mut all = Vec::new();
    for namespace in places {
        match Api::<Deployment>::namespaced(client.clone(), namespace).list(&params).await {
            Ok(found) => all.extend(found.items),
            Err(error) => tracing::debug!(namespace, "cannot look for KEDA: {error}"),
        }
    }
    all
}

fn is_running(deployment: &Deployment) -> bool {
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    ready > 0 && !deployment.labels().contains_key(OWN_LABEL)
}

/// Whether KEDA's operator waits for the same Lease.
fn shares_lease(deployment: &Deployment, lease: &LeaseSettings, elects: bool) -> bool {
    let containers = deployment.spec.template.spec.iter().flat_map(|pod| &pod.containers);
    let arguments: Vec<&str> =
        containers.flat_map(|container| container.args.iter().flatten()).map(String::as_str).collect();
    let id = arguments.iter().find_map(|argument| argument.strip_prefix("--leader-election-id="));
    let they_elect = arguments.iter().any(|argument| matches!(*argument, "--leader-elect" | "--leader-elect=true"));
    let same_place = deployment.namespace().as_deref() == Some(&lease.namespace);
    elects && they_elect && same_place && id.unwrap_or("operator.keda.sh") == lease.name
}

/// Who holds a Lease, if it was renewed lately.
fn live_holder(lease: &Lease, clock: Clock) -> Option<&str> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
    let age = clock.now().duration_since(spec.renew_time.as_ref()?.0);
    let duration = SignedDuration::from_secs(spec.lease_duration_seconds?.into());
    (age < duration).then_some(holder)
}

/// Whether a Tidemark was the last to renew a Lease.
fn is_ours(lease: &Lease) -> bool {
    let renews = |fields: &serde_json::Value| fields.pointer("/f:spec/f:renewTime").is_some();
    lease.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() == Some(OWN_MANAGER)
            && entry.fields_v1.as_ref().is_some_and(|fields| renews(&fields.0))
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    fn keda(arguments: &[&str]) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "keda-operator", "namespace": "keda"},
            "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "keda-operator", "args": arguments}]}}},
            "status": {"readyReplicas": 1},
        }))
        .unwrap()
    }

    #[test]
    fn only_one_that_shares_the_lease_is_waited_for() {
        let lease = LeaseSettings { namespace: "keda".to_owned(), ..LeaseSettings::default() };
        assert!(is_running(&keda(&[])));
        assert!(shares_lease(&keda(&["--leader-elect"]), &lease, true));
        assert!(!shares_lease(&keda(&["--leader-elect"]), &lease, false), "we do not wait");
        assert!(!shares_lease(&keda(&[]), &lease, true), "KEDA does not wait");
        assert!(!shares_lease(&keda(&["--leader-elect", "--leader-election-id=other"]), &lease, true));
        let elsewhere = LeaseSettings { namespace: "tidemark".to_owned(), ..lease };
        assert!(!shares_lease(&keda(&["--leader-elect"]), &elsewhere, true));
    }

    #[tokio::test(start_paused = true)]
    async fn who_watches_namespaces_looks_in_these_in_its_own_and_in_kedas() {
        let asked = async |watched: &[&str]| {
            let paths = Arc::<Mutex<Vec<String>>>::default();
            let seen = paths.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                seen.lock().unwrap().push(request.uri().path().to_owned());
                let list = json!({"kind": "DeploymentList", "apiVersion": "apps/v1", "metadata": {}, "items": []});
                async move { Ok::<_, Infallible>(Response::new(Body::from(list.to_string().into_bytes()))) }
            });
            let lease = LeaseSettings { namespace: "system".to_owned(), ..LeaseSettings::default() };
            let watched: Vec<_> = watched.iter().map(|name| (*name).to_owned()).collect();
            deployments(&Client::new(service, "default"), &lease, &watched).await;
            paths.lock().unwrap().clone()
        };
        let of = |namespace: &str| format!("/apis/apps/v1/namespaces/{namespace}/deployments");
        assert_eq!(asked(&[]).await, ["/apis/apps/v1/deployments"]);
        assert_eq!(asked(&["shop", "keda", "a"]).await, ["a", "keda", "shop", "system"].map(of));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_tells_who_runs_until_it_is_over_or_given_back() {
        let clock = Clock::starting_at("2026-01-05T08:00:10Z".parse().unwrap());
        let lease = |holder: &str, renewed: &str, manager: &str| -> Lease {
            serde_json::from_value(json!({
                "metadata": {"managedFields": [
                    {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {"f:renewTime": {}}}},
                ]},
                "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed},
            }))
            .unwrap()
        };
        let live = lease("keda-1_a", "2026-01-05T08:00:00.000000Z", "keda");
        assert_eq!((live_holder(&live, clock), is_ours(&live)), (Some("keda-1_a"), false));
        assert!(is_ours(&lease("tidemark-1_a", "2026-01-05T08:00:00.000000Z", "tidemark")));
        assert_eq!(live_holder(&lease("keda-1_a", "2026-01-05T07:59:50.000000Z", "keda"), clock), None);
        assert_eq!(live_holder(&lease("", "2026-01-05T08:00:00.000000Z", "keda"), clock), None);
    }
}
