//! `tidemark lint`: checks manifests with the operator's own parsing and admission code, without a cluster.

mod definitions;
mod document;
mod hints;
pub(crate) mod input;
mod kinds;
mod object;
pub(crate) mod objects;
mod parameters;
mod probing;
mod references;
mod report;
mod scalar;
mod trigger;
mod workload;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use definitions::Definitions;
pub use input::{Input, Unreadable};
pub use report::{Diagnostic, Document, Metric, Report, Trigger, Unresolved};

/// Something is not valid.
const INVALID: u8 = 1;
/// A file cannot be read.
const UNREADABLE: u8 = 2;

/// `tidemark lint`.
#[derive(Debug, Args)]
pub struct LintArgs {
    /// Manifest files, folders of them, or - for standard input; Secrets, ConfigMaps, authentications and workloads among
    /// them give parameters their values
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", num_args = 1.., required = true)]
    pub paths: Vec<PathBuf>,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// A reference to something that is not among the files is an error
    #[arg(long)]
    pub strict: bool,
    /// Namespace where the Secrets and ConfigMaps of ClusterTriggerAuthentications are looked for
    #[arg(long, value_name = "NAMESPACE", default_value = "keda", env = "KEDA_CLUSTER_OBJECT_NAMESPACE")]
    pub cluster_object_namespace: String,
}

/// How to print what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines as of a compiler
    Text,
    /// One JSON document
    Json,
}

/// What decides beside the files.
#[derive(Clone, Debug)]
pub struct Rules {
    /// A reference to something that is not among the files is an error.
    pub strict: bool,
    /// Where the Secrets and ConfigMaps of ClusterTriggerAuthentications are looked for.
    pub cluster_object_namespace: String,
}

/// Checks the files of a command line and prints what was found. Ends with 0 when all is valid, 1 when something is not, 2
/// when a file cannot be read.
///
/// # Errors
/// The command itself fails: it cannot start, or nobody takes its output.
pub fn run(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let input = input::read(&args.paths);
    let rules = Rules { strict: args.strict, cluster_object_namespace: args.cluster_object_namespace.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let report = runtime.block_on(async { anyhow::Ok(Linter::new()?.check(&input, &rules).await) })?;
    let text = match args.output {
        Output::Text => report.text(),
        Output::Json => report.json()?,
    };
    for unreadable in &input.unreadable {
        writeln!(io::stderr(), "{unreadable}")?;
    }
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads no further knows enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    Ok(if !input.unreadable.is_empty() {
        ExitCode::from(UNREADABLE)
    } else if report.valid() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INVALID)
    })
}

/// Checks objects. One serves for any number of files.
pub struct Linter {
    definitions: Definitions,
}

impl Linter {
    /// Must be called inside a tokio runtime, and used in the same.
    ///
    /// # Errors
    /// Our own definitions are not sound, which tests of this program exclude.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { definitions: Definitions::new()? })
    }

    /// Checks the objects of our kinds; the others are only looked at where these refer to them.
    pub async fn check(&self, input: &Input, rules: &Rules) -> Report {
        let files = object::Files::new(&self.definitions, &input.objects, rules).await;
        let mut documents = Vec::new();
        for index in 0..input.objects.len() {
            documents.extend(files.check(index).await);
        }
        Report { documents, strict: rules.strict }
    }
}
