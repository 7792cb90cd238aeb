//! The way to the reasons: through the API server of a kubeconfig, or straight to an operator.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use http::Request;
use kube::Client;
use serde::de::DeserializeOwned;
use tidemark_reasons::GROUP;
use tidemark_trigger::causes;

use super::print;
use crate::named_cluster::NamedClusterArgs;

/// Between two looks with --watch.
pub(crate) const PERIOD: Duration = Duration::from_secs(2);
/// An answer has this long.
const PATIENCE: Duration = Duration::from_secs(40);

/// How reasons are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// The report, for programs
    Json,
}

/// How reasons are reached.
#[derive(Clone, Debug, Args)]
pub struct WayArgs {
    #[command(flatten)]
    pub cluster: NamedClusterArgs,
    /// Ask an operator at this address instead of the API server, such as http://127.0.0.1:8083 behind
    /// `kubectl port-forward`
    #[arg(long, value_name = "URL")]
    pub address: Option<String>,
}

/// Who is asked.
pub(crate) struct Way {
    client: Client,
    /// The cluster, for what a user sees of it; none where only an operator is known.
    pub(crate) cluster: Option<Client>,
    pub(crate) namespace: String,
    /// The address of the operator, where it is asked itself.
    address: Option<String>,
}

/// Why there is no report.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The API is there, and knows no such object.
    NoSuchObject,
    /// There is no such API.
    NoApi,
    Forbidden(String),
    Unauthorized(String),
    /// The API is registered, and nobody answers for it.
    Down(String),
    /// KEDA's operator, which tells no reasons.
    Untold(String),
    Other(String),
    /// The server itself cannot be reached.
    Unreachable {
        what: String,
        error: String,
    },
}

impl Way {
    /// # Errors
    /// There is no cluster and no address, or what is given cannot be used.
    pub(crate) async fn new(args: &WayArgs) -> anyhow::Result<Self> {
        let cluster = match args.cluster.connect().await? {
            None if args.address.is_none() => Some(own_cluster().await?),
            cluster => cluster,
        };
        let client = args.address.as_deref().map(operator).transpose()?;
        let namespace =
            args.cluster.namespace.clone().or_else(|| Some(cluster.as_ref()?.default_namespace().to_owned()));
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        let client = client.or_else(|| cluster.clone()).context("there is neither a cluster nor an address")?;
        Ok(Self { client, cluster, namespace, address: args.address.clone() })
    }

    /// Reads a document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refused> {
        let request = Request::get(path).body(Vec::new()).map_err(|error| Refused::Other(error.to_string()))?;
        let unreachable = |error: String| {
            let what = self.address.clone().unwrap_or_else(|| "the API server of the kubeconfig".to_owned());
            Refused::Unreachable { what, error }
        };
        let answer = tokio::time::timeout(PATIENCE, self.client.request_text(request)).await;
        let answer = answer.map_err(|_| unreachable(format!("no answer in {} s", PATIENCE.as_secs())))?;
        let text = answer.map_err(|error| match error {
            kube::Error::Api(status) => Refused::of(&status),
            error => unreachable(causes(&error)),
        })?;
        serde_json::from_str(&text).map_err(|error| Refused::Other(format!("the answer is not understood: {error}")))
    }
}

/// A client of an operator's own port.
fn operator(address: &str) -> anyhow::Result<Client> {
    let bad = || format!("--address: {address:?} is not an address such as http://127.0.0.1:8083");
    let uri: http::Uri = address.parse().with_context(bad)?;
    anyhow::ensure!(uri.scheme().is_some() && uri.authority().is_some(), bad());
    tidemark_operator::client::build(kube::Config::new(uri)).context("cannot make a client")
}

/// The cluster that is meant where none is named.
async fn own_cluster() -> anyhow::Result<Client> {
    let config = kube::Config::infer().await.context(
        "found no cluster: give --kubeconfig (`tidemark up` prints where its own is), or --address of an operator",
    )?;
    tidemark_operator::client::build(config).context("cannot make a client for the cluster")
}

impl Refused {
    fn of(status: &kube::core::Status) -> Self {
        let message = status.message.clone();
        match status.code {
            404 if status.details.as_ref().is_some_and(|details| details.group == GROUP) => Self::NoSuchObject,
            404 => Self::NoApi,
            401 => Self::Unauthorized(message),
            403 => Self::Forbidden(message),
            501 => Self::Untold(message),
            502..=504 => Self::Down(message),
            code => Self::Other(format!("{code} {}: {message}", status.reason)),
        }
    }

