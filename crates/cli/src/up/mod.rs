//! `tidemark up`: the whole system on this machine.

mod files;
mod line;
mod place;
mod screen;
mod table;
mod terminal;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use kube::Client;
use tidemark_clock::Clock;
use tidemark_operator::{Handle, Operator, Settings};
use tidemark_sandbox::{Options, Pods, Sandbox, process};
use tidemark_serving::certificates::{Authority, random_token};
use tidemark_serving::front_proxy::Access;
use tidemark_serving::guard::Guard;
use tidemark_serving::https;
use tidemark_serving::tls::{Clients, Policy, server_config};
use tidemark_telemetry::logs::LogLayer;
use tidemark_trigger::{Door, DoorSettings};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::Up;
use crate::manifests::{self, Manifest};
use crate::metrics::{self, OperatorMetrics};
use crate::operator::telling::{self, Telling};
use crate::operator::{narration, reasons};
use crate::process::otlp::{self, LogExport};
use crate::process::run::{Parts, Signals, again};
use crate::webhooks::{self, Admission};
use crate::{apply, kubeconfig};
use files::{Files, Seen, Teller};

/// Where things of this run are, for the user's eye.
pub(crate) struct Places {
    server: String,
    kubeconfig: PathBuf,
    logs: PathBuf,
}

/// Runs until Ctrl-C or SIGTERM; then ends the pods and removes the kubeconfig. A second signal ends everything at once.
///
/// # Errors
/// The port is taken, a folder cannot be written, nothing at all could be applied, standard output is closed, or a part
/// of the system has broken down.
pub async fn run(args: Up) -> anyhow::Result<()> {
    let seen = Seen::now(&args.paths);
    let mut contents = manifests::read(&args.paths);
    // Not before: reading a pipe may take for ever, and is ended by the signal itself.
    let signals = Signals::listen()?;
    manifests::sort_by_need(&mut contents.manifests);
    // Dropped when the run is over.
    let (listener, places, _alive) = place::find(args.port, args.kubeconfig.as_deref()).await?;
    let live = !args.plain && std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
    let clock = Clock::system();
    let (layer, export) = LogExport::start(&args.otlp, telling::SERVICE, clock);
    log(live, &places, layer)?;
    export.tell_problems();
    report(&contents.errors);
    if contents.manifests.is_empty() && !args.paths.is_empty() {
        let why = if contents.errors.is_empty() { "the files hold no manifest" } else { "no manifest could be read" };
        anyhow::bail!("nothing to run: {why}");
    }
    let sandbox = Sandbox::new(clock, options(&args, &places)?);
    sandbox.install_crds(&tidemark_api::crds()).context("the CustomResourceDefinitions are refused")?;
    let door = Door::new(clock, DoorSettings::default());
    let settings =
        Settings { cluster_object_namespace: Some(args.cluster_object_namespace.clone()), ..Settings::default() };
    let (operator, handle) = Operator::new(sandbox.client(), door, settings);
    metrics::mount(&sandbox, Arc::new(OperatorMetrics::new(handle.clone())), Access::Open);

    let stages = Stages::default();
    let mut parts = Parts::default();
    let prometheus = args.enable_prometheus_metrics.then_some(args.metrics_bind_address);
    let mut telling = Telling::new(telling::Options::of(prometheus, &args.metrics), clock);
    telling.start(&mut parts, clock, &stages.controllers);
    telling.record(&mut parts, &handle, &stages.controllers);
    let seed = otlp::seed()?;
    otlp::start_traces(&args.otlp, (telling::SERVICE, seed), &mut parts, &handle, clock, &stages.controllers);
    parts.start("the narration", narration::run(&handle, seed, stages.controllers.clone()));
    let ids = otlp::trace_ids(&args.otlp, seed);
    let told = reasons::remember(&mut parts, &handle, clock, ids, &stages.controllers);
    reasons::mount(&sandbox, told);
    let admission = Admission::new(sandbox.client(), clock, "up", Vec::new());
    webhooks::register(&sandbox, &admission.service());
    parts.start("admission", admission.run(stages.controllers.clone()));
    let api = serve(listener, &sandbox, &places, clock, stages.api.clone())?;
    parts.start("the Kubernetes API", api);
    let (controllers, stop) = (sandbox.clone(), stages.controllers.clone());
    parts.start("the controllers", async move { controllers.run(stop).await });

    apply::namespace(&sandbox.client(), &args.cluster_object_namespace).await?;
    let mut run = Run { signals, parts, stages, live, places: &places };
    let files = Files::new(seen, &contents.errors);
    let outcome = run.work(sandbox.client(), operator, &handle, (files, contents.manifests), args.no_watch).await;
    let Run { parts, stages, .. } = run;
    let ended = tokio::select! {
        biased;
        () = stages.end(parts) => Ok(()),
        again = again() => again.and(Err(anyhow!("stopped at once by a second signal"))),
    };
    kubeconfig::remove(&places.kubeconfig, &places.server);
    export.end().await;
    outcome.and(ended)
}

