//! `tidemark probe`: builds the triggers of manifests and reads each once, from the real event source.

mod cluster;
mod object;
mod outlook;
mod report;
mod trigger;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures::{StreamExt, stream};
use kube::Client;
use tidemark_auth::Resolver;
use tidemark_clock::Clock;
use tidemark_operator::KubeCluster;
use tidemark_trigger::{Door, DoorSettings};

use crate::lint::{Output, input, objects::Objects};
use crate::named_cluster::NamedClusterArgs;
use object::Object;
use report::{Document, Report};

/// Some triggers could not be read.
const FAILED: u8 = 1;
/// A file cannot be read, or an object in it is not valid.
const UNUSABLE: u8 = 2;
/// Reads at the same time.
const AT_ONCE: usize = 64;

/// `tidemark probe`.
#[derive(Debug, Args)]
#[command(
    mut_arg("kubeconfig", |arg| {
        arg.help("Kubeconfig of a cluster that has what the files do not; without this and --context no cluster is asked")
    }),
    mut_arg("namespace", |arg| arg.help("Namespace of objects that name none [default: the context's, or `default`]"))
)]
pub struct ProbeArgs {
    /// Manifest files, folders of them, or - for standard input; Secrets, ConfigMaps, authentications and workloads among
    /// them give parameters their values
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", num_args = 1.., required = true)]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    pub cluster: NamedClusterArgs,
    /// Namespace where the Secrets and ConfigMaps of ClusterTriggerAuthentications are read
    #[arg(long, value_name = "NAMESPACE", default_value = "keda", env = "KEDA_CLUSTER_OBJECT_NAMESPACE")]
    pub cluster_object_namespace: String,
    /// Folder of the files that ClusterTriggerAuthentications name by filePath; without it they are refused
    #[arg(long, value_name = "DIR")]
    pub filepath_auth_root_path: Option<PathBuf>,
    /// How to print what was read
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Seconds that each trigger has, its parameters and its read
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

/// What all triggers of one run share.
pub(crate) struct World {
    pub(crate) door: Door,
    pub(crate) resolver: Resolver,
    /// Reads what is in the files from them, and everything else from the cluster, if there is one.
    pub(crate) client: Client,
    pub(crate) has_cluster: bool,
    /// Deadline of one trigger.
    pub(crate) limit: Duration,
}

/// Reads the triggers of a command line's files and prints what was read. Ends with 0 when all were read, 1 when some were
/// not, 2 when a file cannot be read or holds an object that is not valid.
///
/// # Errors
/// The command itself fails: the cluster's configuration cannot be used, or nobody takes its output.
pub async fn run(args: ProbeArgs) -> anyhow::Result<ExitCode> {
    if std::env::var_os("RUST_LOG").is_some() {
        crate::log_to_standard_error();
    }
    let cluster = args.cluster.connect().await?;
    let namespace =
        args.cluster.namespace.clone().or_else(|| cluster.as_ref().map(|c| c.default_namespace().to_owned()));
    let mut input = input::read(&args.paths);
    input.objects.iter_mut().for_each(|read| object::give_namespace(&mut read.value, namespace.as_deref()));
    let world = World::new(&args, &input, cluster);
    let (objects, invalid) = object::find(&input);
    let documents = probe(&world, &objects, &input).await;
    let invalid = object::explain(&input, &invalid, &args.cluster_object_namespace).await?;
    let report = Report { documents };
    let unusable: Vec<String> = input.unreadable.iter().map(ToString::to_string).chain(invalid).collect();
    print(&report, args.output, &unusable)?;
    Ok(match (unusable.is_empty(), report.failures()) {
        (false, _) => ExitCode::from(UNUSABLE),
        (true, 0) => ExitCode::SUCCESS,
        (true, _) => ExitCode::from(FAILED),
    })
}

fn print(report: &Report, output: Output, unusable: &[String]) -> anyhow::Result<()> {
    let text = match output {
        Output::Text => report.text(),
        Output::Json => report.json()?,
    };
    for line in unusable {
        writeln!(io::stderr(), "{line}")?;
    }
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads no further knows enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

impl World {
    fn new(args: &ProbeArgs, input: &input::Input, cluster: Option<Client>) -> Self {
        let limit = Duration::from_secs(args.timeout);
        let files = Objects::new(input.objects.iter().map(|object| &object.value)).client();
        let has_cluster = cluster.is_some();
        let mut door = Door::new(Clock::system(), DoorSettings::default());
        if let Some(cluster) = &cluster {
            door = door.with_cluster(Arc::new(KubeCluster::new(cluster.clone(), limit)));
        }
        let client = cluster::overlay(files, cluster);
        let settings = tidemark_auth::Settings {
            cluster_object_namespace: Some(args.cluster_object_namespace.clone()),
            restrict_secret_access: false,
            file_root: args.filepath_auth_root_path.clone(),
            request_timeout: limit,
        };
        Self { door, resolver: Resolver::new(client.clone(), settings), client, has_cluster, limit }
    }
}

/// Reads all triggers of all objects, many at a time; the outcome is in the order of the files.
async fn probe(world: &World, objects: &[Object<'_>], input: &input::Input) -> Vec<Document> {
    let targets = stream::iter(objects.iter().map(|object| object.target(world, input)));
    let targets: Vec<_> = targets.buffered(AT_ONCE).collect().await;
    let mut reads = Vec::new();
    for (object, target) in objects.iter().zip(&targets) {
        for (index, definition) in object.triggers().iter().enumerate() {
            reads.push(trigger::probe(world, object, target, index, definition));
        }
    }
    let mut read = stream::iter(reads).buffered(AT_ONCE);
    let mut documents = Vec::new();
    for (object, target) in objects.iter().zip(&targets) {
        let mut triggers = Vec::new();
        for _ in object.triggers() {
            triggers.extend(read.next().await);
        }
        documents.push(outlook::document(object, target, triggers, world.door.clock().now()));
    }
    documents
}
