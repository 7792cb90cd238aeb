//! What is asked, and what differs.

use super::requests::{Asked, BASE, Known, Who};

const SELECT: &str = "labelSelector=scaledobject.keda.sh%2Fname";

/// A metric of an object.
fn metric(object: &str, metric: &str) -> Asked {
    Asked::get(format!("{BASE}/namespaces/shop/{metric}?{SELECT}%3D{object}"))
}

/// What an HPA or a curious user asks for of values.
pub fn values() -> Vec<Asked> {
    let mut values = readable();
    values.extend([
        metric("orders", "S0-PROMETHEUS"),
        metric("orders", "s9-prometheus"),
        metric("orders", "nope"),
        metric("orders", "cpu"),
        metric("ghost", "s0-prometheus"),
        metric("Orders", "s0-prometheus"),
        metric("broken", "s0-metric-api-n"),
        metric("broken", "s1-metric-api-n"),
        metric("unbuilt", "s0-nonsense"),
        metric("processor", "cpu"),
        metric("formula", "s0-metric-api-n"),
        metric("formula", "whatever"),
    ]);
    values.push(Asked::get(format!("{BASE}/namespaces/other/s0-prometheus?{SELECT}%3Dorders")));
    values
}

/// Those that have a value.
pub fn readable() -> Vec<Asked> {
    vec![
        metric("orders", "s0-prometheus"),
        metric("orders", "s1-metric-api-n"),
        metric("orders", "s2-metric-api-n"),
        metric("orders", "s3-cron-UTC-00xxx-5923xxx"),
        metric("orders", "s4-prometheus"),
        metric("processor", "s1-prometheus"),
        metric("formula", "composite-metric"),
        metric("fallen", "s0-metric-api-n"),
        metric("cached", "s0-prometheus"),
    ]
}

/// What the two metrics servers answer in words of their own.
pub fn telling() -> Asked {
    Asked::get(format!("{BASE}/namespaces/shop/s0-prometheus?{SELECT}%3D%3Dorders"))
}

/// Triggers of which raw metrics are told, by their objects and names.
pub const TOLD: &[(&str, &str)] = &[
    ("orders", "rate"),
    ("orders", "metricsAPIScaler"),
    ("orders", "cronScaler"),
    ("orders", "nothing"),
    ("formula", "one"),
    ("fallen", "fallen"),
];

/// Those of which none are: unread ones, and names that nobody has.
pub const SILENT: &[(&str, &str)] = &[("broken", "metricsAPIScaler"), ("orders", "s0-prometheus"), ("ghost", "rate")];

