//! The external metrics API over HTTPS: the part that the API server's aggregation layer talks to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::BoxFuture;
use kube::Client;
use rustls::ServerConfig;
use tidemark_clock::Clock;
use tidemark_operator::Handle;
use tidemark_serving::certificates::Authority;
use tidemark_serving::front_proxy::{Access, Delegated, Error as Unreadable, FrontProxy, Leniency};
use tidemark_serving::identity::{self, Identity};
use tidemark_serving::tls::{Clients, Policy, server_config};
use tidemark_serving::{ExternalMetrics, MetricsSource, ReasonsApi, ReasonsSource, https};
use tidemark_trigger::causes;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::OperatorArgs;
use crate::metrics::OperatorMetrics;
use crate::operator::reasons;

/// Between two looks at the cluster's settings, and at the files that stand in for them.
const REFRESH: Duration = Duration::from_secs(60);
/// Between two attempts to read the settings at the start.
const PAUSE: Duration = Duration::from_secs(5);

/// Makes ready to serve the values of an operator of the same process; the future serves until `shutdown`.
///
/// # Errors
/// The cluster has no aggregation layer, or the certificate cannot be made.
pub async fn prepare(
    args: &OperatorArgs,
    listener: TcpListener,
    client: Client,
    (handle, reasons): (Handle, Arc<dyn ReasonsSource>),
    clock: Clock,
    shutdown: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let api = Api {
        sources: Sources::Both { metrics: Arc::new(OperatorMetrics::new(handle)), reasons },
        clients: ClusterClients { authentication: client.clone(), authorization: client.clone(), settings: client },
        overrides: Overrides::default(),
        lookup: Lookup::default(),
        leniency: Leniency::default(),
        policy: Policy::default(),
    };
    let folder = args.cert_dir.clone();
    let made = if folder.is_none() { Some(make_identity(args, clock)?) } else { None };
    let prepared = api.prepare().await?;
    Ok(async move {
        match (made, folder) {
            (Some(made), _) => {
                let (_kept, identity) = watch::channel(Arc::new(made));
                prepared.serve(listener, identity, shutdown).await;
            }
            (None, Some(folder)) => {
                let serving = async {
                    let (identity, following) = identity::follow(folder, false).await;
                    tokio::select! {
                        biased;
                        () = prepared.serve(listener, identity, shutdown.clone()) => {}
                        () = following => {}
                    }
                };
                // The files may never come.
                tokio::select! {
                    biased;
                    () = serving => {}
                    () = stopped_unserved(&shutdown) => {}
                }
            }
            (None, None) => {}
        }
    })
}

/// Resolves after a stop, later than what is being served ends by itself.
async fn stopped_unserved(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
}

fn make_identity(args: &OperatorArgs, clock: Clock) -> anyhow::Result<Identity> {
    let authority = Authority::new("tidemark external metrics", clock.now())?;
    if let Some(path) = &args.ca_file {
        std::fs::write(path, authority.certificate()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Identity { pair: authority.server(&[&args.external_metrics_host])?, ca: String::new() })
}

/// Whom to ask about callers; with KEDA's flags these may be different clusters.
pub struct ClusterClients {
    /// Whose a token is.
    pub authentication: Client,
    /// Who may what.
    pub authorization: Client,
    /// The settings of front proxies.
    pub settings: Client,
}

/// What stands in for the cluster's settings. Files are read again when the settings are.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// PEM bundle of the CA that signs users' certificates.
    pub users_ca_file: Option<PathBuf>,
    /// PEM bundle of the CA that signs front proxies' certificates. With it, nothing of the cluster's settings holds but
    /// the users' CA.
    pub front_proxy_ca_file: Option<PathBuf>,
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

impl Overrides {
    fn apply(&self, mut settings: FrontProxy) -> anyhow::Result<FrontProxy> {
        let read =
            |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        if let Some(path) = &self.front_proxy_ca_file {
            settings = FrontProxy {
                client_ca: read(path)?,
                allowed_names: self.allowed_names.clone(),
                username_headers: self.username_headers.clone(),
                uid_headers: self.uid_headers.clone(),
                group_headers: self.group_headers.clone(),
                extra_prefixes: self.extra_prefixes.clone(),
                users_ca: settings.users_ca,
            };
        }
        if let Some(path) = &self.users_ca_file {
            settings.users_ca = read(path)?;
        }
        Ok(settings)
    }
}

/// What comes of the cluster's settings of front proxies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lookup {
    /// They are waited for.
    #[default]
    Required,
    /// While they cannot be read, only what stands in for them holds.
    Tolerated,
    /// They are not read: only what stands in for them holds.
    Skipped,
}

impl Lookup {
    async fn read(self, client: &Client) -> Result<FrontProxy, Unreadable> {
        if self == Self::Skipped { Ok(FrontProxy::default()) } else { FrontProxy::read(client).await }
    }
}

