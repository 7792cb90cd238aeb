//! `tidemark operator`: the operator in a cluster.

pub mod args;
mod beside;
mod installation;
pub mod narration;
pub mod raw_metrics;
pub mod reasons;
mod sources;
pub mod telling;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures::FutureExt;
use futures::future::join;
use kube::Client;
use kube::api::{Api, ListParams};
use tidemark_api::ScaledObject;
use tidemark_clock::Clock;
use tidemark_operator::leader::{Elector, LeaseSettings};
use tidemark_operator::{Handle, Operator, Settings, Writes};
use tidemark_serving::ReasonsSource;
use tidemark_serving::certificates::random_token;
use tidemark_serving::metrics_service;
use tidemark_serving::rotation::Rotation;
use tidemark_trigger::Door;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::process::environment;
use crate::process::health::{self, Health};
use crate::process::metrics::expiry;
use crate::process::otlp::{self, LogExport};
use crate::process::run::{Parts, Signals, again};
use crate::{aggregation, metrics, version};
use args::OperatorArgs;
use reasons::Port;
use telling::Telling;

/// What `/readyz` waits for. One that stands by is ready: it is waiting for nothing but its turn.
const WATCHES: &str = "the watches";
const METRICS_SERVICE: &str = "the metrics service";
/// Deadline of one request to the API server.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the parts have to end when the process does: a write that is under way, and no more.
const END_WITHIN: Duration = Duration::from_secs(15);

/// Variables of KEDA's that mean nothing here: each object has a task of its own, each request to the API server its
/// deadline, and there are neither Vaults nor tokens of ServiceAccounts yet.
const IDLE_VARIABLES: [&str; 5] = [
    "KEDA_SCALEDOBJECT_CTRL_MAX_RECONCILES",
    "KEDA_SCALEDJOB_CTRL_MAX_RECONCILES",
    "KEDA_KUBERNETES_API_TIMEOUT",
    "KEDA_SERVICE_ACCOUNT_TOKEN_AUDIENCES",
    "KEDA_OUTBOUND_FILTER",
];

/// Runs the operator until SIGINT or SIGTERM.
///
/// # Errors
/// There is no cluster to work on, an address is taken, KEDA runs in the cluster, or the Lease is lost. A cluster that
/// does not answer, or that lacks the CRDs, is waited for, and the log says so.
pub async fn run(args: OperatorArgs) -> anyhow::Result<()> {
    let clock = Clock::system();
    let (layer, log) = LogExport::start(&args.otlp, telling::SERVICE, clock);
    args.log.init_with(layer)?;
    log.tell_problems();
    let mut signals = Signals::listen()?;
    let lease = lease(&args)?;
    environment::token_expiry()?;
    tracing::info!(
        version = version::VERSION,
        commit = version::COMMIT,
        identity = lease.identity,
        "starting the operator"
    );
    let (shutdown, released) = (CancellationToken::new(), CancellationToken::new());
    let prometheus = args.enable_prometheus_metrics.then_some(args.metrics_bind_address);
    let telling = Telling::new(telling::Options::of(prometheus, &args.metrics), clock);
    let client = args.cluster.bare_client(telling.series()).await?;
    warn_of_what_has_no_effect(&args);
    let (health, parts) = (Health::new(), Parts::default());
    let seed = otlp::seed()?;
    let mut process = Process { args, client, clock, health, shutdown, released, parts, telling, seed };
    let outcome = process.live(&mut signals, lease).await;
    tracing::info!("stopping");
    process.shutdown.cancel();
    let outcome = tokio::select! {
        biased;
        () = process.end() => outcome,
        again = again() => again.and(Err(anyhow!("stopped at once by a second signal"))),
        // The Lease is not given back then: something may still be written.
        () = tokio::time::sleep(END_WITHIN) => {
            let late = anyhow!("not all parts of the program have ended within {} s", END_WITHIN.as_secs());
            Err(outcome.err().unwrap_or(late))
        }
    };
    log.end().await;
    outcome
}

struct Process {
    args: OperatorArgs,
    client: Client,
    clock: Clock,
    health: Health,
    shutdown: CancellationToken,
    /// Nothing is written any more: the Lease may go.
    released: CancellationToken,
    parts: Parts,
    telling: Telling,
    /// Of the ids of traces.
    seed: u128,
}

