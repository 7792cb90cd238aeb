//! `tidemark manifests`: a whole installation as plain YAML, which is what the chart makes of its default values. A test
//! compares the two.

use std::io::{self, Write};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use super::names::{KEDAS, Names, OWN};
use super::{registrations, roles, workloads};
use crate::version::VERSION;

/// `tidemark manifests`.
#[derive(Clone, Debug, Args)]
pub struct ManifestsArgs {
    /// Namespace of the installation [default: tidemark, or keda with --keda-names]
    #[arg(long, short, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// The image, where you have put it [default: tidemark:VERSION, which a node finds only if it holds it already]
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Give the objects the names that those of KEDA's chart have, to take an installation of KEDA's over in place
    #[arg(long)]
    pub keda_names: bool,
    /// Namespaces to watch, separated by commas, and to have rights in; without it all
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Replicas of each process; of several operators one leads
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub replicas: u32,
    /// Serve the reasons by the operator itself, too, over HTTPS at this port of its Service
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub reasons_port: Option<u16>,
    /// Without admission webhooks
    #[arg(long)]
    pub no_webhooks: bool,
    /// Without CustomResourceDefinitions: for deleting the rest, because with them go all objects
    #[arg(long)]
    pub no_crds: bool,
    /// Without the namespace itself
    #[arg(long)]
    pub no_namespace: bool,
}

/// An installation, as its objects depend on it.
pub struct Installation {
    pub names: Names,
    pub namespace: String,
    pub image: String,
    /// None: all.
    pub watched: Vec<String>,
    pub replicas: u32,
    /// Where the operator serves the reasons; none: on loopback only.
    pub reasons_port: Option<u16>,
    pub webhooks: bool,
}

impl Installation {
    fn new(args: &ManifestsArgs) -> anyhow::Result<Self> {
        let names = if args.keda_names { KEDAS } else { OWN };
        let image = args.image.clone().unwrap_or_else(|| format!("tidemark:{VERSION}"));
        if image.contains("kedacore/") {
            bail!("the image {image} is KEDA's: give the one that you have put Tidemark into");
        }
        let watched = args.watch_namespaces.iter().map(|name| name.trim().to_owned());
        let namespace = args.namespace.clone().unwrap_or_else(|| names.installation.to_owned());
        let watched: Vec<String> = watched.filter(|name| !name.is_empty()).collect();
        for name in watched.iter().chain([&namespace]) {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty()
                || name.len() > 63
                || !name.chars().all(plain)
                || name.starts_with('-')
                || name.ends_with('-')
            {
                bail!("{name:?} cannot be the name of a namespace: up to 63 of a-z, 0-9 and, within, -");
            }
        }
        let (replicas, reasons_port, webhooks) = (args.replicas, args.reasons_port, !args.no_webhooks);
        Ok(Self { names, namespace, image, watched, replicas, reasons_port, webhooks })
    }
}

/// All objects, in an order in which they can be applied.
///
/// # Errors
/// The image is KEDA's, a namespace's name cannot be one, or a definition cannot be written as JSON.
pub fn objects(args: &ManifestsArgs) -> anyhow::Result<Vec<Value>> {
    let installation = Installation::new(args)?;
    let mut objects = Vec::new();
    if !args.no_namespace {
        let metadata = installation.names.metadata(&installation.namespace, None, installation.names.operator);
        objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
    }
    if !args.no_crds {
        for crd in tidemark_api::crds() {
            let mut crd = serde_json::to_value(&crd).context("a definition cannot be printed")?;
            let labels = installation.names.labels(installation.names.operator);
            match crd["metadata"]["labels"].as_object_mut() {
                Some(own) => own.extend(labels),
                None => crd["metadata"]["labels"] = labels.into(),
            }
            objects.push(crd);
        }
    }
    objects.extend(roles::objects(&installation));
    objects.extend(workloads::objects(&installation));
    objects.extend(registrations::objects(&installation));
    Ok(objects)
}

/// Prints all objects as YAML documents.
///
/// # Errors
/// Those of [`objects`], or standard output cannot be written.
pub fn print(args: &ManifestsArgs) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for object in objects(args)? {
        let text = serde_saphyr::to_string(&object).context("an object cannot be printed")?;
        write!(out, "---\n{text}").context("cannot write to standard output")?;
    }
    out.flush().context("cannot write to standard output")
}
