use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use k8s_openapi::api::core::v1::PodSpec;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tidemark_api::{AuthenticationKind, AuthenticationRef};

use super::*;

/// An API server that holds these objects, by path, and the paths that were asked for.
#[derive(Clone, Default)]
struct Server {
    objects: BTreeMap<String, Value>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn with(mut self, path: &str, object: Value) -> Self {
        self.objects.insert(path.to_owned(), object);
        self
    }

    fn secret(self, namespace: &str, name: &str, data: &[(&str, &str)]) -> Self {
        let data: BTreeMap<&str, &str> = data.iter().copied().collect();
        self.with(
            &format!("/api/v1/namespaces/{namespace}/secrets/{name}"),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}),
        )
    }

    fn config_map(self, namespace: &str, name: &str, data: &[(&str, &str)]) -> Self {
        let data: BTreeMap<&str, &str> = data.iter().copied().collect();
        self.with(
            &format!("/api/v1/namespaces/{namespace}/configmaps/{name}"),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}),
        )
    }

    /// The TriggerAuthentication `auth` in namespace `shop`.
    fn authentication(self, spec: Value) -> Self {
        let kind = "TriggerAuthentication";
        self.with(
            "/apis/keda.sh/v1alpha1/namespaces/shop/triggerauthentications/auth",
            json!({"apiVersion": "keda.sh/v1alpha1", "kind": kind, "metadata": {"name": "auth"}, "spec": spec}),
        )
    }

    /// The ClusterTriggerAuthentication `auth`.
    fn cluster_authentication(self, spec: Value) -> Self {
        let kind = "ClusterTriggerAuthentication";
        self.with(
            "/apis/keda.sh/v1alpha1/clustertriggerauthentications/auth",
            json!({"apiVersion": "keda.sh/v1alpha1", "kind": kind, "metadata": {"name": "auth"}, "spec": spec}),
        )
    }

    fn resolver(&self, settings: Settings) -> Resolver {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let (status, body) = match server.objects.get(&path) {
                Some(object) if object["code"].is_u64() => (object["code"].as_u64().unwrap() as u16, object.clone()),
                Some(object) => (200, object.clone()),
                None => (404, status(404, "NotFound", "there is none")),
            };
            server.asked.lock().unwrap().push(path);
            let response = Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
            async move { Ok::<_, Infallible>(response.unwrap()) }
        });
        Resolver::new(Client::new(service, "default"), settings)
    }

    async fn resolve(&self, pod: Option<&PodSpec>) -> Result<Resolved, AuthError> {
        self.resolver(Settings::default()).resolve("shop", &reference(), pod).await
    }

    async fn resolve_cluster(&self, settings: Settings) -> Result<Resolved, AuthError> {
        self.resolver(settings).resolve("shop", &cluster_reference(), None).await
    }

    async fn env(&self, pod: &PodSpec, container: Option<&str>) -> Result<BTreeMap<String, String>, AuthError> {
        self.resolver(Settings::default()).container_env("shop", pod, container).await.map(|env| shown(&env))
    }
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message})
}

fn cluster_reference() -> AuthenticationRef {
    AuthenticationRef { kind: Some(AuthenticationKind::ClusterTriggerAuthentication), ..reference() }
}

fn reference() -> AuthenticationRef {
    AuthenticationRef { name: "auth".to_owned(), ..AuthenticationRef::default() }
}

fn key(parameter: &str, name: &str, key: &str) -> Value {
    json!({"parameter": parameter, "name": name, "key": key})
}

fn pod(containers: Value) -> PodSpec {
    serde_json::from_value(json!({"containers": containers})).unwrap()
}