impl Process {
    async fn live(&mut self, signals: &mut Signals, lease: LeaseSettings) -> anyhow::Result<()> {
        let probes = health::serve(self.args.health_probe_bind_address, self.health.clone(), self.shutdown.clone());
        self.parts.start_fallible("the health probes", probes);
        self.telling.start(&mut self.parts, self.clock, &self.shutdown);
        let guarded = tidemark_operator::client::guard(self.client.clone(), PATIENCE);
        let health = self.health.clone();
        let answered = async {
            health::until_answered(&health, &guarded).await;
            Ok(())
        };
        if self.parts.do_while_they_run(signals, answered).await?.is_none() {
            return Ok(());
        }
        let settings = self.settings();
        let checked = async {
            check_selectors(&guarded, &settings).await?;
            if !self.args.dry_run && !self.args.beside_keda {
                let (elects, watched) = (self.args.leader_elect, &settings.watch_namespaces);
                beside::refuse(&guarded, &lease, elects, watched, self.clock).await?;
            }
            Ok(())
        };
        if self.parts.do_while_they_run(signals, checked).await?.is_none() {
            return Ok(());
        }
        let Some(writes) = self.lead(signals, lease).await? else { return Ok(()) };
        let settings = Settings { writes: writes.clone(), ..settings };
        let door = Door::new(self.clock, sources::settings(&self.args)?);
        let (operator, handle) = Operator::new(self.client.clone(), door, settings);
        self.telling.record(&mut self.parts, &handle, &self.shutdown);
        if self.args.dry_run {
            self.parts.start("the report of the dry run", telling::report(handle.observe(), self.shutdown.clone()));
        }
        self.tell_traces(&handle);
        let ids = otlp::trace_ids(&self.args.otlp, self.seed);
        let told = reasons::remember(&mut self.parts, &handle, self.clock, ids, &self.shutdown);
        if self.serve_metrics_api(signals, &handle, &told).await?.is_none() {
            return Ok(());
        }
        let certificates = self.certificates(writes);
        self.serve_metrics(&handle, &told, certificates.clone()).await?;
        if self.serve_reasons(signals, told, certificates).await?.is_none() {
            return Ok(());
        }
        self.health.set(WATCHES, Err("not all objects have been seen yet".to_owned()));
        self.parts.start("the readiness", readiness(handle, self.health.clone(), self.shutdown.clone()));
        self.parts.start_fallible("the operator", operator.run(self.shutdown.clone()));
        let nothing_else = std::future::pending::<anyhow::Result<()>>();
        self.parts.do_while_they_run(signals, nothing_else).await.map(drop)
    }

    /// Sends traces and logs what is observed from now on.
    fn tell_traces(&mut self, handle: &Handle) {
        let named = (telling::SERVICE, self.seed);
        otlp::start_traces(&self.args.otlp, named, &mut self.parts, handle, self.clock, &self.shutdown);
        let narration = narration::run(handle, self.seed, self.shutdown.clone());
        self.parts.start("the narration", narration);
    }

    /// Waits until this process may write. None when a signal came first.
    async fn lead(&mut self, signals: &mut Signals, lease: LeaseSettings) -> anyhow::Result<Option<Writes>> {
        if self.args.dry_run {
            tracing::info!("a dry run: nothing is written");
            return Ok(Some(Writes::Never));
        }
        if !self.args.leader_elect {
            return Ok(Some(Writes::Always));
        }
        let name = lease.name.clone();
        self.telling.leads(&name, false);
        let (mut elector, fence) = Elector::new(self.client.clone(), lease, self.clock);
        let acquired = async {
            elector.acquire().await;
            Ok(())
        };
        if self.parts.do_while_they_run(signals, acquired).await?.is_none() {
            return Ok(None);
        }
        self.telling.leads(&name, true);
        let released = self.released.clone();
        self.parts.start_fallible("the leadership", async move {
            tokio::select! {
                biased;
                () = released.cancelled() => {
                    elector.release().await;
                    Ok(())
                }
                lost = elector.keep() => Err(format!("the Lease is lost: {lost}")),
            }
        });
        Ok(Some(Writes::Behind(fence)))
    }

    fn settings(&self) -> Settings {
        let args = &self.args;
        let names = args.watch_namespaces.iter().map(|name| name.trim().trim_matches('"').trim().to_owned());
        let selector = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let given = args.cluster_object_namespace.clone().filter(|name| !name.is_empty());
        Settings {
            watch_namespaces: names.filter(|name| !name.is_empty()).collect(),
            cluster_object_namespace: given.or_else(environment::own_namespace),
            restrict_secret_access: args.restrict_secret_access,
            filepath_auth_root: Some(PathBuf::from(&args.filepath_auth_root_path))
                .filter(|path| !path.as_os_str().is_empty()),
            auth_refresh: Duration::from_secs(args.auth_refresh),
            selector: selector(&args.watch_label_selector),
            authentication_selector: selector(&args.watch_label_selector_for_triggerauth),
            hostname: hostname(),
            ..Settings::default()
        }
    }

