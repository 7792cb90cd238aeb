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
use tidemark_serving::front_proxy::{Access, Delegated, Error as Unreadable, FrontProxy};
use tidemark_serving::identity::{self, Identity};
use tidemark_serving::tls::{Clients, Policy, server_config};
use tidemark_serving::{ExternalMetrics, MetricsSource, https};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::OperatorArgs;
use crate::describe;
use crate::metrics::OperatorMetrics;

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
    handle: Handle,
    clock: Clock,
    shutdown: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let api = Api {
        source: Arc::new(OperatorMetrics::new(handle)),
        clients: ClusterClients { authentication: client.clone(), authorization: client.clone(), settings: client },
        overrides: Overrides::default(),
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

/// The API before it is served.
pub struct Api {
    pub source: Arc<dyn MetricsSource>,
    pub clients: ClusterClients,
    pub overrides: Overrides,
    pub policy: Policy,
}

/// The API with the cluster's settings.
pub struct Prepared {
    service: ExternalMetrics,
    delegated: Arc<Delegated>,
    settings: Client,
    overrides: Overrides,
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
            match FrontProxy::read(&settings).await {
                Err(error @ (Unreadable::Read(_) | Unreadable::TimedOut)) => tracing::warn!("waiting: {error}"),
                found => break found?,
            }
            tokio::time::sleep(PAUSE).await;
        };
        let front_proxy = self.overrides.apply(found)?;
        let delegated = Arc::new(Delegated::over(authentication, authorization, front_proxy.clone()));
        let service = ExternalMetrics::new(self.source, Access::Delegated(delegated.clone()));
        let (overrides, policy) = (self.overrides, self.policy);
        Ok(Prepared { service, delegated, settings, overrides, policy, front_proxy })
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
                    Err(error) => tracing::error!("the external metrics API waits: {}", describe(&error)),
                }
                if shutdown.run_until_cancelled(serving.change()).await.is_none() {
                    return;
                }
            };
            let (sender, tls) = watch::channel(Arc::new(first));
            let service = serving.prepared.service.clone();
            tokio::select! {
                biased;
                () = https::serve(listener, tls, service, shutdown) => {}
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
        Ok(server_config(&identity.pair, Clients::Optional(&front_proxy.all_cas()), policy)?)
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
                Err(error) => tracing::warn!("the certificate in use stays as it was: {}", describe(&error)),
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
        let found = FrontProxy::read(&self.prepared.settings).await.map_err(anyhow::Error::from);
        match found.and_then(|found| self.prepared.overrides.apply(found)) {
            Ok(found) if found == self.prepared.front_proxy => false,
            Ok(found) => {
                self.prepared.delegated.set_front_proxy(found.clone());
                self.prepared.front_proxy = found;
                true
            }
            Err(error) => {
                tracing::warn!("the cluster's front-proxy settings stay as they were: {}", describe(&error));
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
    use tidemark_serving::{ExternalMetric, Values};

    use super::*;

    struct Nothing;

    impl MetricsSource for Nothing {
        fn values<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> Values<'a> {
            Box::pin(std::future::ready(Ok(Vec::<ExternalMetric>::new())))
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

    async fn serving(ca: Arc<Mutex<String>>, identity: watch::Receiver<Arc<Identity>>) -> Serving {
        let client = cluster(ca);
        let clients =
            ClusterClients { authentication: client.clone(), authorization: client.clone(), settings: client };
        let api =
            Api { source: Arc::new(Nothing), clients, overrides: Overrides::default(), policy: Policy::default() };
        Serving { prepared: api.prepare().await.unwrap(), identity }
    }

    #[tokio::test(start_paused = true)]
    async fn changed_files_and_settings_are_put_to_use_and_unusable_ones_are_not() {
        let [own, proxies, others] = [authority(), authority(), authority()];
        let pair = || own.server(&["localhost"]).unwrap();
        let identity = |pair: Pair| Arc::new(Identity { pair, ca: String::new() });
        let (first, second) = (pair(), pair());
        let ca = Arc::new(Mutex::new(proxies.certificate()));
        let (renew, seen) = watch::channel(identity(first.clone()));
        let mut serving = serving(ca.clone(), seen).await;
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
