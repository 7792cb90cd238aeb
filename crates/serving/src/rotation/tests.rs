//! The rotation at the sandbox's API server, in virtual time.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use tidemark_sandbox::{Options, Sandbox};
use tokio::task::JoinHandle;

use super::trust::{speak, trusts_server};
use super::*;

/// A Secret that Go's libraries made as KEDA makes it: serial numbers 0 and 1, valid from the beginning of 2026.
const OF_KEDA: &str = include_str!("keda-secret.json");
const NAME: &str = "kedaorg-certs";
const SERVED: &str = "v1beta1.external.metrics.k8s.io";
const ALSO_SERVED: &str = "v1alpha1.reasons.tidemark.dev";
/// The name under which the API server asks for metrics.
const ASKED: &str = "keda-metrics-apiserver.keda.svc";

struct World {
    clock: Clock,
    sandbox: Sandbox,
    secrets: Api<Secret>,
    api_services: Api<DynamicObject>,
}

impl World {
    async fn new(start: &str) -> Self {
        let clock = Clock::starting_at(start.parse().unwrap());
        let sandbox = Sandbox::new(clock, Options::default());
        let client = sandbox.client();
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("keda".to_owned());
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let secrets = Api::namespaced(client.clone(), "keda");
        Self { clock, sandbox, secrets, api_services: Api::all_with(client, &api_services()) }
    }

    fn rotation(&self) -> (Rotation, watch::Receiver<Option<Arc<Identity>>>) {
        let settings = Settings {
            namespace: "keda".to_owned(),
            secret: NAME.to_owned(),
            services: ["keda-operator", "keda-metrics-apiserver", "keda-admission-webhooks"].map(str::to_owned).into(),
            domain: "cluster.local".to_owned(),
            api_services: vec![
                ApiService { name: SERVED.to_owned(), expected: true },
                ApiService { name: ALSO_SERVED.to_owned(), expected: false },
            ],
            webhooks: None,
            field_manager: "tidemark".to_owned(),
        };
        Rotation::new(self.sandbox.client(), settings, self.clock)
    }

    fn run(&self) -> (JoinHandle<()>, watch::Receiver<Option<Arc<Identity>>>, CancellationToken) {
        let (rotation, identity) = self.rotation();
        let shutdown = CancellationToken::new();
        (tokio::spawn(rotation.run(shutdown.clone())), identity, shutdown)
    }

    async fn serve_metrics(&self) {
        self.serve(SERVED).await;
    }

    async fn serve(&self, name: &str) {
        let (version, group) = name.split_once('.').unwrap();
        let object = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": name },
            "spec": {
                "group": group, "version": version, "groupPriorityMinimum": 100,
                "versionPriority": 100, "service": { "name": "keda-metrics-apiserver", "namespace": "keda" },
            },
        });
        let object = serde_json::from_value(object).unwrap();
        self.api_services.create(&PostParams::default(), &object).await.unwrap();
    }

    /// The CAs that the API server trusts.
    async fn told(&self) -> String {
        self.told_of(SERVED).await
    }

    async fn told_of(&self, name: &str) -> String {
        let object = self.api_services.get(name).await.unwrap();
        let bundle = object.data["spec"]["caBundle"].as_str().unwrap_or_default();
        String::from_utf8(BASE64.decode(bundle).unwrap()).unwrap()
    }

    async fn put(&self, data: BTreeMap<String, ByteString>) {
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        secret.metadata.name = Some(NAME.to_owned());
        self.secrets.create(&PostParams::default(), &secret).await.unwrap();
    }

    async fn data(&self) -> BTreeMap<String, ByteString> {
        self.secrets.get(NAME).await.unwrap().data.unwrap()
    }

    /// What a process has that mounts the Secret now.
    async fn files(&self) -> Identity {
        let data = self.data().await;
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        Identity { pair: Pair { certificate: text("tls.crt"), key: text("tls.key") }, ca: text("ca.crt") }
    }

    async fn patch(&self, data: Value) {
        let patch = Patch::Merge(json!({ "data": data }));
        self.secrets.patch(NAME, &PatchParams::default(), &patch).await.unwrap();
    }
}