/// Where the answers come from.
pub enum Sources {
    Both {
        metrics: Arc<dyn MetricsSource>,
        reasons: Arc<dyn ReasonsSource>,
    },
    /// Only reasons are served.
    Reasons(Arc<dyn ReasonsSource>),
}

/// The API before it is served.
pub struct Api {
    pub sources: Sources,
    pub clients: ClusterClients,
    pub overrides: Overrides,
    pub lookup: Lookup,
    pub leniency: Leniency,
    pub policy: Policy,
}

#[derive(Clone)]
enum Service {
    Metrics(ExternalMetrics),
    Reasons(ReasonsApi),
}

/// The API with the cluster's settings.
pub struct Prepared {
    service: Service,
    delegated: Arc<Delegated>,
    settings: Client,
    overrides: Overrides,
    lookup: Lookup,
    policy: Policy,
    front_proxy: FrontProxy,
}

impl Api {
    /// Reads the cluster's settings. While they cannot be read, they are waited for.
    ///
    /// # Errors
    /// The cluster has no aggregation layer.
    pub async fn prepare(self) -> anyhow::Result<Prepared> {
        let ClusterClients { authentication, authorization, settings } = self.clients;
        let found = loop {
            match self.lookup.read(&settings).await {
                Err(error) if self.lookup == Lookup::Tolerated => {
                    tracing::warn!("without the cluster's front-proxy settings: {error}");
                    break FrontProxy::default();
                }
                Err(error @ (Unreadable::Read(_) | Unreadable::TimedOut)) => tracing::warn!("waiting: {error}"),
                found => break found?,
            }
            tokio::time::sleep(PAUSE).await;
        };
        let front_proxy = self.overrides.apply(found)?;
        let delegated = Delegated::over(authentication, authorization, front_proxy.clone());
        let delegated = Arc::new(delegated.with(self.leniency));
        let access = Access::Delegated(delegated.clone());
        let service = match self.sources {
            Sources::Reasons(source) => Service::Reasons(reasons::api(source, access)),
            Sources::Both { metrics, reasons: source } => {
                let reasons = reasons::api(source, access.clone());
                Service::Metrics(ExternalMetrics::new(metrics, access).with_reasons(reasons))
            }
        };
        let (overrides, lookup, policy) = (self.overrides, self.lookup, self.policy);
        Ok(Prepared { service, delegated, settings, overrides, lookup, policy, front_proxy })
    }
}

impl Prepared {
    /// Serves until `shutdown`, with whatever certificates `identity` holds, and follows the cluster's settings.
    pub fn serve(
        self,
        listener: TcpListener,
        identity: watch::Receiver<Arc<Identity>>,
        shutdown: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut serving = Serving { prepared: self, identity };
            let first = loop {
                match serving.config() {
                    Ok(config) => break config,
                    Err(error) => tracing::error!("the external metrics API waits: {}", causes(&*error)),
                }
                if shutdown.run_until_cancelled(serving.change()).await.is_none() {
                    return;
                }
            };
            let (sender, tls) = watch::channel(Arc::new(first));
            let served = match serving.prepared.service.clone() {
                Service::Metrics(service) => https::serve(listener, tls, service, shutdown),
                Service::Reasons(service) => https::serve(listener, tls, service, shutdown),
            };
            tokio::select! {
                biased;
                () = served => {}
                () = serving.follow(&sender) => {}
            }
        })
    }
}

/// What may change while it is served.
struct Serving {
    prepared: Prepared,
    identity: watch::Receiver<Arc<Identity>>,
}

impl Serving {
    fn config(&mut self) -> anyhow::Result<ServerConfig> {
        let Prepared { front_proxy, policy, .. } = &self.prepared;
        let identity = self.identity.borrow_and_update();
        let cas = front_proxy.all_cas();
        let clients = if cas.trim().is_empty() { Clients::None } else { Clients::Optional(&cas) };
        Ok(server_config(&identity.pair, clients, policy)?)
    }

    /// Puts changed certificates and settings to use; does not end.
    async fn follow(&mut self, tls: &watch::Sender<Arc<ServerConfig>>) {
        loop {
            if !self.change().await {
                continue;
            }
            match self.config() {
                Ok(config) => {
                    tls.send_replace(Arc::new(config));
                    tracing::info!("the external metrics API uses new certificates or front-proxy settings");
                }
                Err(error) => tracing::warn!("the certificate in use stays as it was: {}", causes(&*error)),
            }
        }
    }