    /// What happened, and what a person does about it.
    pub(crate) fn advice(&self) -> String {
        const ITSELF: &str = "or ask the operator itself: `kubectl -n NAMESPACE port-forward deployment/keda-operator \
                              8083`, and then with --address http://127.0.0.1:8083";
        match self {
            Self::NoSuchObject => "there is no such ScaledObject".to_owned(),
            Self::NoApi => format!(
                "this cluster does not serve {GROUP}: it has no APIService v1alpha1.{GROUP}. It is a part of every \
                 installation of Tidemark (`tidemark manifests`, or the chart's metrics server), and KEDA has none; {ITSELF}"
            ),
            Self::Forbidden(message) => format!(
                "you may not read this: {message}. What it takes is `get` and `list` on scaledobjects.{GROUP}, which the \
                 cluster's roles view, edit and admin have by the installation's ClusterRole; {ITSELF}"
            ),
            Self::Unauthorized(message) => {
                format!("the server does not know who you are ({message}): see the user of the kubeconfig")
            }
            Self::Down(message) => format!(
                "nobody answers for {GROUP}: {}. See `kubectl get apiservice v1alpha1.{GROUP}`, and whether the metrics \
                 server and the operator run and what their logs say; {ITSELF}",
                message.trim()
            ),
            Self::Untold(message) => format!(
                "{message}. Reasons are told by Tidemark's operator; for now `kubectl describe scaledobject` and the HPA's \
                 conditions are all that there is"
            ),
            Self::Other(message) => message.clone(),
            Self::Unreachable { what, error } => {
                format!("{what} cannot be reached: {error}. Is it running, and is this the right address?")
            }
        }
    }
}

/// The path of a page that begins after another one, whose token is safe in a query but for its slash.
pub(crate) fn page(path: &str, next: &str) -> String {
    match next.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?continue={}", next.replace('/', "%2F")),
    }
}

/// Output that is shown again and again: on a terminal in place of the last one, elsewhere below it when it has changed.
pub(crate) struct Watched {
    in_place: bool,
    mark: String,
    complaint: String,
}

impl Watched {
    pub(crate) fn new(is_text: bool) -> Self {
        let in_place = is_text && std::io::stdout().is_terminal();
        Self { in_place, mark: String::new(), complaint: String::new() }
    }

    /// Shows a text; `mark` differs where it says something new.
    pub(crate) fn show(&mut self, text: &str, mark: &str) -> anyhow::Result<()> {
        self.complaint.clear();
        if self.in_place {
            return print(&format!("\x1b[H\x1b[J{text}"));
        }
        if std::mem::replace(&mut self.mark, mark.to_owned()) == mark {
            return Ok(());
        }
        print(text)
    }

    /// Says once that something has gone wrong; it may be well again the next time.
    pub(crate) fn complain(&mut self, error: &anyhow::Error) -> anyhow::Result<()> {
        let complaint = causes(&**error);
        if complaint != self.complaint {
            writeln!(std::io::stderr(), "tidemark: {complaint}")?;
            self.complaint = complaint;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(code: u16, group: &str) -> Refused {
        let details = json!({"group": group, "kind": "", "name": ""});
        let status = json!({"code": code, "message": "what the server says", "reason": "R", "details": details});
        Refused::of(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        assert!(matches!(refused(404, GROUP), Refused::NoSuchObject));
        for (code, advice) in [
            (404, "no APIService v1alpha1.reasons.tidemark.dev"),
            (403, "`get` and `list` on scaledobjects.reasons.tidemark.dev"),
            (401, "the user of the kubeconfig"),
            (503, "kubectl get apiservice"),
            (501, "kubectl describe scaledobject"),
            (500, "what the server says"),
        ] {
            let told = refused(code, "").advice();
            assert!(told.contains(advice), "{code}: {told}");
        }
    }

    #[test]
    fn a_page_is_asked_for_by_its_escaped_beginning() {
        assert_eq!(page("/a", ""), "/a");
        assert_eq!(page("/a", "shop/b"), "/a?continue=shop%2Fb");
    }
}
