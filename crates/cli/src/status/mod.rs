//! `tidemark status`: all objects at a glance.

use anyhow::anyhow;
use clap::Args;
use serde_json::json;
use tidemark_reasons::{GROUP, LIST_KIND, Page, Report, VERSION, path_of_list, table};

use crate::explain::print;
use crate::explain::way::{self, Output, Watched, Way, WayArgs};

/// `tidemark status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub way: WayArgs,
    /// The objects of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Show them anew whenever something has changed, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Shows all objects.
///
/// # Errors
/// Nobody answers, or the user may not ask; the message says what to do. Or nobody takes the output.
pub async fn run(args: StatusArgs) -> anyhow::Result<()> {
    let way = Way::new(&args.way).await?;
    // An operator that is asked itself has no namespace of its user's.
    let all = args.all_namespaces || way.cluster.is_none() && args.way.cluster.namespace.is_none();
    let namespace = (!all).then_some(way.namespace.as_str());
    if !args.watch {
        let reports = list(&way, namespace).await?;
        return print(&shown(&reports, args.output, false)?);
    }
    let mut watched = Watched::new(args.output == Output::Text);
    loop {
        match list(&way, namespace).await {
            Ok(reports) => watched.show(&shown(&reports, args.output, true)?, &mark(&reports))?,
            Err(error) => watched.complain(&error)?,
        }
        tokio::time::sleep(way::PERIOD).await;
    }
}

async fn list(way: &Way, namespace: Option<&str>) -> anyhow::Result<Vec<Report>> {
    let path = path_of_list(namespace);
    let (mut reports, mut next) = (Vec::new(), String::new());
    loop {
        let page: Page = way.get(&way::page(&path, &next)).await.map_err(|refused| anyhow!(refused.advice()))?;
        reports.extend(page.items);
        if page.metadata.next.is_empty() {
            return Ok(reports);
        }
        next = page.metadata.next;
    }
}

fn shown(reports: &[Report], output: Output, one_line: bool) -> anyhow::Result<String> {
    let list =
        || json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": LIST_KIND, "metadata": {}, "items": reports});
    Ok(match output {
        Output::Json if one_line => serde_json::to_string(&list())? + "\n",
        Output::Json => serde_json::to_string_pretty(&list())? + "\n",
        Output::Text => table::table(reports, reports.first().map(|report| report.time).unwrap_or_default()),
    })
}

/// What of the table makes it another one; the mere passing of time does not.
fn mark(reports: &[Report]) -> String {
    let still = |report: &Report| Report { next_poll: None, ..report.clone() };
    table::table(&reports.iter().map(still).collect::<Vec<_>>(), jiff::Timestamp::UNIX_EPOCH)
}
