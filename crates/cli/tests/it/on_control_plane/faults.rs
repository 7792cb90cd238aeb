//! What happens to an installation in a cluster's life.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::installation::{Installation, NAMESPACE, OPERATORS, SECRET, SERVERS, store};

/// A dead leader is followed within the Lease's duration and a retry period, with KEDA's times; then the successor reads
/// the cluster and the metrics server finds it. The rest is for slow machines.
const TAKEN_OVER: Duration = Duration::from_secs(17 + 8);
/// Everybody has come back after the API server or etcd was away, a Lease that was lost included.
const BACK: Duration = Duration::from_secs(60);
/// Processes look at their files every ten seconds.
const FILES_SEEN: Duration = Duration::from_secs(14);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workloads_do_not_notice_a_killed_leader_and_an_api_server_that_starts_again() {
    let Some(mut installation) = Installation::start().await else { return };
    a_leader_is_killed(&installation).await;
    the_api_server_starts_again(&mut installation).await;
    installation.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workloads_do_not_notice_new_certificates_and_an_etcd_that_hangs() {
    let Some(installation) = Installation::start().await else { return };
    certificates_are_replaced(&installation).await;
    all_certificates_are_lost(&installation).await;
    etcd_hangs(&installation).await;
    installation.end().await;
}

async fn a_leader_is_killed(installation: &Installation) {
    let leader = installation.leader().await;
    installation.swing(true);
    installation.forget();
    sleep(Duration::from_secs(6)).await;
    assert_eq!(installation.failed_reads().0, [""; 0]);
    installation.kill(leader);
    let killed = Instant::now();
    installation
        .until("another one leads", TAKEN_OVER, async || match installation.leader().await {
            other if other != leader => Ok(()),
            _ => Err("the dead one still does".to_owned()),
        })
        .await;
    let left = TAKEN_OVER.saturating_sub(killed.elapsed());
    installation.until("metrics are read again", left, async || installation.is_read().await).await;
    println!("a killed leader: the last read failed after {:?}", installation.read_again_after(killed));
    installation.follow(25, Duration::from_secs(30)).await;
    installation.release(leader);
    installation
        .until("it stands by", Duration::from_secs(30), async || {
            let log = installation.log(leader);
            if log.contains("standing by") { Ok(()) } else { Err(log) }
        })
        .await;
    assert!(installation.leader().await != leader);
}

async fn the_api_server_starts_again(installation: &mut Installation) {
    installation.swing(true);
    let killed = Instant::now();
    installation.restart_apiserver(Duration::from_secs(3)).await;
    installation.until("metrics are read again", BACK, async || installation.is_read().await).await;
    println!("a restarted API server: the last read failed after {:?}", installation.read_again_after(killed));
    installation.until("admission judges again", BACK, async || installation.refuses().await).await;
    installation.follow(45, BACK).await;
}

async fn stored(secrets: &Api<Secret>, key: &str) -> Option<String> {
    let secret = secrets.get_opt(SECRET).await.ok()??;
    let ByteString(value) = secret.data?.remove(key)?;
    String::from_utf8(value).ok()
}

/// The CA hands over to the one that everybody trusts already; then the certificate of all services has gone, and the
/// operator makes another one. Everything goes on meanwhile: no read fails, and no bad object passes.
async fn certificates_are_replaced(installation: &Installation) {
    let secrets: Api<Secret> = Api::namespaced(installation.client.clone(), NAMESPACE);
    assert_eq!(stored(&secrets, "tls.crt").await.as_ref(), Some(&installation.certificates.pair.certificate));
    installation.swing(true);
    installation.forget();
    let next = &installation.next_certificates;
    store(&installation.client, next, &installation.certificates).await;
    keeps_refusing(installation, FILES_SEEN).await;
    assert_eq!(
        stored(&secrets, "tls.crt").await.as_ref(),
        Some(&next.pair.certificate),
        "the operator takes it as it is"
    );

    secrets.patch(SECRET, &PatchParams::default(), &Patch::Merge(json!({"data": {"tls.crt": null}}))).await.unwrap();
    keeps_refusing(installation, FILES_SEEN).await;
    let made = stored(&secrets, "tls.crt").await.expect("the operator has made one");
    assert_ne!(made, next.pair.certificate);
    let authorities = stored(&secrets, "ca.crt").await.unwrap();
    assert!(authorities.starts_with(next.authority.certificate.trim()), "{authorities}");
    for name in SERVERS {
        let log = installation.log(name);
        assert!(log.matches("new certificates are in use").count() >= 2, "{name}: {log}");
    }
    let (failed, reads) = installation.failed_reads();
    assert!(failed.is_empty() && reads > 100, "{failed:?} of {reads}");
}

async fn keeps_refusing(installation: &Installation, during: Duration) {
    let end = Instant::now() + during;
    while Instant::now() < end {
        installation.refuses().await.unwrap();
        sleep(Duration::from_millis(200)).await;
    }
}

/// The Secret is deleted: there is a new CA, and nobody trusts the old one's certificates any more. Workloads stay as they
/// are until everybody has the new ones.
async fn all_certificates_are_lost(installation: &Installation) {
    let secrets: Api<Secret> = Api::namespaced(installation.client.clone(), NAMESPACE);
    let before = stored(&secrets, "ca.crt").await;
    let lost = Instant::now();
    secrets.delete(SECRET, &DeleteParams::default()).await.unwrap();
    installation
        .until("there is another CA", Duration::from_secs(20), async || {
            let now = stored(&secrets, "ca.crt").await;
            if now.is_some() && now != before { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    sleep(FILES_SEEN).await;
    installation.until("metrics are read again", BACK, async || installation.is_read().await).await;
    installation.until("admission judges again", BACK, async || installation.refuses().await).await;
    println!("lost certificates: the last read failed after {:?}", installation.read_again_after(lost));
    installation.follow(25, Duration::from_secs(30)).await;
    assert_eq!(OPERATORS.map(|name| installation.starts(name)), [1, 1], "nobody starts again for certificates");
}

async fn etcd_hangs(installation: &Installation) {
    installation.swing(true);
    sleep(Duration::from_secs(3)).await;
    installation.plane.pause_etcd().unwrap();
    sleep(Duration::from_secs(30)).await;
    installation.plane.continue_etcd().unwrap();
    let continued = Instant::now();
    installation.until("metrics are read again", BACK, async || installation.is_read().await).await;
    println!("an etcd that hung: the last read failed after {:?}", installation.read_again_after(continued));
    installation.until("admission judges again", BACK, async || installation.refuses().await).await;
    installation.follow(45, BACK).await;
}
