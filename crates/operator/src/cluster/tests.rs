use std::convert::Infallible;
use std::future::pending;
use std::sync::Mutex;

use http::Response;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// What a server was asked: the target, and the form that was wanted.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// A cluster whose API server gives these answers in turn, the last one for ever.
fn cluster(answers: &[(u16, Value)]) -> (KubeCluster, Asked) {
    let (asked, answers) = (Asked::default(), answers.to_vec());
    let log = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let mut log = log.lock().unwrap();
        let (status, body) = answers[log.len().min(answers.len() - 1)].clone();
        let accept = request.headers()[ACCEPT].to_str().unwrap().to_owned();
        log.push((request.uri().to_string(), accept));
        let response = Response::builder().status(status).body(Body::from(body.to_string().into_bytes())).unwrap();
        async move { Ok::<_, Infallible>(response) }
    });
    (KubeCluster::new(Client::new(service, "default"), Duration::from_secs(5)), asked)
}

fn refusal(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "R", "code": code})
}

#[tokio::test(start_paused = true)]
async fn pods_are_counted_by_the_rows_of_a_table_from_the_cache() {
    let row = json!({"cells": ["a", "1/1"], "object": null});
    let (cluster, asked) = cluster(&[(200, json!({"kind": "Table", "metadata": {}, "rows": [row, row]}))]);
    assert_eq!(cluster.live_pods("shop", "app in (a, b),!old").await, Ok(2));
    let target = "/api/v1/namespaces/shop/pods?labelSelector=app+in+%28a%2C+b%29%2C%21old\
                  &fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed&resourceVersion=0\
                  &includeObject=None";
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    assert_eq!(*asked.lock().unwrap(), [(target.to_owned(), accept.to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn each_node_is_named_once_and_a_list_in_pieces_is_read_to_its_end() {
    let pod = |node: &str| json!({"metadata": {"name": "x"}, "spec": {"nodeName": node, "containers": []}});
    let first = json!({"metadata": {"continue": "a b"}, "items": [pod("n1"), pod("n2"), {"spec": {}}]});
    let second = json!({"metadata": {"continue": ""}, "items": [pod("n1"), pod("")]});
    let (cluster, asked) = cluster(&[(200, first), (200, second)]);
    let nodes = cluster.nodes_of_live_pods("shop", "app=a").await.unwrap();
    assert_eq!(nodes.iter().map(|node| &**node).collect::<Vec<_>>(), ["n1", "n2"]);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].0.ends_with("&continue=a+b"), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn endpoints_carry_the_ports_of_their_slice_and_are_ready_unless_they_say_no() {
    let slice = json!({"metadata": {"name": "web-1"}, "addressType": "IPv4", "ports": [{"port": 8080}, {"name": "x"}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {}},
                      {"addresses": ["10.0.0.2", "10.0.0.3"], "conditions": {"ready": false}}]});
    let bare = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["pod.example"]}], "ports": null});
    let (cluster, asked) = cluster(&[(200, json!({"metadata": {}, "items": [slice, bare]}))]);
    let endpoint =
        |address: &str, ready, ports: &[u16]| ServiceEndpoint { address: address.into(), ready, ports: ports.into() };
    let expected = [
        endpoint("10.0.0.1", true, &[8080]),
        endpoint("10.0.0.2", false, &[8080]),
        endpoint("10.0.0.3", false, &[8080]),
        endpoint("pod.example", true, &[]),
    ];
    assert_eq!(cluster.service_endpoints("shop", "web").await.unwrap(), expected);
    let target = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices\
                  ?labelSelector=kubernetes.io%2Fservice-name%3Dweb&resourceVersion=0";
    assert_eq!(asked.lock().unwrap()[0].0, target);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_its_kind_and_says_what_to_grant() {
    for (code, kind) in [
        (401, ErrorKind::Authentication),
        (403, ErrorKind::Authentication),
        (404, ErrorKind::MissingResource),
        (500, ErrorKind::Refused),
        (504, ErrorKind::TimedOut),
    ] {
        let (cluster, _) = cluster(&[(code, refusal(code, "no"))]);
        let error = cluster.live_pods("shop", "a").await.unwrap_err();
        assert_eq!(error.kind, kind, "{code}");
        assert!(error.message.starts_with("list of pods with a in namespace shop: no"), "{error}");
    }
    let (cluster, _) = cluster(&[(403, refusal(403, "user x cannot list"))]);
    let error = cluster.service_endpoints("shop", "web").await.unwrap_err();
    assert!(
        error.message.ends_with(
            "user x cannot list; grant the operator's ServiceAccount the verb list on endpointslices.discovery.k8s.io \
             in namespace shop"
        ),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_list_is_a_bad_reply() {
    let pod = json!({"spec": {"nodeName": 7, "containers": [{"env": [{"value": "hunter2"}]}]}});
    let (cluster, _) = cluster(&[(200, json!({"metadata": {}, "items": [pod]}))]);
    let error = cluster.nodes_of_live_pods("shop", "a").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadReply);
    assert!(!error.message.contains("hunter2"), "{error}");
    let (cluster, _) = self::cluster(&[(200, json!({"metadata": {}}))]);
    assert_eq!(cluster.live_pods("shop", "a").await.unwrap_err().kind, ErrorKind::BadReply);
    let (cluster, _) = self::cluster(&[(200, json!({"metadata": {}, "rows": null}))]);
    assert_eq!(cluster.live_pods("shop", "a").await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up_on() {
    let service = tower::service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
    let cluster = KubeCluster::new(Client::new(service, "default"), Duration::from_secs(5));
    let error = cluster.live_pods("shop", "a").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
}