fn shown(values: &BTreeMap<String, tidemark_trigger::Secret>) -> BTreeMap<String, String> {
    values.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn parameters_come_from_secrets_config_maps_and_the_environment() {
    let server = Server::default()
        .secret("shop", "broker", &[("url", "YW1xcDovL2E6YkBob3N0Lw=="), ("user", "YQ==")])
        .config_map("shop", "settings", &[("vhost", "orders")])
        .authentication(json!({
            "secretTargetRef": [key("host", "broker", "url"), key("user", "broker", "user")],
            "configMapTargetRef": [key("vhostName", "settings", "vhost")],
            "env": [{"parameter": "queue", "name": "QUEUE"}]
        }));
    let pod = pod(json!([{"name": "worker", "env": [{"name": "QUEUE", "value": "orders-1"}]}]));
    let resolved = server.resolve(Some(&pod)).await.unwrap();
    let expected = [("host", "amqp://a:b@host/"), ("queue", "orders-1"), ("user", "a"), ("vhostName", "orders")];
    assert_eq!(shown(&resolved.parameters), map(&expected));
    assert_eq!((resolved.missing.as_slice(), resolved.pod_identity), ([].as_slice(), None));
    let reads = server.asked.lock().unwrap().iter().filter(|path| path.ends_with("secrets/broker")).count();
    assert_eq!(reads, 1, "an object is read once for all of its keys");
}

#[tokio::test]
async fn what_is_missing_is_an_empty_parameter_and_is_named() {
    let server = Server::default().secret("shop", "broker", &[("bytes", "/w==")]).authentication(json!({
        "secretTargetRef": [
            key("a", "gone", "url"), key("b", "broker", "url"), key("c", "broker", "bytes"), key("d", "", "url"),
        ],
        "configMapTargetRef": [key("e", "nothing", "x")],
        "env": [{"parameter": "f", "name": "QUEUE"}]
    }));
    let pod = pod(json!([{"name": "worker"}]));
    let resolved = server.resolve(Some(&pod)).await.unwrap();
    let names = ["a", "b", "c", "d", "e", "f"].map(|name| (name, ""));
    assert_eq!(shown(&resolved.parameters), map(&names));
    assert_eq!(
        resolved.missing,
        [
            "environment variable QUEUE of the scale target: container \"worker\" does not set it",
            "ConfigMap shop/nothing does not exist",
            "Secret shop/gone does not exist",
            "Secret shop/broker has no key \"url\"",
            "Secret shop/broker: the value of \"bytes\" is not UTF-8 text",
            "parameter d needs both the name and the key of a Secret",
        ]
    );
}

#[tokio::test]
async fn a_later_source_overwrites_an_earlier_one_even_with_nothing() {
    let server = Server::default()
        .config_map("shop", "settings", &[("host", "from-map"), ("user", "from-map")])
        .secret("shop", "broker", &[("host", "ZnJvbS1zZWNyZXQ=")])
        .authentication(json!({
            "configMapTargetRef": [key("host", "settings", "host"), key("user", "settings", "user")],
            "secretTargetRef": [key("host", "broker", "host"), key("user", "broker", "user")]
        }));
    let resolved = server.resolve(None).await.unwrap();
    assert_eq!(shown(&resolved.parameters), map(&[("host", "from-secret"), ("user", "")]));
    assert!(resolved.missing[0].ends_with("this empties user, which an earlier source has set"));
}

#[tokio::test]
async fn a_missing_authentication_is_named_and_gives_nothing() {
    let resolved = Server::default().resolve(None).await.unwrap();
    assert!(resolved.parameters.is_empty());
    assert_eq!(resolved.missing, ["TriggerAuthentication shop/auth does not exist"]);
}

#[tokio::test]
async fn a_rotated_secret_is_seen_by_the_next_call() {
    let spec = json!({"secretTargetRef": [key("host", "broker", "host")]});
    let old = Server::default().secret("shop", "broker", &[("host", "b2xk")]).authentication(spec);
    assert_eq!(shown(&old.resolve(None).await.unwrap().parameters), map(&[("host", "old")]));
    let new = old.clone().secret("shop", "broker", &[("host", "bmV3")]);
    assert_eq!(shown(&new.resolve(None).await.unwrap().parameters), map(&[("host", "new")]));
}

#[tokio::test]
async fn a_refused_read_is_an_error_and_no_empty_parameter() {
    let path = "/api/v1/namespaces/shop/secrets/broker";
    let server = Server::default()
        .with(path, status(403, "Forbidden", "secrets is forbidden"))
        .authentication(json!({"secretTargetRef": [key("host", "broker", "host")]}));
    let error = server.resolve(None).await.unwrap_err();
    assert_eq!(error.to_string(), "Secret shop/broker could not be read: secrets is forbidden");
}

#[tokio::test]
async fn a_refused_read_for_the_environment_is_an_error_and_no_empty_parameter() {
    let path = "/api/v1/namespaces/shop/secrets/broker";
    let server = Server::default()
        .with(path, status(500, "InternalError", "etcd is away"))
        .authentication(json!({"env": [{"parameter": "password", "name": "PASSWORD"}]}));
    let pod = pod(json!([{"name": "worker", "envFrom": [{"secretRef": {"name": "broker"}}]}]));
    let error = server.resolve(Some(&pod)).await.unwrap_err();
    assert_eq!(error.to_string(), "Secret shop/broker could not be read: etcd is away");
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_not_quoted() {
    let path = "/api/v1/namespaces/shop/secrets/broker";
    let server = Server::default()
        .with(path, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": "hunter2"}))
        .authentication(json!({"secretTargetRef": [key("host", "broker", "host")]}));
    let error = server.resolve(None).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_text_that_is_no_name_never_becomes_part_of_a_path() {
    for name in ["../../../kube-system/secrets/token", "..", "a?b", "a%2fb", "a b"] {
        let spec = json!({"secretTargetRef": [key("host", name, "host")]});
        let server = Server::default().authentication(spec);
        assert_eq!(server.resolve(None).await.unwrap().missing, [format!("Secret shop/{name} does not exist")]);
        assert_eq!(server.asked.lock().unwrap().len(), 1, "only the authentication itself was asked for");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_up_on() {
    let service = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let settings = Settings { request_timeout: Duration::from_secs(3), ..Settings::default() };
    let resolver = Resolver::new(Client::new(service, "default"), settings);
    let error = resolver.resolve("shop", &reference(), None).await.unwrap_err();
    assert_eq!(error.to_string(), "TriggerAuthentication shop/auth could not be read: no answer within 3 s");
}

#[tokio::test]
async fn a_cluster_authentication_reads_the_cluster_object_namespace() {
    let server = Server::default()
        .secret("tidemark", "broker", &[("host", "aG9zdA==")])
        .cluster_authentication(json!({"secretTargetRef": [key("host", "broker", "host")]}));
    let settings = Settings { cluster_object_namespace: Some("tidemark".to_owned()), ..Settings::default() };
    let resolved = server.resolve_cluster(settings).await.unwrap();
    assert_eq!(shown(&resolved.parameters), map(&[("host", "host")]));
    let error = server.resolve_cluster(Settings::default()).await.unwrap_err();
    let object = "ClusterTriggerAuthentication auth".to_owned();
    assert_eq!(error, AuthError::NoClusterObjectNamespace { object });
}

#[tokio::test]
async fn restricted_access_keeps_other_namespaces_secrets_unread() {
    let server = Server::default()
        .secret("shop", "broker", &[("host", "aG9zdA==")])
        .authentication(json!({"secretTargetRef": [key("host", "broker", "host")]}));
    let restricted = |namespace: &str| Settings {
        cluster_object_namespace: Some(namespace.to_owned()),
        restrict_secret_access: true,
        ..Settings::default()
    };
    let error = server.resolver(restricted("tidemark")).resolve("shop", &reference(), None).await.unwrap_err();
    assert!(matches!(error, AuthError::Restricted { .. }), "{error}");
    let pod = pod(json!([{
        "name": "worker",
        "envFrom": [{"secretRef": {"name": "broker"}}],
        "env": [
            {"name": "HOST", "valueFrom": {"secretKeyRef": {"name": "broker", "key": "host"}}},
            {"name": "PLAIN", "value": "$(HOST)"}
        ]
    }]));
    let env = server.resolver(restricted("tidemark")).container_env("shop", &pod, None).await.unwrap();
    assert_eq!(shown(&env), map(&[("PLAIN", "$(HOST)")]));
    assert!(!server.asked.lock().unwrap().iter().any(|path| path.contains("/secrets/")));

    let resolved = server.resolver(restricted("shop")).resolve("shop", &reference(), None).await.unwrap();
    assert_eq!(shown(&resolved.parameters), map(&[("host", "host")]));
}

#[tokio::test]
async fn a_source_that_cannot_be_read_yet_is_refused_by_name() {
    let secrets = json!([{"parameter": "host", "path": "a", "key": "b", "name": "c", "id": "d"}]);
    for (spec, field) in [
        (
            json!({"hashiCorpVault": {"address": "http://v", "authentication": "token", "secrets": secrets}}),
            "spec.hashiCorpVault",
        ),
        (json!({"azureKeyVault": {"vaultUri": "https://v", "secrets": secrets}}), "spec.azureKeyVault"),
        (json!({"azureServicePrincipal": {"clientId": "c", "tenantId": "t"}}), "spec.azureServicePrincipal"),
        (json!({"gcpSecretManager": {"secrets": secrets}}), "spec.gcpSecretManager"),
        (json!({"awsSecretManager": {"secrets": secrets}}), "spec.awsSecretManager"),
        (
            json!({"boundServiceAccountToken": [{"parameter": "t", "serviceAccountName": "s"}]}),
            "spec.boundServiceAccountToken",
        ),
        (json!({"oauth2": {"type": "clientCredentials", "clientId": "c", "tokenUrl": "https://t"}}), "spec.oauth2"),
        (json!({"podIdentity": {"provider": "aws-eks"}}), "spec.podIdentity.provider: aws-eks"),
        (
            json!({"podIdentity": {"provider": "aws", "identityOwner": "workload"}}),
            "spec.podIdentity.identityOwner: workload",
        ),
    ] {
        let error = Server::default().authentication(spec).resolve(None).await.unwrap_err();
        let object = "TriggerAuthentication shop/auth".to_owned();
        assert_eq!(error, AuthError::Unsupported { object, field });
    }
}

#[tokio::test]
async fn the_pod_identity_is_recorded() {
    // Only AWS knows another owner of an identity.
    let gcp = json!({"podIdentity": {"provider": "gcp", "identityOwner": "workload"}});
    let resolved = Server::default().authentication(gcp).resolve(None).await.unwrap();
    assert_eq!(resolved.pod_identity.as_deref(), Some("gcp"));
    for (provider, recorded) in [("none", None), ("azure-workload", Some("azure-workload")), ("aws", Some("aws"))] {
        let server = Server::default().authentication(json!({"podIdentity": {"provider": provider}}));
        assert_eq!(server.resolve(None).await.unwrap().pod_identity.as_deref(), recorded);
    }
    let role = json!({"podIdentity": {"provider": "aws", "roleArn": "arn:aws:iam::1:role/r"}});
    let resolved = Server::default().authentication(role).resolve(None).await.unwrap();
    assert_eq!(shown(&resolved.parameters), map(&[("awsRoleArn", "arn:aws:iam::1:role/r")]));
}

#[tokio::test]
async fn an_identity_that_contradicts_itself_is_refused() {
    for identity in [
        json!({"provider": "aws", "roleArn": "arn", "identityOwner": "workload"}),
        json!({"provider": "azure-workload", "identityId": ""}),
    ] {
        let error = Server::default().authentication(json!({"podIdentity": identity})).resolve(None).await.unwrap_err();
        assert!(matches!(error, AuthError::Invalid { .. }), "{error}");
    }
}

#[tokio::test]
async fn the_environment_source_never_stops_a_resolution() {
    let spec = json!({"env": [{"parameter": "host", "name": "HOST", "containerName": "other"}]});
    let server = Server::default().authentication(spec);
    let pod = pod(json!([{"name": "worker"}]));
    let unknown = server.resolve(Some(&pod)).await.unwrap();
    assert!(unknown.missing[0].contains("no container \"other\""), "{:?}", unknown.missing);
    assert_eq!(shown(&unknown.parameters), map(&[("host", "")]));
    let none = server.resolve(None).await.unwrap();
    assert!(none.missing[0].contains("no pod template"), "{:?}", none.missing);
}

#[tokio::test]
async fn a_container_sees_env_from_first_and_env_over_it() {
    let server = Server::default().config_map("shop", "first", &[("HOST", "one"), ("PORT", "1")]).secret(
        "shop",
        "second",
        &[("HOST", "dHdv"), ("BYTES", "/w==")],
    );
    let pod = pod(json!([{
        "name": "worker",
        "envFrom": [
            {"configMapRef": {"name": "first"}},
            {"secretRef": {"name": "second"}},
            {"prefix": "P_", "configMapRef": {"name": "first"}},
            {"configMapRef": {"name": "absent", "optional": true}}
        ],
        "env": [
            {"name": "PORT", "value": "2"},
            {"name": "URL", "value": "$(HOST):$(PORT)/$(LATER)"},
            {"name": "LATER", "valueFrom": {"secretKeyRef": {"name": "second", "key": "HOST"}}},
            {"name": "EMPTY"},
            {"name": "NO_KEY", "valueFrom": {"configMapKeyRef": {"name": "first", "key": "absent"}}},
            {"name": "SKIPPED", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "x", "optional": true}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
        ]
    }]));
    let expected = [
        ("EMPTY", ""),
        ("HOST", "two"),
        ("LATER", "two"),
        ("NO_KEY", ""),
        ("PORT", "2"),
        ("P_HOST", "one"),
        ("P_PORT", "1"),
        ("URL", "two:2/$(LATER)"),
    ];
    assert_eq!(server.env(&pod, None).await.unwrap(), map(&expected));
}

#[tokio::test]
async fn a_container_is_taken_by_name_or_the_first_one() {
    let containers = json!([
        {"name": "a", "env": [{"name": "X", "value": "1"}]},
        {"name": "b", "env": [{"name": "X", "value": "2"}]}
    ]);
    let pod = pod(containers);
    let server = Server::default();
    assert_eq!(server.env(&pod, None).await.unwrap(), map(&[("X", "1")]));
    assert_eq!(server.env(&pod, Some("b")).await.unwrap(), map(&[("X", "2")]));
    assert_eq!(server.env(&pod, Some("c")).await.unwrap_err(), AuthError::UnknownContainer("c".to_owned()));
    assert_eq!(server.env(&self::pod(json!([])), None).await.unwrap(), map(&[]));
}

#[tokio::test]
async fn a_container_whose_needs_are_missing_has_no_environment() {
    for needs in [
        json!({"name": "worker", "envFrom": [{"secretRef": {"name": "gone"}}]}),
        json!({"name": "worker", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "a"}}}]}),
    ] {
        let error = Server::default().env(&pod(json!([needs])), None).await.unwrap_err();
        let expected = AuthError::MissingForContainer { object: "Secret shop/gone".into(), container: "worker".into() };
        assert_eq!(error, expected);
    }
}

#[tokio::test]
async fn variables_that_double_with_each_line_do_not_eat_the_memory() {
    let doubling = |i: usize| json!({"name": format!("V{i}"), "value": format!("$(V{0})$(V{0})", i - 1)});
    let first = [json!({"name": "V0", "value": "x"})];
    let env: Vec<Value> = first.into_iter().chain((1..64).map(doubling)).collect();
    let error = Server::default().env(&pod(json!([{"name": "worker", "env": env}])), None).await.unwrap_err();
    assert_eq!(error, AuthError::EnvironmentTooLarge("worker".to_owned()));

    let wide = json!([{"name": "V0", "value": "x".repeat(1 << 20)}, {"name": "V1", "value": "$(V0)".repeat(1 << 16)}]);
    let error = Server::default().env(&pod(json!([{"name": "worker", "env": wide}])), None).await.unwrap_err();
    assert_eq!(error, AuthError::EnvironmentTooLarge("worker".to_owned()));
}

#[tokio::test]
async fn environment_references_resolve_as_the_conformance_cases_say() {
    let path = "../../../shared/conformance/engine/util.json";
    if !Path::new(path).exists() {
        let required = std::env::var("TIDEMARK_REQUIRE_CONFORMANCE").is_ok_and(|value| value == "1");
        assert!(!required, "{path} not found");
        println!("SKIPPED: {path} not found");
        return;
    }
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut seen = 0;
    for case in cases.iter().filter(|case| case["op"] == "resolveEnv") {
        let pod = pod(json!([{"name": "worker", "env": case["given"]["env"]}]));
        let env = Server::default().env(&pod, None).await.unwrap();
        let expected: BTreeMap<String, String> = serde_json::from_value(case["expect"]["env"].clone()).unwrap();
        assert_eq!(env, expected, "{}", case["id"]);
        seen += 1;
    }
    assert!(seen > 0, "no case of resolveEnv");
}

/// A folder with a file of parameters, and a resolver that may read it.
fn with_file(name: &str, text: &str, server: &Server) -> (std::path::PathBuf, Resolver) {
    let root = std::env::temp_dir().join(format!("tidemark-auth-{}-{name}", std::process::id()));
    std::fs::create_dir_all(root.join("team")).unwrap();
    std::fs::write(root.join("team/a.json"), text).unwrap();
    let resolver = server.resolver(Settings { file_root: Some(root.clone()), ..Settings::default() });
    (root, resolver)
}

#[tokio::test]
async fn a_file_gives_its_parameters_and_no_other_source_counts() {
    let server = Server::default().cluster_authentication(json!({
        "filePath": "team/a.json",
        "podIdentity": {"provider": "gcp"},
        "env": [{"parameter": "host", "name": "HOST"}],
        "secretTargetRef": [{"parameter": "token", "name": "none", "key": "none"}],
    }));
    let (root, resolver) = with_file("whole", r#"{"host": "h", "password": "hunter2"}"#, &server);
    let resolved = resolver.resolve("shop", &cluster_reference(), None).await.unwrap();
    assert_eq!(shown(&resolved.parameters), map(&[("host", "h"), ("password", "hunter2")]));
    assert_eq!(resolved.pod_identity.as_deref(), Some("gcp"));
    assert!(resolved.missing.is_empty());
    std::fs::remove_dir_all(root).unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_and_shows_nothing_of_its_text() {
    for (path, text, cause) in [
        ("none.json", "{}", "No such file"),
        ("team", "{}", "it is not a file"),
        ("../a.json", "{}", "relative path"),
        ("/etc/hostname", "{}", "relative path"),
        ("team/a.json", "hunter2", "not a JSON object of texts"),
        ("team/a.json", r#"{"password": 12345}"#, "not a JSON object of texts"),
    ] {
        let server = Server::default().cluster_authentication(json!({"filePath": path}));
        let (root, resolver) = with_file("bad", text, &server);
        let error = resolver.resolve("shop", &cluster_reference(), None).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("ClusterTriggerAuthentication auth: filePath {path}: ")), "{error}");
        assert!(error.contains(cause) && !error.contains("hunter2") && !error.contains("12345"), "{error}");
        std::fs::remove_dir_all(root).unwrap();
    }
}

#[tokio::test]
async fn a_file_needs_a_root_and_a_cluster_wide_authentication() {
    let server = Server::default().cluster_authentication(json!({"filePath": "a.json"}));
    let error = server.resolver(Settings::default()).resolve("shop", &cluster_reference(), None).await.unwrap_err();
    assert!(error.to_string().ends_with("filepath-auth-root-path not configured"), "{error}");
    let error = Server::default().authentication(json!({"filePath": "a.json"})).resolve(None).await.unwrap_err();
    assert!(error.to_string().ends_with("got kind: TriggerAuthentication"), "{error}");
}
