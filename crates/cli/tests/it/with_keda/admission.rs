//! KEDA's webhooks and ours are asked the same, about the same cluster: what they answer, count and tell.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join;
use kube::Client;
use serde_json::{Value, json};
use tidemark_cli::manifests::{self, Contents};
use tidemark_serving::admission_review::WEBHOOKS;
use tidemark_testkit::{ControlPlane, Options};
use tokio::time::timeout;
use xtask::network::free_ports;

use super::processes::{Keda, Part, install_definitions, objects, programs};
use crate::desk::Desk;
use crate::metrics_table::scrape::Scrape;
use crate::on_control_plane::release::{Ports, Rest};
use crate::webhooks::{send, write_certificate};
use table::Review;

const TOTAL: &str = "keda_webhook_scaled_object_validations_total";
const ERRORS: &str = "keda_webhook_scaled_object_validation_errors_total";
/// The webhooks have 10 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Namespaces that are filled at once.
const AT_ONCE: usize = 8;

/// What a webhook has answered.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    allowed: bool,
    code: Option<u64>,
    reason: String,
    message: String,
    warnings: Vec<String>,
    /// Every fault, where the answer tells them one by one.
    causes: Vec<String>,
}

/// Posts a review.
async fn asked(client: &Client, review: &Review) -> Said {
    let answer = timeout(ANSWER_WITHIN, send(client, "POST", &review.path(), &review.body())).await;
    let answer = answer.unwrap_or_else(|_| panic!("no answer: {}", review.case));
    let said = &answer.body["response"];
    assert_eq!((answer.status, &said["uid"]), (200, &review.request["uid"]), "{}: {}", review.case, answer.body);
    let status = &said["status"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |list: &Value| list.as_array().into_iter().flatten().map(text).collect();
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    Said {
        allowed: said["allowed"] == true,
        code: status["code"].as_u64(),
        reason: text(&status["reason"]),
        message: text(&status["message"]),
        warnings: texts(&said["warnings"]),
        causes: causes.map(|cause| text(&cause["message"])).collect(),
    }
}

/// How ours differs, none where the two say the same: in other words, but about the same things.
fn difference(review: &Review, keda: &Said, ours: &Said) -> Option<String> {
    let told = |said: &Said| match said.allowed {
        true => format!("passes, warnings {:?}", said.warnings),
        false => format!("{} {} {:?}", said.code.unwrap_or_default(), said.reason, said.message),
    };
    let first = |warning: &String| warning.split(' ').next().unwrap_or_default().to_owned();
    let warned = |said: &Said| said.warnings.iter().map(first).collect::<Vec<_>>();
    let same = match (keda.allowed, ours.allowed) {
        (true, true) => warned(keda) == warned(ours),
        (false, false) => {
            (keda.code, &keda.reason) == (ours.code, &ours.reason)
                && (review.either || quoted(&keda.message).iter().all(|word| ours.message.contains(word)))
        }
        _ => false,
    };
    (!same).then(|| format!("KEDA {}; ours {}", told(keda), told(ours)))
}

/// The words of a message that stand in quotes: names and values. What KEDA quotes of a formula is its own rendering.
fn quoted(message: &str) -> Vec<&str> {
    let message = message.split("error validating").next().unwrap_or_default();
    let words = message.split([' ', '\n', ',']).filter_map(|word| {
        let mark = word.chars().next().filter(|mark| matches!(mark, '\'' | '"'))?;
        let word = &word[1..];
        word.rfind(mark).map(|end| &word[..end])
    });
    words.filter(|word| !word.is_empty()).collect()
}

/// The webhooks of both over one control plane.
struct Both {
    desk: Desk,
    keda: Keda,
    /// Clients of KEDA's webhooks and of ours.
    clients: [Client; 2],
    metrics: [u16; 2],
}

impl Both {
    async fn start(plane: &ControlPlane, rest: &Rest) -> Option<Self> {
        let desk = Desk::new();
        write_certificate(&desk);
        let [link, api, hooks, port, metrics] = free_ports().unwrap();
        let certificates = format!("--cert-dir={}", desk.folder().join("certs").display());
        let configure = |_: Part, command: &mut std::process::Command| {
            command.arg(&certificates);
        };
        let keda = Keda::prepare(plane, Ports { link, api, hooks }, configure).await?;
        install_definitions(rest).await;
        keda.run(Part::Webhooks);
        let arguments = [
            "webhooks",
            "--cert-dir=certs",
            &format!("--port={port}"),
            &format!("--metrics-bind-address=127.0.0.1:{metrics}"),
            "--health-probe-bind-address=0",
            &format!("--kubeconfig={}", plane.kubeconfig().display()),
        ];
        desk.spawn("webhooks", &arguments, &[("HOSTNAME", "ours")]);
        keda.until_ready(Part::Webhooks).await;
        let clients = [hooks, port].map(|port| {
            let mut config = kube::Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
            config.accept_invalid_certs = true;
            config.default_retry = false;
            Client::try_from(config).unwrap()
        });
        let metrics = [keda.metrics(Part::Webhooks).port(), metrics];
        Some(Self { desk, keda, clients, metrics })
    }

    async fn answers(&self, review: &Review) -> [Said; 2] {
        join(asked(&self.clients[0], review), asked(&self.clients[1], review)).await.into()
    }

    /// Waits until both have seen all that there is.
    async fn until_all_is_seen(&self, client: &Client, from: usize) {
        for (number, (case, admitted)) in table::last().into_iter().enumerate() {
            let review = table::staged(client, from + number, case).await;
            self.desk
                .until(30, "both have seen the cluster", async || {
                    let answers = self.answers(&review).await;
                    let all = answers.iter().all(|said| said.allowed == admitted);
                    if all { Ok(()) } else { Err(format!("{answers:?}\n{}", self.keda.log(Part::Webhooks))) }
                })
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kedas_webhooks_and_ours_answer_count_and_tell_the_same() {
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = tidemark_operator::client::build(plane.config().await.unwrap()).unwrap();
    let rest = Rest(client.clone());
    let Some(both) = Both::start(&plane, &rest).await else { return };
    let cases = table::all().into_iter().enumerate();
    let staged = cases.map(|(number, case)| table::staged(&client, number, case));
    let reviews: Vec<Review> = futures::stream::iter(staged).buffered(AT_ONCE).collect().await;
    both.until_all_is_seen(&client, reviews.len()).await;

    let (mut wrong, mut known, mut said) = (Vec::new(), BTreeMap::<&str, Vec<String>>::new(), Vec::new());
    for review in &reviews {
        let [keda, ours] = both.answers(review).await;
        let differs = difference(review, &keda, &ours);
        match (&review.differs, &differs) {
            (Some(reason), Some(how)) => known.entry(reason).or_default().push(format!("{}: {how}", review.case)),
            (Some(_), None) => wrong.push(format!("{} does not differ any more", review.case)),
            (None, Some(how)) => wrong.push(format!("{}: {how} (refused before: {:?})", review.case, review.refused)),
            (None, None) => {}
        }
        said.push((review, keda, ours));
    }
    for (reason, how) in &known {
        println!("# {reason}\n  {}", how.join("\n  "));
    }
    println!("{} reviews, {} of them differ as is known", said.len(), known.values().map(Vec::len).sum::<usize>());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), said.len(), wrong.join("\n"));
    let alike: Vec<_> = said.into_iter().filter(|(review, ..)| review.differs.is_none()).collect();
    counted_alike(&both, &alike).await;
    told_alike(&both, &rest, &alike).await;
    lint_says_what_the_webhooks_say(&both.desk, &alike).await;
}

/// Every review alone in its namespace: the series of each are the same, with the same values.
async fn counted_alike(both: &Both, said: &[(&Review, Said, Said)]) {
    let [keda, ours] = [Scrape::of(both.metrics[0]).await, Scrape::of(both.metrics[1]).await];
    for name in [TOTAL, ERRORS] {
        assert_eq!(keda.label_sets(name), ours.label_sets(name));
        assert_eq!(keda.0[name].kind, ours.0[name].kind);
    }
    let mut reasons = BTreeSet::new();
    // What the API server refuses is no more than a proof of strength.
    for (review, _, ours_said) in said.iter().filter(|(review, ..)| review.refused.is_none()) {
        let labels = [("namespace", review.namespace.as_str())];
        assert_eq!(keda.values(TOTAL, &labels), ours.values(TOTAL, &labels), "{}", review.case);
        let of = |scrape: &Scrape| {
            let samples =
                scrape.0[ERRORS].samples.iter().filter(|sample| sample.labels["namespace"] == review.namespace);
            samples.map(|sample| (sample.labels.clone(), sample.value.to_string())).collect::<Vec<_>>()
        };
        // Of several faults KEDA tells any one.
        if ours_said.causes.len() < 2 && !review.either {
            assert_eq!(of(&keda), of(&ours), "{}", review.case);
            reasons.extend(of(&ours).into_iter().map(|(labels, _)| labels["reason"].clone()));
        }
    }
    assert_eq!(reasons.len(), 13, "each reason is counted somewhere: {reasons:?}");
}

/// Each warning is an event as well. KEDA counts the second of an object as the first once more, and ours writes it.
async fn told_alike(both: &Both, rest: &Rest, said: &[(&Review, Said, Said)]) {
    let warned: Vec<_> = said.iter().filter(|(_, keda, _)| keda.allowed && !keda.warnings.is_empty()).collect();
    assert!(warned.len() >= 8, "{}", warned.len());
    both.desk
        .until(20, "both have written their events", async || {
            let events = rest.get("/apis/events.k8s.io/v1/events").await["items"].take();
            for (review, _, ours) in &warned {
                let of = |own: bool| {
                    let events = events.as_array().into_iter().flatten().filter(|event| {
                        let instance = event["reportingInstance"].as_str().unwrap_or_default();
                        event["metadata"]["namespace"] == review.namespace.as_str()
                            && event["reason"] == "KEDAScalerInfo"
                            && (instance == "keda-admission-ours") == own
                    });
                    let fields = ["action", "reason", "type", "reportingController"];
                    let regarding = ["apiVersion", "kind", "namespace", "name", "uid"];
                    let plain = |event: &Value| {
                        (
                            fields.map(|field| event[field].clone()),
                            regarding.map(|field| event["regarding"][field].clone()),
                        )
                    };
                    events.map(plain).collect::<Vec<_>>()
                };
                let [keda, own] = [of(false), of(true)];
                // A trial is told to the writer only.
                let count = if review.is_dry_run() { 0 } else { ours.warnings.len() };
                let same = own.iter().all(|event| keda.contains(event));
                if own.len() != count || !same {
                    return Err(format!("{}: {own:?} and KEDA's {keda:?}", review.case));
                }
            }
            Ok(())
        })
        .await;
}

/// What of a refusal depends on what only a cluster knows.
fn needs_a_cluster(fault: &str) -> bool {
    fault.starts_with("no matches for kind") || fault.starts_with("cpu and memory triggers need the pods")
}

/// The same objects in a file: lint has every fault that the webhooks have, and says something of what the definitions
/// refuse.
async fn lint_says_what_the_webhooks_say(desk: &Desk, said: &[(&Review, Said, Said)]) {
    let named = |review: &Review| !review.request["object"]["metadata"]["name"].is_null();
    let said: Vec<_> = said.iter().filter(|(review, ..)| review.is_creation() && named(review)).collect();
    let mut documents = Vec::new();
    for (number, (review, ..)) in said.iter().enumerate() {
        for object in review.given.iter().chain([&review.request["object"]]) {
            let mut object = object.clone();
            match object["kind"].as_str().unwrap().starts_with("Cluster") {
                true => {
                    object["metadata"]["name"] =
                        format!("{}-{number}", object["metadata"]["name"]).replace('"', "").into()
                }
                false => object["metadata"]["namespace"] = review.namespace.as_str().into(),
            }
            documents.push(object.to_string());
        }
    }
    desk.write("all.yaml", &documents.join("\n---\n"));
    let output = desk.tidemark(&["lint", "-f", "all.yaml", "--output=json"], &[]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut wrong = Vec::new();
    for (number, (review, _, ours)) in said.iter().enumerate() {
        let object = &review.request["object"];
        let cluster = object["kind"].as_str().unwrap().starts_with("Cluster");
        let name = object["metadata"]["name"].as_str().unwrap();
        let name = if cluster { format!("{name}-{number}") } else { name.to_owned() };
        let mut found = report["documents"].as_array().unwrap().iter().filter(|document| {
            let here = cluster || document["namespace"] == review.namespace.as_str();
            here && document["kind"] == object["kind"] && document["name"] == name.as_str()
        });
        let document = found.next_back().unwrap_or_else(|| panic!("lint has nothing of {}", review.case));
        let triggers = document["triggers"].as_array().into_iter().flatten();
        let errors =
            [document].into_iter().chain(triggers).flat_map(|part| part["errors"].as_array().into_iter().flatten());
        let errors: Vec<_> = errors.map(|error| error["message"].as_str().unwrap()).collect();
        let lacking = ours.causes.iter().find(|fault| !needs_a_cluster(fault) && !errors.contains(&fault.as_str()));
        if let Some(fault) = lacking.filter(|_| review.refused.is_none()) {
            wrong.push(format!("{}: lint does not say {fault:?}, but {errors:?}", review.case));
        }
        if !ours.allowed && review.refused.is_some() && errors.is_empty() {
            wrong.push(format!("{}: lint says nothing", review.case));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), said.len(), wrong.join("\n"));
}

/// The registrations of KEDA's manifests, and ours: the same webhooks with the same rules.
#[tokio::test]
async fn the_webhooks_are_registered_as_kedas() {
    let Some(folder) = programs() else { return };
    let mut kedas = objects(&folder.join("config/webhooks/validation_webhooks.yaml"));
    let kedas = kedas[0]["webhooks"].take();
    let output = Desk::new().tidemark(&["manifests", "--keda-names"], &[]).await;
    let mut contents = Contents::default();
    manifests::parse("manifests".as_ref(), &String::from_utf8(output.stdout).unwrap(), &mut contents);
    let ours = contents.manifests.into_iter().map(|manifest| manifest.object);
    let mut ours = ours.filter(|object| object["kind"] == "ValidatingWebhookConfiguration");
    let mut ours = ours.next().unwrap()["webhooks"].take();
    for webhook in ours.as_array_mut().unwrap() {
        // The API server's defaults, which KEDA's manifests write out.
        webhook["namespaceSelector"] = json!({});
        webhook["objectSelector"] = json!({});
    }
    assert_eq!(ours, kedas);
    assert_eq!(ours.as_array().unwrap().len(), WEBHOOKS.len());
}