/// What runs, and what may end it.
struct Run<'a> {
    signals: Signals,
    parts: Parts,
    stages: Stages,
    live: bool,
    places: &'a Places,
}

impl Run<'_> {
    /// Applies the manifests, then scales and shows what happens, until a stop is asked for.
    async fn work(
        &mut self,
        client: Client,
        operator: Operator,
        handle: &Handle,
        (mut files, manifests): (Files, Vec<Manifest>),
        no_watch: bool,
    ) -> anyhow::Result<()> {
        let applied = async { Ok(files.apply_first(&client, &manifests).await) };
        let Some(accepted) = self.parts.do_while_they_run(&mut self.signals, applied).await? else { return Ok(()) };
        if !accepted && !manifests.is_empty() {
            anyhow::bail!("nothing to run: no manifest was accepted");
        }
        let (problems, shown_problems) = watch::channel(files.problems());
        let (news, shown_news) = mpsc::unbounded_channel();
        self.parts.start_fallible("the operator", operator.run(self.stages.operator.clone()));
        let shown = async {
            match self.live {
                true => screen::show(handle, self.places, shown_problems, shown_news).await,
                false => line::print(handle, self.places, shown_news).await,
            }
        };
        let shown = async {
            if no_watch {
                return shown.await;
            }
            tokio::select! {
                biased;
                ended = shown => ended,
                () = files.follow(client, Teller { problems, news }) => Ok(()),
            }
        };
        self.parts.do_while_they_run(&mut self.signals, shown).await.map(drop)
    }
}

/// What is told to stop. The pods still have an API while they end.
#[derive(Default)]
struct Stages {
    operator: CancellationToken,
    controllers: CancellationToken,
    api: CancellationToken,
}

impl Stages {
    async fn end(self, mut parts: Parts) {
        self.operator.cancel();
        self.controllers.cancel();
        // The API is the last part that is left; it is told once the others have ended.
        while parts.left() > 1 && parts.join_one().await {}
        self.api.cancel();
        while parts.join_one().await {}
    }
}

/// On the live screen the log would tear the picture, so it goes to a file. Beside plain lines, which tell it in their own
/// words, the narration does not go to standard error.
fn log(live: bool, places: &Places, export: Option<LogLayer>) -> anyhow::Result<()> {
    let lines = tracing_subscriber::fmt::layer().log_internal_errors(false);
    let log = tracing_subscriber::registry().with(crate::process::logging::filter("info")).with(export);
    if live {
        let path = places.logs.join("tidemark.log");
        let file = std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        log.with(lines.with_ansi(false).with_writer(Arc::new(file))).init();
    } else {
        // Where standard error is closed, saying so there would be a panic: hence no internal errors above.
        let lines = lines.with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
        log.with(lines.with_filter(filter_fn(|line| line.target() != narration::TARGET))).init();
    }
    Ok(())
}

fn report(errors: &[manifests::Error]) {
    for error in errors {
        tracing::error!("{error}");
    }
}

fn options(args: &Up, places: &Places) -> anyhow::Result<Options> {
    let pods = if args.simulate_pods {
        Pods::Simulated
    } else {
        let exe = std::env::current_exe().context("cannot find this program's own file")?;
        let here = std::env::current_dir().context("cannot find the working directory")?;
        let path_prefix = exe.parent().unwrap_or(Path::new("/")).to_owned();
        Pods::Processes(process::Settings { path_prefix, ..process::Settings::new(exe, places.logs.clone(), here) })
    };
    Ok(Options { pods, ..Options::default() })
}

fn serve(
    listener: TcpListener,
    sandbox: &Sandbox,
    places: &Places,
    clock: Clock,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let authority = Authority::new("tidemark up", clock.now())?;
    let pair = authority.server(&["127.0.0.1", "localhost"])?;
    let tls = server_config(&pair, Clients::None, &Policy::default())?;
    let token = random_token()?;
    kubeconfig::write(&places.kubeconfig, &places.server, &authority.certificate(), &token)?;
    let service = Guard::new(sandbox.service(), token);
    Ok(https::serve(listener, watch::Sender::new(Arc::new(tls)).subscribe(), service, stop))
}

/// A text on one line: what comes from elsewhere must not move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The line that makes a shell's kubectl use the kubeconfig.
fn export(places: &Places) -> String {
    let path = places.kubeconfig.display().to_string();
    let plain = path.chars().all(|c| c.is_alphanumeric() || "/._-+".contains(c));
    match plain {
        true => format!("export KUBECONFIG={path}"),
        false => format!("export KUBECONFIG='{}'", path.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_a_shell_would_take_apart_is_quoted() {
        let line =
            |path: &str| export(&Places { server: String::new(), kubeconfig: path.into(), logs: PathBuf::new() });
        assert_eq!(
            line("/home/ann/.local/state/tidemark/6445/kubeconfig"),
            "export KUBECONFIG=/home/ann/.local/state/tidemark/6445/kubeconfig"
        );
        assert_eq!(line("/my files/ann's"), r"export KUBECONFIG='/my files/ann'\''s'");
    }

    #[test]
    fn nothing_from_elsewhere_moves_the_cursor() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a [2Jb c");
    }
}
