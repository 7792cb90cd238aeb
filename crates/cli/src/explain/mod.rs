//! `tidemark explain`: why an object has the replicas it has.

mod look;
pub mod way;

use std::io::{self, Write};

use anyhow::{anyhow, bail};
use clap::Args;
use serde_json::Value;
use tidemark_reasons::{Page, Report, Workload, explain, object_path, path_of_list, text};

use way::{Output, Refused, Watched, Way, WayArgs};

/// `tidemark explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The ScaledObject, or the workload that it scales
    #[arg(value_name = "[NAMESPACE/]NAME")]
    pub object: String,
    #[command(flatten)]
    pub way: WayArgs,
    /// Explain anew whenever something has changed, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
    /// How to print it: for people, or the whole report
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Explains an object.
///
/// # Errors
/// There is no such object, nobody answers, or the user may not ask; the message says what to do. Or nobody takes the
/// output.
pub async fn run(args: ExplainArgs) -> anyhow::Result<()> {
    let way = Way::new(&args.way).await?;
    let (namespace, name) = match args.object.split_once('/') {
        Some((namespace, name)) => (namespace.to_owned(), name),
        None => (way.namespace.clone(), args.object.as_str()),
    };
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        bail!("{:?} is not [NAMESPACE/]NAME", args.object);
    }
    if !args.watch {
        let report = find(&way, &namespace, name).await?;
        return print(&shown(&report, args.output, false)?);
    }
    let mut watched = Watched::new(args.output == Output::Text);
    loop {
        match find(&way, &namespace, name).await {
            Ok(report) => watched.show(&shown(&report, args.output, true)?, &mark(&report))?,
            Err(error) => watched.complain(&error)?,
        }
        tokio::time::sleep(way::PERIOD).await;
    }
}

/// The report of an object, with what this user sees of it.
async fn find(way: &Way, namespace: &str, name: &str) -> anyhow::Result<Report> {
    let mut report = match way.get::<Report>(&object_path(namespace, name)).await {
        Ok(report) => report,
        Err(Refused::NoSuchObject) => match of_workload(way, namespace, name).await? {
            Some(report) => report,
            None => return Err(unknown(way, namespace, name).await),
        },
        Err(refused) => return Err(explained(way, refused, namespace, name).await),
    };
    let workload = match &way.cluster {
        Some(client) => look::seen(client, &report.metadata.namespace, &report.metadata.name).await,
        None => Workload::default(),
    };
    report.explanation = Some(explain(&report, &workload));
    Ok(report)
}

/// The report of the object that scales a workload of that name.
async fn of_workload(way: &Way, namespace: &str, name: &str) -> anyhow::Result<Option<Report>> {
    let path = path_of_list(Some(namespace));
    let mut next = String::new();
    loop {
        let page: Page = match way.get(&way::page(&path, &next)).await {
            Ok(page) => page,
            // Who may read single objects only has named one that is not there.
            Err(_) => return Ok(None),
        };
        if let Some(found) = page.items.iter().find(|item| item.target.name == name) {
            let path = object_path(namespace, &found.metadata.name);
            return way.get(&path).await.map(Some).map_err(|refused| anyhow!(refused.advice()));
        }
        if page.metadata.next.is_empty() {
            return Ok(None);
        }
        next = page.metadata.next;
    }
}

/// Nobody knows the object: why that may be.
async fn unknown(way: &Way, namespace: &str, name: &str) -> anyhow::Error {
    let object = match &way.cluster {
        Some(client) => look::scaled_object(client, namespace, name).await,
        None => Value::Null,
    };
    match object.is_null() {
        true => anyhow!(
            "there is no ScaledObject {name} in namespace {namespace}, and none that scales a workload of that name \
             (-n names another namespace; `tidemark status -A` shows all)"
        ),
        false => anyhow!(
            "ScaledObject {namespace}/{name} is there, but the operator does not know it: it watches other namespaces \
             (--watch-namespaces, WATCH_NAMESPACE) or other labels (WATCH_LABEL_SELECTOR), or has just started{}",
            look::status(&object)
        ),
    }
}

/// Why there is no answer, with what the object itself tells without the operator.
async fn explained(way: &Way, refused: Refused, namespace: &str, name: &str) -> anyhow::Error {
    let object = match &way.cluster {
        Some(client) => look::scaled_object(client, namespace, name).await,
        None => Value::Null,
    };
    anyhow!("{}{}", refused.advice(), look::status(&object))
}

fn shown(report: &Report, output: Output, one_line: bool) -> anyhow::Result<String> {
    Ok(match output {
        Output::Json if one_line => serde_json::to_string(report)? + "\n",
        Output::Json => serde_json::to_string_pretty(report)? + "\n",
        Output::Text => text::text(report.explanation.as_ref().unwrap_or(&Default::default()), report.time),
    })
}

/// What of a report makes it another one; the mere passing of time does not.
fn mark(report: &Report) -> String {
    let rules: Vec<&str> = report.reasons.iter().map(|step| step.rule.as_str()).collect();
    let values: Vec<_> = report.triggers.iter().map(|trigger| (trigger.value, trigger.error.is_some())).collect();
    let changes = report.detail.as_ref().and_then(|detail| detail.changes.last());
    let problems = report.explanation.as_ref().map(|explanation| explanation.problems.len());
    let ready = report.ready.as_ref().map(|ready| (&ready.status, &ready.message));
    let counts = (report.replicas, report.desired, report.active, report.paused);
    format!("{counts:?} {rules:?} {values:?} {changes:?} {problems:?} {ready:?}")
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}
