//! Why each object has the replicas it has, told by the operator: the source for all who serve it, and a port of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use futures::future::BoxFuture;
use kube::Client;
use tidemark_clock::Clock;
use tidemark_operator::Handle;
use tidemark_reasons::{Limits, Reasons, Ring, TraceId};
use tidemark_sandbox::Sandbox;
use tidemark_serving::front_proxy::{Access, Leniency};
use tidemark_serving::reasons_api::{GROUP, VERSION};
use tidemark_serving::{Asked, ReasonsApi, ReasonsSource};
use tidemark_trigger::causes;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::aggregation::{Api, ClusterClients, Lookup, Overrides, Prepared, Sources};
use crate::process::bind::Bind;
use crate::process::environment;
use crate::process::run::Parts;

/// Where reasons are served unless a flag says otherwise.
const DEFAULT: &str = "127.0.0.1:8083";

/// Answers from the operator of this process.
struct Told(Reasons);

impl ReasonsSource for Told {
    fn ask<'a>(&'a self, path: &'a str, query: &'a str) -> BoxFuture<'a, Asked> {
        Box::pin(async move {
            let answer = self.0.answer(path, query).await;
            Asked { status: answer.status, json: answer.json }
        })
    }
}

/// Remembers what the operator observes from now on, and answers from it. To be called before the operator runs.
pub fn remember(
    parts: &mut Parts,
    handle: &Handle,
    clock: Clock,
    trace: TraceId,
    shutdown: &CancellationToken,
) -> Arc<dyn ReasonsSource> {
    let ring = Ring::new(Limits::default(), trace);
    parts.start("the record of reasons", ring.clone().run(handle, shutdown.clone()));
    Arc::new(Told(Reasons::new(handle.clone(), ring, clock)))
}

/// The API over a source.
pub fn api(source: Arc<dyn ReasonsSource>, access: Access) -> ReasonsApi {
    ReasonsApi::new(source, access, tidemark_reasons::schemas())
}

/// Makes the API a part of the sandbox's.
pub fn mount(sandbox: &Sandbox, source: Arc<dyn ReasonsSource>) {
    sandbox.mount(GROUP, VERSION, api(source, Access::Open));
}

/// Where reasons are served by a port of their own.
pub enum Port {
    Nowhere,
    /// On loopback, over plain HTTP.
    Loopback(TcpListener),
    /// For others, over HTTPS, to those whom the API server vouches for.
    Open(TcpListener),
}

/// Listens where the flag says. The default address may be taken, by another operator of the same machine, and then there
/// is no such port.
///
/// # Errors
/// The address that the flag names is taken, or is none of this machine.
pub async fn listen(flag: Option<Bind>) -> anyhow::Result<Port> {
    let bind = match flag {
        Some(bind) => bind,
        None => DEFAULT.parse().map_err(anyhow::Error::msg)?,
    };
    let listener = match bind.listen().await.context("--reasons-bind-address") {
        Ok(listener) => listener,
        Err(error) if flag.is_none() => {
            tracing::warn!("reasons are not served at {DEFAULT}: {}", causes(&*error));
            None
        }
        Err(error) => return Err(error),
    };
    let is_loopback = bind.address().is_some_and(|address: SocketAddr| address.ip().is_loopback());
    Ok(match (listener, is_loopback) {
        (None, _) => Port::Nowhere,
        (Some(listener), true) => Port::Loopback(listener),
        (Some(listener), false) => Port::Open(listener),
    })
}

/// Makes ready to serve to those whom the API server vouches for.
///
/// # Errors
/// The cluster has no aggregation layer, and so no settings of front proxies.
pub async fn prepare(client: Client, source: Arc<dyn ReasonsSource>) -> anyhow::Result<Prepared> {
    let api = Api {
        sources: Sources::Reasons(source),
        clients: ClusterClients { authentication: client.clone(), authorization: client.clone(), settings: client },
        overrides: Overrides::default(),
        lookup: Lookup::default(),
        leniency: Leniency::default(),
        policy: environment::tls_policy()?,
    };
    api.prepare().await
}

/// Serves on loopback, to whoever is on this machine, until `shutdown`.
pub fn serve_loopback(
    listener: TcpListener,
    source: Arc<dyn ReasonsSource>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, ()> {
    api(source, Access::Open).serve_on_loopback(listener, shutdown)
}
