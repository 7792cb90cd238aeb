//! The small programs that the examples run: a job queue over HTTP with its worker and its load; a consumer and a
//! producer for RabbitMQ; an HTTP service that measures its requests, its load, and a gateway that asks for a token. They are real programs, so that what scales them is seen at real work: a lost worker's job
//! is done by another one, and a worker that is told to stop finishes the job that it has.

mod amqp;
mod gateway;
mod load;
mod output;
mod period;
mod queue;
mod requests;
mod web;
mod worker;

use std::future::Future;

use clap::Subcommand;
use futures::future::BoxFuture;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// One of the programs.
#[derive(Debug, Subcommand)]
pub enum Demo {
    /// A job queue over HTTP
    Queue(queue::Args),
    /// Takes jobs from the queue and works on them, one at a time
    Worker(worker::Args),
    /// Adds jobs to the queue, in waves or once
    Load(load::Args),
    /// Takes messages from a RabbitMQ queue and works on them, one at a time
    RabbitmqConsumer(amqp::ConsumerArgs),
    /// Puts messages into a RabbitMQ queue
    RabbitmqProducer(amqp::ProducerArgs),
    /// An HTTP service that measures its requests and pushes what it has measured over OTLP
    HttpApp(web::Args),
    /// Sends requests to an HTTP service, in waves or without end
    HttpLoad(requests::Args),
    /// Lets requests through to a service when they show the right bearer token
    BearerProxy(gateway::Args),
}

/// Runs a program until it is done, or until SIGTERM or Ctrl-C: then work in hand is finished, and no more begun.
///
/// # Errors
/// The program cannot do its work, and trying again would not help.
// Boxed here, so that the programs are compiled with this crate and not again with the command.
pub fn run(demo: Demo) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(async move {
        let stop = CancellationToken::new();
        let asked_to_stop = stop_signal()?;
        let program = program(demo, stop.clone());
        tokio::pin!(program);
        tokio::select! {
            biased;
            outcome = &mut program => return outcome,
            () = asked_to_stop => stop.cancel(),
        }
        program.await
    })
}

async fn program(demo: Demo, stop: CancellationToken) -> anyhow::Result<()> {
    match demo {
        Demo::Queue(args) => queue::run(args, stop).await,
        Demo::Worker(args) => worker::run(args, stop).await,
        Demo::Load(args) => load::run(args, stop).await,
        Demo::RabbitmqConsumer(args) => amqp::consume(args, stop).await,
        Demo::HttpApp(args) => web::run(args, stop).await,
        Demo::HttpLoad(args) => requests::run(args, stop).await,
        Demo::BearerProxy(args) => gateway::run(args, stop).await,
        Demo::RabbitmqProducer(args) => {
            tokio::select! {
                biased;
                () = stop.cancelled() => anyhow::bail!("stopped before all messages were confirmed"),
                outcome = amqp::produce(args) => outcome,
            }
        }
    }
}

fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::Subcommand as _;

    #[test]
    fn the_arguments_of_all_programs_go_together() {
        super::Demo::augment_subcommands(clap::Command::new("demo")).debug_assert();
    }
}
