//! `cargo xtask demo`: an example with everything it needs, by one command.

mod plot;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::network::free_ports;
use crate::process_group::ProcessGroup;
use crate::promql::Prometheus;
use crate::services::collector::Pipeline;
use crate::services::{self, Running, rabbitmq};
use crate::test::workspace;
use plot::{Curve, Panel};

const USAGE: &str = "usage: cargo xtask demo rabbitmq|http [--plot FILE]";
/// The token that opens Prometheus to the HTTP example, as its Secret has it.
const TOKEN: &str = "the-token-of-this-example";
/// How often Tidemark and the examples tell their metrics, in milliseconds.
const EXPORT_INTERVAL: &str = "1000";
/// Messages that are sent to RabbitMQ at once, and how long it is until the next come.
const MESSAGES: &str = "100";
const WAVE: Duration = Duration::from_secs(150);

/// One of the demos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Rabbitmq,
    Http,
}

impl Name {
    fn folder(self) -> PathBuf {
        workspace().join("examples").join(match self {
            Self::Rabbitmq => "rabbitmq",
            Self::Http => "http",
        })
    }

    /// How long after its start it has been up and down once.
    fn one_wave(self) -> Duration {
        match self {
            Self::Rabbitmq => Duration::from_secs(100),
            Self::Http => Duration::from_secs(225),
        }
    }

    /// What is to be seen of it in Prometheus.
    fn panels(self) -> Vec<Panel> {
        match self {
            Self::Rabbitmq => vec![
                Panel {
                    title: "messages",
                    curves: vec![
                        Curve::new("waiting in the queue", r#"rabbitmq_queue_messages_ready{queue="work_queue"}"#),
                        Curve::new(
                            "keda_scaler_metrics_value",
                            r#"keda_scaler_metrics_value{scaledObject="rabbitmq-consumer"}"#,
                        ),
                    ],
                },
                Panel {
                    title: "consumers",
                    curves: vec![Curve::new("of the queue", r#"rabbitmq_queue_consumers{queue="work_queue"}"#)],
                },
            ],
            Self::Http => vec![
                Panel {
                    title: "requests per second",
                    curves: vec![
                        Curve::new(
                            "the trigger's query",
                            r#"sum(rate({otel_metric_name="http.server.duration", service_name="http-app"}[1m]))"#,
                        ),
                        Curve::new(
                            "keda_scaler_metrics_value",
                            r#"keda_scaler_metrics_value{scaledObject="http-scaler"}"#,
                        ),
                    ],
                },
                Panel {
                    title: "replicas",
                    curves: vec![Curve::new(
                        "processes that push",
                        r#"count(count_over_time(target_info{job="http-app"}[3s]))"#,
                    )],
                },
            ],
        }
    }
}

/// # Errors
/// The arguments are wrong; a server or the command cannot be built, installed or started; the plot cannot be made.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (name, plot) = match arguments[..] {
        [name] => (name, None),
        [name, "--plot", file] | ["--plot", file, name] => (name, Some(PathBuf::from(file))),
        _ => bail!("{USAGE}"),
    };
    let name = match name {
        "rabbitmq" => Name::Rabbitmq,
        "http" => Name::Http,
        other => bail!("there is no demo {other:?}\n{USAGE}"),
    };
    let tidemark = build()?;
    let mut stage = Stage::set(name, &tidemark)?;
    match plot {
        None => stage.show(),
        Some(file) => stage.record(&file).map(|()| ExitCode::SUCCESS),
    }
}

/// The `tidemark` command of this checkout.
fn build() -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--package", "tidemark", "--bin", "tidemark", "--message-format=json-render-diagnostics"])
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "tidemark cannot be built");
    let mut built = output.stdout.split(|byte| *byte == b'\n').rev();
    let executable = built.find_map(|line| serde_json::from_slice::<Message>(line).ok()?.executable);
    executable.context("cargo names no executable")
}

/// The servers of a demo, and its manifests with their addresses.
struct Stage {
    name: Name,
    tidemark: PathBuf,
    manifests: PathBuf,
    pipeline: Pipeline,
    group: ProcessGroup,
    /// The broker and its URL.
    broker: Option<(Running, String)>,
}