    /// Waits for new certificates, or until it is time for another look at the settings; says whether anything changed.
    async fn change(&mut self) -> bool {
        let renewed = async {
            if self.identity.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = renewed => return true,
            () = tokio::time::sleep(REFRESH) => {}
        }
        let found = self.prepared.lookup.read(&self.prepared.settings).await.map_err(anyhow::Error::from);
        match found.and_then(|found| self.prepared.overrides.apply(found)) {
            Ok(found) if found == self.prepared.front_proxy => false,
            Ok(found) => {
                self.prepared.delegated.set_front_proxy(found.clone());
                self.prepared.front_proxy = found;
                true
            }
            Err(error) => {
                tracing::warn!("the cluster's front-proxy settings stay as they were: {}", causes(&*error));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use tidemark_serving::certificates::Pair;
    use tidemark_serving::{Asked, ExternalMetric, Values};

    use super::*;

    struct Nothing;

    impl MetricsSource for Nothing {
        fn values<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> Values<'a> {
            Box::pin(std::future::ready(Ok(Vec::<ExternalMetric>::new())))
        }
    }

    impl ReasonsSource for Nothing {
        fn ask<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Asked> {
            Box::pin(std::future::ready(Asked { status: 200, json: "{}".to_owned() }))
        }
    }

    fn authority() -> Authority {
        Authority::new("test", "2026-01-01T00:00:00Z".parse().unwrap()).unwrap()
    }

    /// An API server that knows nothing but the CA of its front proxies.
    fn cluster(ca: Arc<Mutex<String>>) -> Client {
        let service = tower::service_fn(move |_: Request<Body>| {
            let map = json!({"data": {
                "requestheader-client-ca-file": ca.lock().unwrap().clone(),
                "requestheader-username-headers": r#"["X-Remote-User"]"#,
            }});
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::from(map.to_string().into_bytes()))))
        });
        Client::new(service, "default")
    }

    async fn serving(ca: Arc<Mutex<String>>, identity: watch::Receiver<Arc<Identity>>, lookup: Lookup) -> Serving {
        let client = cluster(ca);
        let clients =
            ClusterClients { authentication: client.clone(), authorization: client.clone(), settings: client };
        let api = Api {
            sources: Sources::Both { metrics: Arc::new(Nothing), reasons: Arc::new(Nothing) },
            clients,
            overrides: Overrides::default(),
            lookup,
            leniency: Leniency::default(),
            policy: Policy::default(),
        };
        Serving { prepared: api.prepare().await.unwrap(), identity }
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_clusters_settings_callers_come_with_tokens() {
        let own = authority();
        let identity = Arc::new(Identity { pair: own.server(&["localhost"]).unwrap(), ca: String::new() });
        for lookup in [Lookup::Skipped, Lookup::Tolerated] {
            let (_kept, seen) = watch::channel(identity.clone());
            // It has no aggregation layer: nothing to look up.
            let ca = Arc::new(Mutex::new(String::new()));
            let mut serving = serving(ca.clone(), seen, lookup).await;
            assert!(serving.config().is_ok());
            *ca.lock().unwrap() = own.certificate();
            assert_eq!(serving.change().await, lookup == Lookup::Tolerated, "{lookup:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changed_files_and_settings_are_put_to_use_and_unusable_ones_are_not() {
        let [own, proxies, others] = [authority(), authority(), authority()];
        let pair = || own.server(&["localhost"]).unwrap();
        let identity = |pair: Pair| Arc::new(Identity { pair, ca: String::new() });
        let (first, second) = (pair(), pair());
        let ca = Arc::new(Mutex::new(proxies.certificate()));
        let (renew, seen) = watch::channel(identity(first.clone()));
        let mut serving = serving(ca.clone(), seen, Lookup::Required).await;
        assert!(serving.config().is_ok());
        assert!(!serving.change().await, "nothing is new");

        renew.send_replace(identity(Pair { certificate: second.certificate.clone(), key: first.key }));
        assert!(serving.change().await);
        assert!(serving.config().is_err(), "certificate and key do not fit");
        renew.send_replace(identity(second));
        assert!(serving.change().await);
        assert!(serving.config().is_ok());

        *ca.lock().unwrap() = others.certificate();
        assert!(serving.change().await, "another CA signs front proxies now");
        assert!(serving.prepared.front_proxy.client_ca == others.certificate());
        *ca.lock().unwrap() = String::new();
        assert!(!serving.change().await, "what is missing stays as it was");
    }

    #[test]
    fn flags_stand_in_for_the_clusters_settings() {
        let folder = std::env::temp_dir().join(format!("tidemark-overrides-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| {
            std::fs::write(folder.join(name), name).unwrap();
            Some(folder.join(name))
        };
        let settings = FrontProxy { client_ca: "theirs".into(), users_ca: "users".into(), ..Default::default() };
        let overrides = Overrides { users_ca_file: file("own-users"), ..Default::default() };
        let applied = overrides.apply(settings.clone()).unwrap();
        assert_eq!((&*applied.client_ca, &*applied.users_ca), ("theirs", "own-users"));
        let names = vec!["X-User".to_owned()];
        let overrides = Overrides {
            front_proxy_ca_file: file("own-proxies"),
            username_headers: names.clone(),
            ..Default::default()
        };
        let applied = overrides.apply(settings).unwrap();
        assert_eq!((&*applied.client_ca, &*applied.users_ca), ("own-proxies", "users"));
        assert_eq!(applied.username_headers, names);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