    /// Serves the values to the API server itself, if that is wanted. None when a signal came first.
    async fn serve_metrics_api(
        &mut self,
        signals: &mut Signals,
        handle: &Handle,
        told: &Arc<dyn ReasonsSource>,
    ) -> anyhow::Result<Option<()>> {
        let Some(address) = self.args.external_metrics_address else { return Ok(Some(())) };
        let prepared = async {
            let listener = listen(address).await?;
            let (client, clock, sources) = (self.client.clone(), self.clock, (handle.clone(), told.clone()));
            aggregation::prepare(&self.args, listener, client, sources, clock, self.shutdown.clone()).await
        };
        let Some(service) = self.parts.do_while_they_run(signals, prepared).await? else { return Ok(None) };
        self.parts.start("the external metrics API", service);
        tracing::info!(%address, "serving external.metrics.k8s.io/v1beta1");
        Ok(Some(()))
    }

    /// The certificates of the installation; none where there are none to come.
    fn certificates(&mut self, writes: Writes) -> Option<installation::Source> {
        let folder = self.args.cert_dir.clone().unwrap_or_else(|| PathBuf::from("/certs"));
        if self.args.enable_cert_rotation && !self.args.dry_run {
            // Others live on these certificates: they are kept good whether or not this process serves anything with them.
            let client = tidemark_operator::client::guarded(self.client.clone(), PATIENCE, writes);
            let (rotation, made) = Rotation::new(client, installation::settings(&self.args), self.clock);
            self.parts.start("the rotation of the certificates", rotation.run(self.shutdown.clone()));
            return Some(installation::Source::Rotation(made));
        }
        let is_there = self.args.cert_dir.is_some() || folder.is_dir();
        is_there.then(|| installation::Source::Folder(folder, installation::name(&self.args)))
    }

    /// Serves the values to the metrics server, once there are certificates.
    async fn serve_metrics(
        &mut self,
        handle: &Handle,
        told: &Arc<dyn ReasonsSource>,
        certificates: Option<installation::Source>,
    ) -> anyhow::Result<()> {
        let Some(source) = certificates else { return Ok(()) };
        // With the API served here, the folder is its own, and there need be no CA.
        if self.args.external_metrics_address.is_some() && matches!(source, installation::Source::Folder(..)) {
            return Ok(());
        }
        let Some(listener) = self.args.metrics_service_bind_address.listen().await? else { return Ok(()) };
        let (service, feeding) = metrics::service(handle, raw_metrics::Mode::from_environment(), self.shutdown.clone());
        let service = service.with_reasons(told.clone()).counting(self.telling.calls());
        self.parts.start("the raw metrics", feeding);
        let policy = environment::tls_policy()?;
        let (shutdown, health, series) = (self.shutdown.clone(), self.health.clone(), self.telling.series().clone());
        health.set(METRICS_SERVICE, Err("waiting for certificates".to_owned()));
        self.parts.start_fallible("the metrics service", async move {
            installation::with_identity(source, shutdown.clone(), |identity| {
                let dates = expiry(series, identity.clone(), shutdown.clone());
                let serving = metrics_service::serve(listener, identity, policy, service, shutdown)?;
                health.set(METRICS_SERVICE, Ok(()));
                Ok(join(serving, dates).map(drop).boxed())
            })
            .await
        });
        Ok(())
    }

    /// Serves the reasons on a port of their own, if that is wanted. None when a signal came first.
    async fn serve_reasons(
        &mut self,
        signals: &mut Signals,
        told: Arc<dyn ReasonsSource>,
        certificates: Option<installation::Source>,
    ) -> anyhow::Result<Option<()>> {
        let listener = match reasons::listen(self.args.reasons_bind_address).await? {
            Port::Nowhere => return Ok(Some(())),
            Port::Loopback(listener) => {
                self.parts.start("the reasons", reasons::serve_loopback(listener, told, self.shutdown.clone()));
                return Ok(Some(()));
            }
            Port::Open(listener) => listener,
        };
        let source = certificates.context(
            "--reasons-bind-address: an address that is not loopback takes certificates: --enable-cert-rotation or \
             --cert-dir",
        )?;
        let client = tidemark_operator::client::guard(self.client.clone(), PATIENCE);
        let prepared = reasons::prepare(client, told);
        let Some(prepared) = self.parts.do_while_they_run(signals, prepared).await? else { return Ok(None) };
        let shutdown = self.shutdown.clone();
        self.parts.start_fallible("the reasons", async move {
            let serve = |identity| Ok(prepared.serve(listener, identity, shutdown.clone()));
            installation::with_identity(source, shutdown.clone(), serve).await
        });
        Ok(Some(()))
    }

