//! `tidemark release`: takes the finalizer from all objects, so that they can be deleted where no operator is left that
//! would let them go. The chart runs it after an uninstall.
//!
//! It does not do what the operator does for an object that is being deleted (restoring replicas); an HPA goes with its
//! ScaledObject in any case, because that owns it.

mod objects;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, PostParams};
use tidemark_clock::Clock;
use tidemark_operator::Writes;
use tidemark_operator::leader::{Elector, LeaseSettings};
use tidemark_serving::certificates::random_token;

use crate::process::cluster::ClusterArgs;
use crate::process::environment;
use objects::{Pass, Which};

/// Deadline of one request to the API server.
const PATIENCE: Duration = Duration::from_secs(10);
/// Looks at all objects: the first takes the finalizers away, the next finds what has failed or has come meanwhile, and
/// the last should find nothing.
const PASSES: usize = 4;
/// Between two of them, when something has failed.
const PAUSE: Duration = Duration::from_secs(2);
/// An operator still leads: nothing was done.
const OPERATOR_LEADS: u8 = 3;

/// `tidemark release`.
///
/// Exit codes: 0 no object has the finalizer, 1 some have it still, 3 an operator still leads and nothing was done.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Namespace of the installation, where the operator's Lease is [default: the pod's own]
    #[arg(long, short, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pub namespace: Option<String>,
    /// The operator's Lease. It is taken meanwhile: an operator that leads would put the finalizers back
    #[arg(long, value_name = "NAME", default_value = "operator.keda.sh")]
    pub leader_election_id: String,
    /// Seconds that an operator may take to go
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub wait: u64,
    /// Namespaces that were watched, separated by commas; empty for all
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',', env = "WATCH_NAMESPACE")]
    pub watch_namespaces: Vec<String>,
    /// Label selector of the ScaledObjects and ScaledJobs that were watched
    #[arg(long, value_name = "SELECTOR", env = "WATCH_LABEL_SELECTOR", default_value = "")]
    pub watch_label_selector: String,
    /// Label selector of the authentications that were watched
    #[arg(long, value_name = "SELECTOR", env = "WATCH_LABEL_SELECTOR_FOR_TRIGGERAUTH", default_value = "")]
    pub watch_label_selector_for_triggerauth: String,
    /// Only tell which objects have the finalizer
    #[arg(long)]
    pub dry_run: bool,
}

/// Takes the finalizer from all objects, and tells of each on standard output.
///
/// # Errors
/// There is no cluster, nobody knows the installation's namespace, or the Lease is lost on the way. What is wrong with
/// single objects is told, and is in the exit code.
pub async fn run(args: ReleaseArgs) -> anyhow::Result<ExitCode> {
    crate::log_to_standard_error();
    let client = tidemark_operator::client::build(args.cluster.config().await?);
    let client = client.context("cannot make a client for the cluster")?;
    let which = Which::new(&args);
    if args.dry_run {
        let guarded = tidemark_operator::client::guard(client, PATIENCE);
        let pass = objects::look(&guarded, &which, false).await;
        return tell_end(&pass, pass.held == 0);
    }
    let namespace = args.namespace.clone().filter(|name| !name.trim().is_empty()).or_else(environment::own_namespace);
    let Some(namespace) = namespace else {
        bail!(
            "the namespace of the installation is not known: give --namespace, so that its operator can be waited for"
        );
    };
    let settings = LeaseSettings {
        namespace: namespace.trim().to_owned(),
        name: args.leader_election_id.clone(),
        identity: format!("release_{}", random_token()?),
        ..LeaseSettings::default()
    };
    if !can_be_led(&tidemark_operator::client::guard(client.clone(), PATIENCE), &settings).await {
        say(&format!("there is no namespace {}, so no operator leads in it", settings.namespace))?;
        let guarded = tidemark_operator::client::guard(client, PATIENCE);
        return free(&guarded, &which).await;
    }
    behind_lease(client, settings, Duration::from_secs(args.wait), &which).await
}

/// Whether the namespace of a Lease is there. Asked in a way that needs no right but that to the Lease.
async fn can_be_led(client: &Client, settings: &LeaseSettings) -> bool {
    let mut lease = Lease::default();
    lease.metadata.name = Some(settings.name.clone());
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let outcome = Api::<Lease>::namespaced(client.clone(), &settings.namespace).create(&params, &lease).await;
    !matches!(outcome, Err(kube::Error::Api(status)) if status.code == 404)
}

/// Takes the Lease, and frees all while it is held.
async fn behind_lease(
    client: Client,
    settings: LeaseSettings,
    wait: Duration,
    which: &Which,
) -> anyhow::Result<ExitCode> {
    let place = format!("{}/{}", settings.namespace, settings.name);
    let (mut elector, fence) = Elector::new(client.clone(), settings, Clock::system());
    if tokio::time::timeout(wait, elector.acquire()).await.is_err() {
        let seconds = wait.as_secs();
        let told = format!(
            "tidemark: the Lease {place} was not to be had within {seconds} s: an operator still leads, and would put \
             the finalizers back. Stop it first; nothing was done"
        );
        writeln!(std::io::stderr(), "{told}").context("cannot write to standard error")?;
        return Ok(ExitCode::from(OPERATOR_LEADS));
    }
    let guarded = tidemark_operator::client::guarded(client, PATIENCE, Writes::Behind(fence));
    let outcome = tokio::select! {
        biased;
        lost = elector.keep() => Err(anyhow!("the Lease {place} is lost: {lost}")),
        outcome = free(&guarded, which) => outcome,
    };
    elector.release().await;
    outcome
}

/// Takes the finalizers away until none is found.
async fn free(client: &Client, which: &Which) -> anyhow::Result<ExitCode> {
    let mut all = Pass::default();
    for number in 1..=PASSES {
        let pass = objects::look(client, which, true).await;
        let (nothing, failed) = (pass.held == 0 && pass.failed.is_empty(), !pass.failed.is_empty());
        all.add(pass);
        if nothing {
            return tell_end(&all, true);
        }
        if failed && number < PASSES {
            tokio::time::sleep(PAUSE).await;
        }
    }
    if all.failed.is_empty() {
        say("finalizers come back as soon as they are taken: an operator that needs no Lease still runs")?;
    }
    tell_end(&all, false)
}

/// Sums up.
fn tell_end(all: &Pass, done: bool) -> anyhow::Result<ExitCode> {
    for failed in &all.failed {
        say(failed)?;
    }
    let (freed, going) = (all.freed, all.going);
    say(&match (freed, all.held) {
        (0, 0) if done => "no object has the finalizer".to_owned(),
        (0, held) if held > 0 && all.failed.is_empty() => format!("{held} objects have the finalizer"),
        _ => format!("{freed} objects freed, of which {going} were being deleted"),
    })?;
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to standard output")
}