/// All that is asked of metrics servers themselves.
pub fn requests() -> Vec<Asked> {
    let mut requests = values();
    let at = |path: &str| Asked::get(format!("{BASE}{path}"));
    let orders = || metric("orders", "s0-prometheus");
    requests.extend(["/", "/api", "/version", "/nope", "/openapi", "/metrics"].map(Asked::get));
    requests.extend(["/healthz", "/livez", "/readyz", "/healthz/ping", "/readyz?verbose"].map(Asked::get));
    requests.extend(["", "/"].map(at));
    requests
        .extend(["", "/", "/v1", "/v1beta2"].map(|rest| Asked::get(format!("/apis/external.metrics.k8s.io{rest}"))));
    requests
        .push(Asked::get("/apis").accepting("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"));
    let selectors = [
        "NAME%21%3Dorders",
        "NAME%3D%3Dorders",
        "NAME+in+(orders)",
        "NAME+in+(orders%2Cb)",
        "NAME+notin+(orders)",
        "NAME",
        "%21NAME",
        "NAME%3Dorders%2Cx+notin+(y)",
        "NAME%3Dorders%2Cx",
        "x%3E1",
        "x+in+()",
        "NAME%3D",
        "NAME+%3D+orders",
        "NAME%3Dorders%2Cx%3Dy",
        "x%3Dy%2CNAME%3Dorders",
        "NAME%3Dghost%2CNAME%3Dorders",
        "app%3Dx",
        "",
        "%3Dorders",
        "a%3Db%3Dc",
        "a%3Bb",
        "a%3D%3Bb",
        "x%3Ey",
        "NAME%3Dorders%2C",
        "NAME%3D-orders",
        "x%3D-y%2CNAME%3Dorders",
        "-x%3Dy%2CNAME%3Dorders",
        "(a)",
        "a+b",
        "x+in+(",
        "a%2F%2Fb%3Dc",
    ];
    let selected = |selector: &str| {
        let selector = selector.replace("NAME", "scaledobject.keda.sh%2Fname");
        at(&format!("/namespaces/shop/s0-prometheus?labelSelector={selector}"))
    };
    requests.extend(selectors.map(selected));
    requests.extend(
        [
            "/namespaces/shop",
            "/namespaces",
            "/s0-prometheus",
            "/namespaces/shop/s0-prometheus",
            "/namespaces/shop/s0-prometheus/",
            "/namespaces/shop/s0-prometheus/x",
            "/namespaces/shop/s0-prometheus/x/y",
            "/namespaces/shop/s0%2Fprometheus",
            "/namespaces//s0-prometheus",
        ]
        .map(at),
    );
    requests.extend(["POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map(|method| orders().with(method)));
    requests.extend([at("").with("POST"), at("/namespaces/shop/s0-prometheus/x").with("POST")]);
    requests.push(Asked::get("/apis").with("POST"));
    let parameters =
        ["watch=true", "watch=0", "limit=5", "limit=x", "fieldSelector=a%3Db", "fieldSelector=a%3B", "pretty=true"];
    requests.extend(parameters.map(|parameter| Asked::get(format!("{}&{parameter}", orders().path))));
    requests.extend(
        [
            "application/json",
            "application/json;as=Table;v=v1;g=meta.k8s.io, application/json",
            "application/vnd.kubernetes.protobuf, */*",
            "application/vnd.kubernetes.protobuf",
            "text/html",
        ]
        .map(|accept| orders().accepting(accept)),
    );
    for who in [Who::Nobody, Who::Liar, Who::Stranger] {
        let others = [at(""), at("/namespaces/shop"), Asked::get("/apis/external.metrics.k8s.io")];
        let others = others.into_iter().chain([orders(), orders().with("POST"), metric("orders", "nope")]);
        let others = others.chain(["/healthz", "/nope", "/openapi/v3", "/"].map(Asked::get));
        requests.extend(others.map(|asked| asked.by(who)));
    }
    requests
}

const STATUS: &[&str] = &["status"];
const MESSAGE: &[&str] = &["message"];
const BODY: &[&str] = &["body"];

/// In what our metrics server answers differently from KEDA's, whoever is the operator.
#[rustfmt::skip]
pub const SERVERS_DIFFER: &[Known] = &[
    ("GET /", STATUS, "no list of all paths: whoever discovers APIs asks for /apis"),
    ("GET /api", BODY, "404 without a list of all paths"),
    ("GET /nope", BODY, "404 without a list of all paths"),
    ("GET /openapi", BODY, "404 without a list of all paths"),
    ("GET /version", STATUS, "that of KEDA tells of a library that it is made of"),
    ("GET /metrics", STATUS, "metrics are served at --port, where manifests and charts scrape them with KEDA, too"),
    ("GET /healthz/ping", STATUS, "there are no checks by name"),
    ("GET /readyz?verbose", BODY, "there are no checks by name"),
    ("GET /apis as application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", BODY, "KEDA's is empty"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=%3Dorders", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=a%3Db%3Dc", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=a%3Bb", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=a%3D%3Bb", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=x%3Ey", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=NAME%3Dorders%2C", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=NAME%3D-orders", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=x%3D-y%2CNAME%3Dorders", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=-x%3Dy%2CNAME%3Dorders", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=(a)", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=a+b", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=x+in+(", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=a%2F%2Fb%3Dc", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=NAME%21%3Dorders", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=NAME%3D%3Dorders", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=NAME+in+(orders%2Cb)", MESSAGE, "the same is wrong, in other words"),
    ("GET BASE/namespaces//s0-prometheus", STATUS, "no namespace is none"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=NAME%3Dorders&limit=x", STATUS, "without effect, and not read"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=NAME%3Dorders&fieldSelector=a%3Db", STATUS, "without effect, and not read"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=NAME%3Dorders&fieldSelector=a%3B", STATUS, "without effect, and not read"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=NAME%3Dorders as application/vnd.kubernetes.protobuf, */*", &["body", "type"], "JSON, which all clients of Kubernetes take"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=NAME%3Dorders as application/vnd.kubernetes.protobuf", &["body", "type"], "JSON, which all clients of Kubernetes take"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=NAME%3Dorders as text/html", STATUS, "JSON, for browsers too"),
    ("GET /healthz by Nobody", &[], "the same"),
    ("* by Nobody", STATUS, "401 in place of 403: nobody is let in without a name"),
    ("GET /healthz by Liar", STATUS, "health is told whatever comes with the request"),
    ("GET BASE/namespaces/shop by Stranger", STATUS, "there is nothing at this path, for nobody"),
    ("GET /openapi/v3 by Stranger", BODY, "the documents are compared on their own"),
];

/// What our operator says that KEDA's does not.
#[rustfmt::skip]
pub const OPERATORS_DIFFER: &[Known] = &[
    ("GET BASE/namespaces/shop/s0-nonsense?labelSelector=NAME%3Dunbuilt", MESSAGE, "ours says which trigger it is"),
    ("GET BASE/namespaces/shop/s0-prometheus?labelSelector=NAME%3DOrders", STATUS, "KEDA finds what it polls whatever the case; no object's name has capitals"),
    ("GET BASE/namespaces/shop/s0-metric-api-n?labelSelector=NAME%3Dbroken", MESSAGE, "ours says what is wrong"),
    ("GET BASE/namespaces/shop/s1-metric-api-n?labelSelector=NAME%3Dbroken", MESSAGE, "ours says what is wrong"),
];