fn of_keda() -> BTreeMap<String, ByteString> {
    let texts: BTreeMap<String, String> = serde_json::from_str(OF_KEDA).unwrap();
    texts.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))).collect()
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

fn in_use(identity: &watch::Receiver<Option<Arc<Identity>>>) -> Identity {
    (*identity.borrow().clone().unwrap()).clone()
}

#[tokio::test(start_paused = true)]
async fn for_eleven_years_after_keda_yesterdays_files_work_with_todays_and_with_the_api_server() {
    let world = World::new("2026-06-01T00:00:00Z").await;
    world.put(of_keda()).await;
    world.serve_metrics().await;
    let (mut rotation, identity) = world.rotation();
    let untouched = world.secrets.get(NAME).await.unwrap();
    assert!(rotation.settle().await.is_empty());
    assert_eq!(world.secrets.get(NAME).await.unwrap(), untouched, "what KEDA made is good as it is");

    let first_authority = world.told().await;
    let (mut leaves, mut authorities) = (Vec::new(), Vec::new());
    // Files and CAs of now, of half a day ago, and of a day ago.
    let mut lately = vec![(world.files().await, first_authority.clone()); 3];
    while world.clock.now() < "2037-06-01T00:00:00Z".parse().unwrap() {
        // Where nothing has changed for a day it is enough to look once a week.
        let settled = lately.iter().all(|state| *state == lately[0]);
        tokio::time::advance(if settled { INTERVAL * 14 } else { INTERVAL }).await;
        assert!(rotation.settle().await.is_empty());
        let now = world.clock.now();
        let (today, told) = (world.files().await, world.told().await);
        assert!(in_use(&identity) == today);
        lately.remove(0);
        lately.push((today.clone(), told.clone()));
        if leaves.last() != Some(&today.pair.certificate) {
            leaves.push(today.pair.certificate.clone());
        }
        if authorities.last() != Some(&today.ca) {
            authorities.push(today.ca.clone());
        }
        for (old, old_told) in &lately {
            speak(old, &today, "keda-operator.keda.svc", now).unwrap();
            speak(&today, old, "keda-operator.keda.svc.cluster.local", now).unwrap();
            trusts_server(old_told, &today, ASKED, now).unwrap();
            trusts_server(&told, old, ASKED, now).unwrap();
        }
    }
    assert!((12..20).contains(&leaves.len()), "{}", leaves.len());
    let count = |bundle: &String| bundle.matches("BEGIN").count();
    let counts: Vec<_> = authorities.iter().map(count).collect();
    assert_eq!(counts, [1, 2, 2, 1], "the next one is told, then it signs, then the old one is forgotten");
    assert!(!authorities[3].contains(first_authority.trim()));
    assert!(!world.data().await.contains_key(NEXT_KEY));
}

#[tokio::test(start_paused = true)]
async fn of_two_operators_that_start_at_once_both_use_what_one_has_stored() {
    for stored in [false, true] {
        let world = World::new("2026-10-15T00:00:00Z").await;
        if stored {
            // Its leaf is due.
            let mut data = of_keda();
            data.insert("note".to_owned(), ByteString(b"mine".to_vec()));
            world.put(data).await;
        }
        let ((mut one, first), (mut other, second)) = (world.rotation(), world.rotation());
        let (done, too) = tokio::join!(one.settle(), other.settle());
        assert!(done.is_empty() && too.is_empty());
        let files = world.files().await;
        assert!(in_use(&first) == files && in_use(&second) == files);
        let data = world.data().await;
        assert_eq!(data.contains_key("note"), stored, "what is not ours stays");
        assert_eq!(data["ca.crt"] == of_keda()["ca.crt"], stored, "the CA is good");
        assert!(data["tls.crt"] != of_keda()["tls.crt"]);
        let labels = world.secrets.get(NAME).await.unwrap().metadata.labels.unwrap_or_default();
        assert_eq!(labels.contains_key("app.kubernetes.io/part-of"), !stored);
    }
}