    /// Waits until all parts have ended, the leadership last.
    async fn end(&mut self) {
        while self.parts.left() > 1 && self.parts.join_one().await {}
        self.released.cancel();
        while self.parts.join_one().await {}
    }
}

/// Says when all objects have been seen; ends with the process.
async fn readiness(handle: Handle, health: Health, shutdown: CancellationToken) {
    if shutdown.run_until_cancelled(handle.synced()).await.is_some() {
        tracing::info!("all objects have been seen");
        health.set(WATCHES, Ok(()));
    }
    shutdown.cancelled().await;
}

/// Has the API server look at the selectors: with one that is none, nothing would ever be scaled.
///
/// # Errors
/// The API server does not understand one.
async fn check_selectors(client: &Client, settings: &Settings) -> anyhow::Result<()> {
    for (variable, selector) in [
        ("WATCH_LABEL_SELECTOR", &settings.selector),
        ("WATCH_LABEL_SELECTOR_FOR_TRIGGERAUTH", &settings.authentication_selector),
    ] {
        let Some(selector) = selector else { continue };
        let api = match settings.watch_namespaces.first() {
            Some(namespace) => Api::<ScaledObject>::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let params = ListParams::default().labels(selector).limit(1);
        match api.list_metadata(&params).await {
            Err(kube::Error::Api(status)) if status.code == 400 => {
                anyhow::bail!("{variable}: {selector:?} is no label selector: {}", status.message)
            }
            // Whatever else is wrong, the watches say so and go on trying.
            _ => {}
        }
    }
    Ok(())
}

/// The Lease, by flags and variables.
fn lease(args: &OperatorArgs) -> anyhow::Result<LeaseSettings> {
    let of = |part: &str, default| {
        environment::duration(&format!("KEDA_OPERATOR_LEADER_ELECTION_{part}"), Duration::from_secs(default))
    };
    let token = random_token()?;
    let settings = LeaseSettings {
        namespace: environment::pod_namespace(),
        name: args.leader_election_id.clone(),
        identity: format!(
            "{}_{}-{}-{}-{}-{}",
            hostname(),
            &token[..8],
            &token[8..12],
            &token[12..16],
            &token[16..20],
            &token[20..32]
        ),
        duration: of("LEASE_DURATION", 15)?,
        renew_deadline: of("RENEW_DEADLINE", 10)?,
        retry_period: of("RETRY_PERIOD", 2)?,
    };
    if settings.renew_deadline >= settings.duration || settings.retry_period * 6 / 5 >= settings.renew_deadline {
        anyhow::bail!(
            "leader election: the lease duration ({:?}) must be longer than the renew deadline ({:?}), and that longer \
             than the retry period ({:?}) by a fifth",
            settings.duration,
            settings.renew_deadline,
            settings.retry_period
        );
    }
    Ok(settings)
}

/// This machine's name, or the pod's.
fn hostname() -> String {
    let set = |name| environment::variable(name).filter(|name| !name.is_empty());
    let file =
        || Some(std::fs::read_to_string("/etc/hostname").ok()?.trim().to_owned()).filter(|name| !name.is_empty());
    set("HOSTNAME").or_else(|| set("POD_NAME")).or_else(file).unwrap_or_else(|| "tidemark".to_owned())
}

fn warn_of_what_has_no_effect(args: &OperatorArgs) {
    let mut idle = Vec::new();
    let mut note = |given: bool, name: &'static str| idle.extend(given.then_some(name));
    note(!args.profiling_bind_address.is_empty(), "--profiling-bind-address");
    note(args.http_max_idle_conns != 0, "--http-max-idle-conns");
    note(args.http_max_idle_conns_per_host != 1000, "--http-max-idle-conns-per-host");
    note(args.k8s_cluster_name != "kubernetes-default", "--k8s-cluster-name");
    note(args.service_account_token_mode != "enforce-audience", "--service-account-token-mode");
    note(args.vault_kubernetes_auth_token_file != args::VAULT_TOKEN, "--vault-kubernetes-auth-token-file");
    for name in IDLE_VARIABLES {
        note(environment::variable(name).is_some_and(|value| !value.is_empty()), name);
    }
    if !idle.is_empty() {
        tracing::warn!("without effect here, and accepted for KEDA's sake: {}", idle.join(", "));
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}: is it in use?"))
}
