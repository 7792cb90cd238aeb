//! The external metrics API behind the API server's aggregation layer, with certificates and settings that may change
//! while it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use rustls::ServerConfig;
use tidemark_clock::Clock;
use tidemark_operator::Handle;
use tidemark_serving::certificates::{Authority, Pair, server_config};
use tidemark_serving::front_proxy::{Access, Delegated, FrontProxy};
use tidemark_serving::{ExternalMetrics, https};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::OperatorArgs;
use crate::describe;
use crate::metrics::OperatorMetrics;

/// Between two looks at the certificate's files and at the cluster's settings.
const REFRESH: Duration = Duration::from_secs(60);

/// Makes ready to serve; the future serves until `shutdown`.
///
/// # Errors
/// The cluster has no aggregation layer, the certificate cannot be used, or the address is taken.
pub async fn prepare(
    args: &OperatorArgs,
    listener: TcpListener,
    client: Client,
    handle: Handle,
    clock: Clock,
    shutdown: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let front_proxy = FrontProxy::read(&client).await?;
    let pair = match &args.cert_dir {
        Some(folder) => read_pair(folder)?,
        None => make_pair(args, clock)?,
    };
    let mut settings = Settings::new(client.clone(), pair, front_proxy)?;
    let access = Access::Delegated(settings.delegated.clone());
    let service = ExternalMetrics::new(Arc::new(OperatorMetrics::new(handle)), access);
    let tls = settings.tls.subscribe();
    let folder = args.cert_dir.clone();
    Ok(async move {
        let refreshed = settings.refresh(&client, folder);
        tokio::select! {
            biased;
            () = https::serve(listener, tls, service, shutdown) => {}
            () = refreshed => {}
        }
    })
}

/// What may change.
struct Settings {
    pair: Pair,
    front_proxy: FrontProxy,
    delegated: Arc<Delegated>,
    tls: watch::Sender<Arc<ServerConfig>>,
}

impl Settings {
    fn new(client: Client, pair: Pair, front_proxy: FrontProxy) -> anyhow::Result<Self> {
        let tls = watch::Sender::new(Arc::new(server_config(&pair, Some(&front_proxy.client_ca))?));
        let delegated = Arc::new(Delegated::new(client, front_proxy.clone()));
        Ok(Self { pair, front_proxy, delegated, tls })
    }

    /// Follows the files in `folder` and the settings of the cluster; does not end.
    async fn refresh(&mut self, client: &Client, folder: Option<PathBuf>) {
        loop {
            tokio::time::sleep(REFRESH).await;
            let front_proxy = match FrontProxy::read(client).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!("the cluster's front-proxy settings stay as they were: {}", describe(&error.into()));
                    self.front_proxy.clone()
                }
            };
            let pair = folder.as_deref().map_or_else(|| Ok(self.pair.clone()), read_pair);
            match pair.and_then(|pair| self.update(pair, front_proxy)) {
                Ok(false) => {}
                Ok(true) => tracing::info!("the external metrics API uses new certificates or front-proxy settings"),
                // Also in the moment when only one of two files has been replaced.
                Err(error) => tracing::warn!("the certificate in use stays as it was: {}", describe(&error)),
            }
        }
    }

    /// Puts changed settings to use; says whether there were any.
    fn update(&mut self, pair: Pair, front_proxy: FrontProxy) -> anyhow::Result<bool> {
        if pair == self.pair && front_proxy == self.front_proxy {
            return Ok(false);
        }
        let config = server_config(&pair, Some(&front_proxy.client_ca))?;
        self.tls.send_replace(Arc::new(config));
        self.delegated.set_front_proxy(front_proxy.clone());
        (self.pair, self.front_proxy) = (pair, front_proxy);
        Ok(true)
    }
}

fn read_pair(folder: &Path) -> anyhow::Result<Pair> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(Pair { certificate: read("tls.crt")?, key: read("tls.key")? })
}

fn make_pair(args: &OperatorArgs, clock: Clock) -> anyhow::Result<Pair> {
    let authority = Authority::new("tidemark external metrics", clock.now())?;
    if let Some(path) = &args.ca_file {
        std::fs::write(path, authority.certificate()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(authority.server(&[&args.external_metrics_host])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Authority {
        Authority::new("test", "2026-01-01T00:00:00Z".parse().unwrap()).unwrap()
    }

    fn front_proxy(authority: &Authority) -> FrontProxy {
        let data = [
            ("requestheader-client-ca-file", authority.certificate()),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#.to_owned()),
        ];
        FrontProxy::parse(&data.map(|(key, value)| (key.to_owned(), value)).into()).unwrap()
    }

    #[tokio::test]
    async fn changed_files_are_put_to_use_and_unusable_ones_are_not() {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::ready(Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty())))
        });
        let [own, proxy_authority, another] = [authority(), authority(), authority()];
        let pair = || own.server(&["localhost"]).unwrap();
        let (first, second) = (pair(), pair());
        let proxy = front_proxy(&proxy_authority);
        let mut settings = Settings::new(Client::new(service, "default"), first.clone(), proxy.clone()).unwrap();
        let mut seen = settings.tls.subscribe();
        assert!(!settings.update(first.clone(), proxy.clone()).unwrap());
        assert!(!seen.has_changed().unwrap());

        let half = Pair { certificate: second.certificate.clone(), key: first.key };
        assert!(settings.update(half, proxy.clone()).is_err());
        let broken = Pair { certificate: String::new(), key: second.key.clone() };
        assert!(settings.update(broken, proxy.clone()).is_err());
        assert!(!seen.has_changed().unwrap());

        assert!(settings.update(second.clone(), proxy).unwrap());
        assert!(seen.has_changed().unwrap());
        seen.mark_unchanged();
        assert!(settings.update(second, front_proxy(&another)).unwrap());
        assert!(seen.has_changed().unwrap());
    }
}
