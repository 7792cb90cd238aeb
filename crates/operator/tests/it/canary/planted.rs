//! A secret in every place where one may be, for every trigger type that takes one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::echo::Servers;

/// The secret: letters and digits, so that it looks the same in a URL.
const CANARY: &str = "cAnArY7pQ2xW";

/// One trigger.
pub struct Case {
    pub name: String,
    trigger_type: &'static str,
    metadata: Vec<(String, String)>,
    auth: Vec<(String, String)>,
}

/// Where an authentication's parameters come from, one after the other.
const SOURCES: usize = 3;

impl Case {
    /// The secret parameters that the case plants, by the names that it uses.
    fn planted(&self) -> BTreeSet<String> {
        let metadata = self.metadata.iter().filter(|(name, value)| value.contains(CANARY) || name.ends_with("FromEnv"));
        let metadata = metadata.map(|(name, _)| name.trim_end_matches("FromEnv").to_owned());
        metadata
            .chain(self.auth.iter().filter(|(_, value)| value.contains(CANARY)).map(|(name, _)| name.clone()))
            .collect()
    }

    /// The file that its parameters come from, if they do: name and content.
    pub fn file(&self) -> Option<(String, String)> {
        let parameters: BTreeMap<&String, &String> = self.auth.iter().map(|(name, value)| (name, value)).collect();
        let file = || (format!("{}.json", self.name), serde_json::to_string(&parameters).unwrap());
        (self.number() % 4 == 3 && !self.auth.is_empty()).then(file)
    }

    fn number(&self) -> usize {
        self.name.trim_start_matches("case-").parse().unwrap()
    }

    fn variable(&self) -> String {
        format!("SECRET_{}", self.number())
    }

    /// All objects of the case, the ScaledObject last.
    pub fn objects(&self) -> Vec<Value> {
        let name = &self.name;
        let spread: Vec<(usize, &(String, String))> = self.auth.iter().enumerate().collect();
        let of = |source: usize| spread.iter().filter(move |(index, _)| index % SOURCES == source);
        let data = |source| of(source).map(|(index, (_, value))| (format!("key{index}"), json!(value)));
        let refs = |source| -> Vec<Value> {
            of(source)
                .map(|(i, (parameter, _))| json!({"parameter": parameter, "name": name, "key": format!("key{i}")}))
                .collect()
        };
        let mut secret: serde_json::Map<String, Value> = data(0).collect();
        secret.insert("env".to_owned(), json!(CANARY));
        let variables = of(2).map(|(index, (_, value))| json!({"name": format!("VAR_{index}"), "value": value}));
        let from_secret = json!({"name": self.variable(), "valueFrom": {"secretKeyRef": {"name": name, "key": "env"}}});
        let env: Vec<Value> = variables.chain([from_secret]).collect();
        let from_env: Vec<Value> =
            of(2).map(|(i, (parameter, _))| json!({"parameter": parameter, "name": format!("VAR_{i}")})).collect();
        let spec = json!({"secretTargetRef": refs(0), "configMapTargetRef": refs(1), "env": from_env});
        let (kind, spec) = match self.file() {
            Some((file, _)) => ("ClusterTriggerAuthentication", json!({"filePath": file})),
            None => ("TriggerAuthentication", spec),
        };
        let metadata: BTreeMap<&String, &String> = self.metadata.iter().map(|(name, value)| (name, value)).collect();
        let mut trigger = json!({"type": self.trigger_type, "metadata": metadata});
        if !self.auth.is_empty() {
            trigger["authenticationRef"] = json!({"name": name, "kind": kind});
        }
        vec![
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": secret}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
                "data": data(1).collect::<serde_json::Map<_, _>>()}),
            json!({"apiVersion": "keda.sh/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [
                        {"name": "main", "image": "none", "command": ["sleep", "600"], "env": env}]}}}}),
            json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name}, "spec": {
                "scaleTargetRef": {"name": name}, "pollingInterval": 1, "triggers": [trigger]}}),
        ]
    }
}

