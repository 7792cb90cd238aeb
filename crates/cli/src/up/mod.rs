//! `tidemark up`: the whole system on this machine.

mod line;
mod screen;
mod table;

use std::io::IsTerminal;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tidemark_clock::Clock;
use tidemark_operator::{Handle, Operator, Settings};
use tidemark_sandbox::{Options, Pods, Sandbox, process};
use tidemark_serving::certificates::{Authority, random_token, server_config};
use tidemark_serving::front_proxy::Access;
use tidemark_serving::guard::Guard;
use tidemark_serving::https;
use tidemark_trigger::{Door, DoorSettings};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::Up;
use crate::manifests;
use crate::metrics::{self, OperatorMetrics};
use crate::{apply, kubeconfig, signals};

/// Where things of this run are, for the user's eye.
pub(crate) struct Places {
    server: String,
    kubeconfig: PathBuf,
    logs: PathBuf,
}

/// Runs until Ctrl-C or SIGTERM; then ends the pods and removes the kubeconfig.
///
/// # Errors
/// The port is taken, a folder cannot be written, or nothing at all could be applied.
pub async fn run(args: Up) -> anyhow::Result<()> {
    let contents = manifests::read(&args.paths);
    let (listener, places) = places(&args).await?;
    let live = !args.plain && std::io::stdout().is_terminal();
    log(live, &places)?;
    report(&contents.errors);
    if contents.manifests.is_empty() && !contents.errors.is_empty() {
        anyhow::bail!("nothing to run: no manifest could be read");
    }

    let clock = Clock::system();
    let sandbox = Sandbox::new(clock, options(&args, &places)?);
    sandbox.install_crds(&tidemark_api::crds()).context("the CustomResourceDefinitions are refused")?;
    let door = Door::new(clock, DoorSettings::default());
    let (operator, handle) = Operator::new(sandbox.client(), door, Settings::default());
    metrics::mount(&sandbox, Arc::new(OperatorMetrics::new(handle.clone())), Access::Open);

    // Three stages, so that the pods still have an API while they end, and the API outlives the operator.
    let stages = Stages::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, &sandbox, &places, clock, stages.api.clone())?);
    tasks.spawn({
        let (sandbox, stop) = (sandbox.clone(), stages.controllers.clone());
        async move { sandbox.run(stop).await }
    });
    let client = sandbox.client();
    let mut problems: Vec<String> = contents.errors.iter().map(ToString::to_string).collect();
    let mut applied = 0;
    for manifest in &contents.manifests {
        match apply::apply(&client, manifest).await {
            Ok(_) => applied += 1,
            Err(error) => {
                tracing::error!("{error}");
                problems.push(error.to_string());
            }
        }
    }
    let outcome = if applied == 0 && !args.paths.is_empty() {
        Err(anyhow::anyhow!("nothing to run: no manifest was accepted"))
    } else {
        let stop = stages.operator.clone();
        tasks.spawn(async move {
            if let Err(error) = operator.run(stop).await {
                tracing::error!("the operator failed: {error}");
            }
        });
        watch(live, &handle, &places, &problems).await
    };
    stages.end(tasks).await;
    kubeconfig::remove(&places.kubeconfig, &places.server);
    outcome
}

/// What is told to stop, in this order.
#[derive(Default)]
struct Stages {
    operator: CancellationToken,
    controllers: CancellationToken,
    api: CancellationToken,
}

impl Stages {
    async fn end(self, mut tasks: JoinSet<()>) {
        self.operator.cancel();
        self.controllers.cancel();
        // The API is the last task that is left; it is told once the others have ended.
        while tasks.len() > 1 && tasks.join_next().await.is_some() {}
        self.api.cancel();
        while tasks.join_next().await.is_some() {}
    }
}

async fn places(args: &Up) -> anyhow::Result<(TcpListener, Places)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await.with_context(|| {
        format!("cannot listen on port {} of 127.0.0.1: if another `tidemark up` runs, give --port 0", args.port)
    })?;
    let port = listener.local_addr()?.port();
    let folder = kubeconfig::state_folder()?.join(port.to_string());
    // Absolute, so that what is printed works from any folder.
    let kubeconfig = std::path::absolute(args.kubeconfig.clone().unwrap_or_else(|| folder.join("kubeconfig")))
        .context("cannot find the working directory")?;
    let logs = folder.join("logs");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make the folder {}", logs.display()))?;
    Ok((listener, Places { server: format!("https://127.0.0.1:{port}"), kubeconfig, logs }))
}

/// On the live screen the log would tear the picture, so it goes to a file.
fn log(live: bool, places: &Places) -> anyhow::Result<()> {
    let builder = tracing_subscriber::fmt().with_env_filter(crate::log_filter());
    if live {
        let path = places.logs.join("tidemark.log");
        let file = std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        builder.with_ansi(false).with_writer(Arc::new(file)).init();
    } else {
        builder.with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
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
    let tls = server_config(&pair, None)?;
    let token = random_token()?;
    kubeconfig::write(&places.kubeconfig, &places.server, &authority.certificate(), &token)?;
    let service = Guard::new(sandbox.service(), token);
    Ok(https::serve(listener, Arc::new(tls), service, stop))
}

async fn watch(live: bool, operator: &Handle, places: &Places, problems: &[String]) -> anyhow::Result<()> {
    if live {
        screen::show(operator, places, problems, signals::stop()).await
    } else {
        line::print(operator, places, signals::stop()).await
    }
}
