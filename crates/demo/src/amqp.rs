//! A consumer and a producer for RabbitMQ.

use std::time::Duration;

use anyhow::{Context, anyhow};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Connection, ConnectionProperties, Consumer};
use tokio_util::sync::CancellationToken;

use crate::output::{Troubles, say};

/// Between two attempts to reach a broker or a queue that is not there.
const RETRY: Duration = Duration::from_secs(1);
/// Deadline of what the broker is asked for, the connection included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Messages sent before their confirmations are waited for.
const BATCH: u32 = 1000;
/// Delivery mode of messages that outlive the broker.
const PERSISTENT: u8 = 2;
/// Reply code of an orderly close.
const GOODBYE: u16 = 200;

/// Where the queue is.
#[derive(Debug, clap::Args)]
struct Queue {
    /// The broker
    #[arg(long, env = "AMQP_URL", default_value = "amqp://guest:guest@localhost:5672/", hide_env_values = true)]
    url: String,
    /// Name of the queue
    #[arg(long, value_name = "NAME", default_value = "work_queue")]
    queue: String,
}

/// Arguments of the consumer.
#[derive(Debug, clap::Args)]
pub struct ConsumerArgs {
    #[command(flatten)]
    queue: Queue,
    /// Work for a message, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    work: u64,
}

/// Arguments of the producer.
#[derive(Debug, clap::Args)]
pub struct ProducerArgs {
    #[command(flatten)]
    queue: Queue,
    /// Messages to send; with 0 the queue is only declared
    #[arg(long, value_name = "N", default_value_t = 100)]
    count: u32,
}

/// Works on messages until it is told to stop, and waits for a broker or queue that is not there. What it has not
/// acknowledged goes back into the queue when it dies.
pub(crate) async fn consume(args: ConsumerArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let mut troubles = Troubles::default();
    loop {
        let opened = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            opened = within(open(&args.queue)) => opened,
        };
        let outcome = match opened {
            Ok((connection, consumer)) => {
                troubles.over();
                say(format_args!("consumer takes messages from {}", args.queue.queue));
                deliveries(consumer, args.work, &stop).await.map(|()| connection)
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(connection) => return close(&connection).await,
            Err(error) => troubles.say(&error),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn open(queue: &Queue) -> anyhow::Result<(Connection, Consumer)> {
    let connection = connect(&queue.url).await?;
    let channel = connection.create_channel().await?;
    // One message at a time: what waits in the queue is what nobody works on.
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let name = queue.queue.as_str();
    let consumer = channel
        .basic_consume(name.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .with_context(|| format!("cannot take messages from the queue {name}"))?;
    Ok((connection, consumer))
}

/// Works on what is delivered until it is told to stop; the message in hand is finished then.
async fn deliveries(mut consumer: Consumer, work: u64, stop: &CancellationToken) -> anyhow::Result<()> {
    loop {
        let delivery = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            delivery = consumer.next() => delivery.ok_or_else(|| anyhow!("the broker ended the delivery"))??,
        };
        tokio::time::sleep(Duration::from_millis(work)).await;
        within(async { Ok(delivery.ack(BasicAckOptions::default()).await?) }).await?;
        say(format_args!("message {} done in {work} ms", String::from_utf8_lossy(&delivery.data)));
    }
}

/// Declares the queue, durable, and sends the messages; ends when the broker has confirmed them all.
pub(crate) async fn produce(args: ProducerArgs) -> anyhow::Result<()> {
    let queue = args.queue.queue.as_str();
    let connection = within(connect(&args.queue.url)).await?;
    let channel = within(async { Ok(connection.create_channel().await?) }).await?;
    within(async {
        channel
            .queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default())
            .await
            .with_context(|| format!("cannot declare the queue {queue}"))?;
        Ok(channel.confirm_select(ConfirmSelectOptions::default()).await?)
    })
    .await?;
    let persistent = BasicProperties::default().with_delivery_mode(PERSISTENT);
    for first in (0..args.count).step_by(BATCH as usize) {
        within(async {
            for number in first..args.count.min(first.saturating_add(BATCH)) {
                let (body, options) = (number.to_string(), BasicPublishOptions::default());
                channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), persistent.clone()).await?;
            }
            Ok(channel.wait_for_confirms().await?)
        })
        .await?;
    }
    say(format_args!("{} messages sent to {queue}", args.count));
    close(&connection).await
}

async fn connect(url: &str) -> anyhow::Result<Connection> {
    // No message repeats the URL: it holds the password.
    let mut uri: AMQPUri = url.parse().map_err(|_| anyhow!("the broker's URL is not of the form amqp://HOST:PORT/"))?;
    // With nothing behind the slash the default virtual host is meant, as brokers' documentation has it.
    if uri.vhost.is_empty() {
        uri.vhost = "/".to_owned();
    }
    let place = format!("{}:{}", uri.authority.host, uri.authority.port);
    let connection = Connection::connect_uri(uri, ConnectionProperties::default()).await;
    connection.with_context(|| format!("cannot connect to the broker at {place}"))
}

async fn close(connection: &Connection) -> anyhow::Result<()> {
    within(async { Ok(connection.close(GOODBYE, "done".into()).await?) }).await.context("cannot close the connection")
}

/// Awaits the broker, but not for ever.
async fn within<T>(asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let outcome = tokio::time::timeout(TIMEOUT, asked).await;
    outcome.unwrap_or_else(|_| Err(anyhow!("the broker did not answer within {} s", TIMEOUT.as_secs())))
}