/// A list of cases under way.
struct Plot {
    cases: Vec<Case>,
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

impl Plot {
    /// Adds a case. `base` is metadata too.
    fn add(&mut self, trigger_type: &'static str, base: Pairs, metadata: Pairs, auth: Pairs) {
        let own = |pairs: Pairs| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let name = format!("case-{}", self.cases.len());
        let variable = format!("SECRET_{}", self.cases.len());
        let mut metadata: Vec<(String, String)> = own(&[base, metadata].concat());
        for (name, value) in &mut metadata {
            if name.ends_with("FromEnv") {
                value.clone_from(&variable);
            }
        }
        self.cases.push(Case { name, trigger_type, metadata, auth: own(auth) });
    }
}

/// All cases, against these servers.
pub fn cases(servers: &Servers) -> Vec<Case> {
    let mut plot = Plot { cases: Vec::new() };
    web(&mut plot, &servers.http);
    rabbitmq(&mut plot, servers);
    postgresql(&mut plot, &servers.postgresql);
    redis(&mut plot, &servers.redis);
    for trigger_type in ["external", "external-push"] {
        let base = [("scalerAddress", servers.http.as_str())];
        plot.add(trigger_type, &base, &[("tokenFromEnv", ""), ("password", CANARY)], &[]);
        let tls = [
            ("caCert", pem("CERTIFICATE")),
            ("tlsClientCert", pem("CERTIFICATE")),
            ("tlsClientKey", pem("PRIVATE KEY")),
        ];
        plot.add(trigger_type, &base, &[], &tls.each_ref().map(|(name, value)| (*name, value.as_str())));
    }
    plot.cases
}

/// Something that begins like a certificate or key.
fn pem(label: &str) -> String {
    format!("-----BEGIN {label}-----\n{CANARY}\n-----END {label}-----\n")
}

fn web(plot: &mut Plot, host: &str) {
    let (certificate, key) = (pem("CERTIFICATE"), pem("PRIVATE KEY"));
    let token_url = format!("http://client:{CANARY}@{host}/token?key={CANARY}");
    let form = format!("audience={CANARY}");
    let header = format!("X-{CANARY}");
    let login = format!("http://user{CANARY}:{CANARY}@{host}/path?token={CANARY}");
    let plain = format!("http://{host}/path");
    let modes: [(&str, Pairs); 7] = [
        ("apiKey", &[("apiKey", CANARY)]),
        ("basic", &[("username", CANARY), ("password", CANARY)]),
        ("bearer", &[("bearerToken", CANARY)]),
        ("tls", &[("cert", &certificate), ("key", &key), ("ca", &certificate)]),
        (
            "oauth",
            &[("oauthTokenURI", &token_url), ("clientID", CANARY), ("clientSecret", CANARY), ("endpointParams", &form)],
        ),
        ("custom", &[("customAuthHeader", &header), ("customAuthValue", CANARY)]),
        ("basic,bearer", &[("username", CANARY), ("password", CANARY), ("bearerToken", CANARY)]),
    ];
    let metrics: Pairs = &[("valueLocation", "value"), ("targetValue", "5")];
    let prometheus: Pairs = &[("query", "up"), ("threshold", "5")];
    for (trigger_type, base, url) in [("metrics-api", metrics, "url"), ("prometheus", prometheus, "serverAddress")] {
        plot.add(trigger_type, base, &[(url, &login)], &[]);
        plot.add(trigger_type, base, &[(url, &format!("http://user:{CANARY}@{host}/read?k={CANARY}"))], &[]);
        // A port that is none, in a URL with a login.
        plot.add(trigger_type, base, &[(url, &format!("http://user:{CANARY}@127.0.0.1:9{CANARY}/?k={CANARY}"))], &[]);
        for (mode, auth) in modes {
            plot.add(trigger_type, base, &[(url, &plain), ("authModes", mode)], auth);
        }
        plot.add(
            trigger_type,
            base,
            &[(url, &plain), ("authModes", "apiKey"), ("method", "query")],
            &[("apiKey", CANARY)],
        );
    }
    plot.add("metrics-api", metrics, &[("url", &plain), ("authMode", "apiKey"), ("apiKey", CANARY)], &[]);
    let headers = format!("X-Tenant={CANARY},Authorization=Bearer {CANARY}");
    plot.add("prometheus", prometheus, &[("serverAddress", &plain), ("customHeaders", &headers)], &[]);
    plot.add("prometheus", prometheus, &[("serverAddress", &plain), ("credentialsFromEnv", "")], &[]);
    let account = format!("{{\"private_key\": \"{CANARY}\"");
    plot.add("prometheus", prometheus, &[("serverAddress", &plain)], &[("GoogleApplicationCredentials", &account)]);
    let aws = [
        ("awsRoleArn", CANARY),
        ("awsAccessKeyID", CANARY),
        ("awsSecretAccessKey", CANARY),
        ("awsSessionToken", CANARY),
    ];
    plot.add("prometheus", prometheus, &[("serverAddress", &plain), ("awsRegion", "x")], &aws);
}

fn rabbitmq(plot: &mut Plot, servers: &Servers) {
    let base: Pairs = &[("queueName", "q"), ("mode", "QueueLength"), ("value", "5")];
    let (http, amqp) = (&servers.http, &servers.amqp);
    let mut add = |auth: Pairs| plot.add("rabbitmq", base, &[], auth);
    for host in [
        format!("http://user{CANARY}:{CANARY}@{http}/vhost?x={CANARY}"),
        format!("http://user:{CANARY}@{http}/read/vhost"),
        format!("amqp://user{CANARY}:{CANARY}@{amqp}/vhost"),
        format!("amqp://user:{CANARY}@127.0.0.1:9{CANARY}/"),
        format!("http://user:{CANARY}@127.0.0.1:9{CANARY}/"),
        format!("amqps://user:{CANARY}@{amqp}/?cacertfile=/nowhere/{CANARY}"),
        format!("gopher://user:{CANARY}@{amqp}/"),
        format!("user:{CANARY}@{amqp}"),
    ] {
        add(&[("host", &host)]);
    }
    let (plain, broker) = (format!("http://{http}/"), format!("amqp://{amqp}/"));
    for host in [&plain, &broker] {
        add(&[("host", host), ("username", CANARY), ("password", CANARY)]);
    }
    let token_url = format!("http://client:{CANARY}@{http}/token");
    let form = format!("audience={CANARY}");
    let oauth2: Pairs = &[
        ("host", &plain),
        ("oauthTokenURI", &token_url),
        ("clientID", CANARY),
        ("clientSecret", CANARY),
        ("endpointParams", &form),
    ];
    add(oauth2);
    let (certificate, key) = (pem("CERTIFICATE"), pem("ENCRYPTED PRIVATE KEY"));
    for host in [format!("https://u:{CANARY}@{http}/"), format!("amqps://u:{CANARY}@{amqp}/")] {
        let tls: Pairs = &[
            ("host", &host),
            ("tls", "enable"),
            ("ca", &certificate),
            ("cert", &certificate),
            ("key", &key),
            ("keyPassword", CANARY),
        ];
        add(tls);
        add(&[("host", &host)]);
    }
    plot.add("rabbitmq", base, &[("hostFromEnv", "")], &[]);
    plot.add("rabbitmq", base, &[("host", &format!("http://user:{CANARY}@{http}/"))], &[]);
}

fn postgresql(plot: &mut Plot, address: &str) {
    let base: Pairs = &[("query", "SELECT 1"), ("targetQueryValue", "5")];
    let (host, port) = address.split_once(':').unwrap();
    for connection in [
        format!("postgresql://user{CANARY}:{CANARY}@{address}/db?sslmode=disable&application_name={CANARY}"),
        format!("host={host} port={port} user={CANARY} password={CANARY} dbname=db sslmode=prefer"),
        format!("postgresql://user:{CANARY}@{host}:9{CANARY}/db"),
        format!("host={host} port={port} password={CANARY} unknown={CANARY} '{CANARY}"),
        format!("postgresql://user:{CANARY}@{address}/db?sslmode=verify-full&sslrootcert=/nowhere/{CANARY}"),
    ] {
        plot.add("postgresql", base, &[], &[("connection", &connection)]);
    }
    let parts: Pairs = &[("host", host), ("port", port), ("dbName", "db"), ("sslmode", "disable")];
    plot.add("postgresql", base, parts, &[("userName", CANARY), ("password", CANARY)]);
    plot.add("postgresql", base, &[parts, &[("userName", CANARY), ("passwordFromEnv", "")]].concat(), &[]);
    plot.add("postgresql", base, &[("connectionFromEnv", "")], &[]);
}

fn redis(plot: &mut Plot, address: &str) {
    let (certificate, key) = (pem("CERTIFICATE"), pem("ENCRYPTED PRIVATE KEY"));
    let list: Pairs = &[("listName", "l"), ("listLength", "5"), ("address", address)];
    let stream: Pairs = &[("stream", "s"), ("consumerGroup", "g"), ("pendingEntriesCount", "5"), ("address", address)];
    let sentinel: Pairs = &[("sentinelMaster", "m")];
    for (trigger_type, base, with_sentinels) in [
        ("redis", list, false),
        ("redis-cluster", list, false),
        ("redis-sentinel", list, true),
        ("redis-streams", stream, false),
        ("redis-cluster-streams", stream, false),
        ("redis-sentinel-streams", stream, true),
    ] {
        let more = if with_sentinels { sentinel } else { &[] };
        let base = [base, more].concat();
        let login: Pairs = &[("username", CANARY), ("password", CANARY)];
        let guards: Pairs = &[("sentinelUsername", CANARY), ("sentinelPassword", CANARY)];
        plot.add(trigger_type, &base, &[], &[login, guards].concat());
        plot.add(trigger_type, &base, &[("passwordFromEnv", ""), ("sentinelPasswordFromEnv", "")], &[]);
        let tls: Pairs =
            &[("tls", "enable"), ("ca", &certificate), ("cert", &certificate), ("key", &key), ("keyPassword", CANARY)];
        plot.add(trigger_type, &base, &[], &[login, tls].concat());
    }
}

/// The secret parameters of the catalogue that no case plants, as `type parameter`.
pub fn unplanted(cases: &[Case]) -> Vec<String> {
    let planted: BTreeSet<(&str, String)> =
        cases.iter().flat_map(|case| case.planted().into_iter().map(|name| (case.trigger_type, name))).collect();
    let mut missing = Vec::new();
    for kind in tidemark_triggers::CATALOGUE {
        for parameter in kind.parameters.iter().filter(|parameter| parameter.secret) {
            if !parameter.names.iter().any(|name| planted.contains(&(kind.name, (*name).to_owned()))) {
                missing.push(format!("{} {}", kind.name, parameter.name()));
            }
        }
    }
    missing
}

/// Every form of the secret that a text may hold: as it is, in base64 wherever it begins, in hexadecimal, and as a list
/// of bytes.
pub fn forms() -> Vec<String> {
    let bytes = CANARY.as_bytes();
    let mut forms = vec![CANARY.to_owned()];
    for offset in 0..3 {
        // The letters that depend on the secret alone.
        let encoded = base64(&[&b"___"[..offset], bytes].concat());
        let (from, to) = ((offset * 8).div_ceil(6), (offset + bytes.len()) * 8 / 6);
        forms.push(encoded[from..to].to_owned());
    }
    forms.push(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    forms.push(bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", "));
    forms
}

/// Whether a text holds the secret.
pub fn knows(text: &str) -> bool {
    forms().iter().any(|form| text.contains(form.as_str()))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let sextets =
        bits.chunks(6).map(|six| six.iter().chain([&0; 6]).take(6).fold(0, |sum, bit| sum * 2 + usize::from(*bit)));
    sextets.map(|sextet| char::from(LETTERS[sextet])).collect()
}

/// Where a text holds the secret, with what stands around it.
pub fn leaks(text: &str) -> Vec<String> {
    let forms = forms();
    let leaking = text.lines().filter_map(|line| {
        let at = forms.iter().find_map(|form| line.find(form.as_str()))?;
        let letters: Vec<char> = line.chars().collect();
        let at = line[..at].chars().count();
        Some(letters[at.saturating_sub(160)..(at + 60).min(letters.len())].iter().collect())
    });
    leaking.collect()
}