impl Stage {
    fn set(name: Name, tidemark: &Path) -> Result<Self> {
        let folder = name.folder();
        let mut group = ProcessGroup::start("demo")?;
        let telemetry = folder.join("telemetry");
        let (pipeline, broker, changes) = match name {
            Name::Rabbitmq => {
                let broker = services::start(&["rabbitmq".to_owned()])?.pop().context("the broker was started")?;
                let pipeline =
                    Pipeline::start(&telemetry, &[("127.0.0.1:15692", broker.variable(rabbitmq::METRICS)?)])?;
                let url = broker.variable(rabbitmq::AMQP)?.to_owned();
                let address = url.trim_start_matches("amqp://guest:guest@").trim_end_matches('/').to_owned();
                (pipeline, Some((broker, url)), vec![("localhost:5672", address)])
            }
            Name::Http => {
                let pipeline = Pipeline::start(&telemetry, &[])?;
                let [gateway, app] = free_ports()?.map(|port| format!("127.0.0.1:{port}"));
                let token = group.directory().join("token");
                fs::write(&token, TOKEN)?;
                let mut command = Command::new(tidemark);
                command.args(["demo", "bearer-proxy", "--listen", &gateway, "--to", &pipeline.prometheus()]);
                command.arg("--token-file").arg(&token);
                group.spawn("gateway", command)?;
                let otlp = pipeline.otlp().trim_start_matches("http://").to_owned();
                (pipeline, None, vec![("127.0.0.1:9091", gateway), ("127.0.0.1:8080", app), ("127.0.0.1:4318", otlp)])
            }
        };
        let manifests = group.directory().join("manifests");
        copy(&folder, &manifests, &changes)?;
        Ok(Self { name, tidemark: tidemark.to_owned(), manifests, pipeline, group, broker })
    }

    fn up(&self) -> Command {
        let mut command = Command::new(&self.tidemark);
        command
            .arg("up")
            .arg(&self.manifests)
            .args(["--port", "0", "--enable-opentelemetry-metrics=true"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", self.pipeline.otlp())
            .env("OTEL_METRIC_EXPORT_INTERVAL", EXPORT_INTERVAL);
        command
    }

    /// Runs `up` on this terminal until it ends.
    fn show(&mut self) -> Result<ExitCode> {
        println!("Prometheus: {}", self.pipeline.prometheus());
        for curve in self.name.panels().iter().flat_map(|panel| &panel.curves) {
            println!("  {}", curve.query);
        }
        if self.name == Name::Http {
            println!("the token that opens it is in {}", self.group.directory().join("token").display());
        }
        println!("manifests, to be edited while they run: {}", self.manifests.display());
        self.produce()?;
        let mut up = self.up().spawn().context("cannot start tidemark")?;
        let mut silence = Duration::ZERO;
        loop {
            if let Some(status) = up.try_wait()? {
                return Ok(status
                    .code()
                    .and_then(|code| u8::try_from(code).ok())
                    .map_or(ExitCode::FAILURE, ExitCode::from));
            }
            thread::sleep(Duration::from_secs(1));
            silence += Duration::from_secs(1);
            if silence >= WAVE {
                silence = Duration::ZERO;
                self.produce()?;
            }
            self.check()?;
        }
    }

    /// Runs `up` for one wave of load and draws it.
    fn record(&mut self, file: &Path) -> Result<()> {
        let prometheus = Prometheus::new(&self.pipeline.prometheus())?;
        let start = prometheus.now()?;
        if self.broker.is_some() {
            self.send("0")?;
        }
        let mut up = self.up();
        up.arg("--plain");
        self.group.spawn("up", up)?;
        let wave = self.name.one_wave().as_secs_f64();
        eprintln!("one wave takes {wave} s ...");
        let mut elapsed = 0.0;
        let mut sent = false;
        while elapsed < wave {
            // The first seconds show how it is without load.
            if elapsed > 15.0 && !sent {
                self.produce()?;
                sent = true;
            }
            thread::sleep(Duration::from_secs(1));
            self.check()?;
            elapsed = prometheus.now()? - start;
        }
        let panels: Result<Vec<_>> = self
            .name
            .panels()
            .into_iter()
            .map(|panel| panel.read(|query| prometheus.range(query, start, elapsed)))
            .collect();
        fs::write(file, plot::svg(&panels?, elapsed)).with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("{} is drawn", file.display());
        Ok(())
    }

    /// Sends a wave of messages, where there is a broker; elsewhere the load is among the manifests.
    fn produce(&self) -> Result<()> {
        match self.broker {
            Some(_) => self.send(MESSAGES),
            None => Ok(()),
        }
    }

    fn send(&self, count: &str) -> Result<()> {
        let Some((_, url)) = &self.broker else { return Ok(()) };
        let output = Command::new(&self.tidemark)
            .args(["demo", "rabbitmq-producer", "--count", count])
            .env("AMQP_URL", url)
            .output()
            .context("cannot start the producer")?;
        ensure!(output.status.success(), "the producer: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// # Errors
    /// When a server has ended by itself.
    fn check(&mut self) -> Result<()> {
        self.pipeline.check()?;
        if let Some((broker, _)) = &mut self.broker {
            broker.check()?;
        }
        match self.group.ended()? {
            Some((name, status)) => bail!("{name} ended ({status}):\n{}", self.group.log_tail(&name, 20)),
            None => Ok(()),
        }
    }
}

/// Copies the manifests of an example, with other addresses in them.
fn copy(example: &Path, folder: &Path, changes: &[(&str, String)]) -> Result<()> {
    fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for entry in fs::read_dir(example).with_context(|| format!("cannot read {}", example.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let text = changes.iter().fold(text, |text, (from, to)| text.replace(from, to));
            fs::write(folder.join(path.file_name().context("the file has a name")?), text)?;
        }
    }
    Ok(())
}