#[tokio::test(start_paused = true)]
async fn every_api_service_is_told_those_that_come_later_too_and_one_that_is_missing_holds_nothing_up() {
    let world = World::new("2026-06-01T00:00:00Z").await;
    world.serve(SERVED).await;
    let (running, identity, shutdown) = world.run();
    seconds(5).await;
    let ca = in_use(&identity).ca;
    assert_eq!(world.told().await, ca);
    world.serve(ALSO_SERVED).await;
    seconds(5).await;
    assert_eq!((world.told().await, world.told_of(ALSO_SERVED).await), (ca.clone(), ca));
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_damaged_is_repaired_at_once_and_used_without_a_restart() {
    let world = World::new("2026-06-01T00:00:00Z").await;
    let mut data = of_keda();
    data.insert("note".to_owned(), ByteString(b"mine".to_vec()));
    world.put(data).await;
    let (running, identity, shutdown) = world.run();
    seconds(5).await;
    let authority = in_use(&identity).ca;

    for damage in [json!({ "tls.key": BASE64.encode("garbage") }), json!({ "tls.crt": null }), json!({ "tls.crt": "" })]
    {
        let before = in_use(&identity);
        world.patch(damage.clone()).await;
        seconds(5).await;
        let files = world.files().await;
        assert!(in_use(&identity) == files && files.pair != before.pair, "{damage}");
        assert!(files.ca == authority, "{damage}: the CA stays");
        speak(&before, &files, "keda-operator", world.clock.now()).unwrap();
    }

    world.patch(json!({ "ca.key": BASE64.encode("garbage") })).await;
    seconds(5).await;
    let files = world.files().await;
    assert!(in_use(&identity) == files);
    assert!(!files.ca.starts_with(&authority) && files.ca.contains(authority.trim()), "the old CA is trusted on");
    assert_eq!(world.data().await["note"].0, b"mine");
    seconds(2 * 24 * 3600).await;
    assert!(!world.files().await.ca.contains(authority.trim()), "and forgotten when all have new certificates");

    world.secrets.delete(NAME, &kube::api::DeleteParams::default()).await.unwrap();
    seconds(5).await;
    assert!(in_use(&identity) == world.files().await, "a Secret that was deleted is made again");

    // Somebody brings a pair of the same CA: it is used as it is.
    world.secrets.delete(NAME, &kube::api::DeleteParams::default()).await.unwrap();
    world.put(of_keda()).await;
    seconds(5).await;
    assert_eq!(in_use(&identity).ca.trim(), authority.trim());
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_api_service_is_told_when_it_comes_and_whenever_it_forgets() {
    let world = World::new("2026-06-01T00:00:00Z").await;
    let (running, identity, shutdown) = world.run();
    seconds(5).await;
    let authority = in_use(&identity).ca;
    world.serve_metrics().await;
    seconds(5).await;
    assert_eq!(world.told().await, authority);
    for forgotten in [json!(null), json!(BASE64.encode("another"))] {
        let patch = Patch::Merge(json!({ "spec": { "caBundle": forgotten } }));
        world.api_services.patch(SERVED, &PatchParams::default(), &patch).await.unwrap();
        seconds(5).await;
        assert_eq!(world.told().await, authority);
    }
    let told = world.api_services.get(SERVED).await.unwrap();
    seconds(3 * 24 * 3600).await;
    assert_eq!(world.api_services.get(SERVED).await.unwrap(), told, "and otherwise left alone");
    shutdown.cancel();
    running.await.unwrap();
}

#[test]
fn a_next_ca_that_the_bundle_does_not_hold_has_not_been_told_to_anybody() {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let names = Names { common: "a".to_owned(), dns: vec!["a".to_owned()] };
    let mut material = material::renew(None, &names, start).unwrap().unwrap();
    material.next = Some(material::renew(None, &names, start).unwrap().unwrap().authority);
    let mut secret = Secret { data: Some(write(&material)), ..Secret::default() };
    assert!(read(&secret) == Some(material.clone()), "what is written is read");
    secret
        .data
        .as_mut()
        .unwrap()
        .insert("ca.crt".to_owned(), ByteString(material.authority.certificate.clone().into()));
    assert!(read(&secret) == Some(Material { next: None, ..material }));
}
