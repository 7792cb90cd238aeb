//! Pushing metrics at intervals.

use futures::future::BoxFuture;
use prost::Message;
use tidemark_clock::Clock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::encode::{Reached, Requests, Temporality};
use super::settings::Settings;
use super::transport::{SetupError, Transport};
use crate::series::Series;

/// Pushes the metrics of a [`Series`] at intervals.
pub struct Pusher {
    settings: Settings,
    transport: Transport,
}

impl Pusher {
    /// Makes ready to push; nothing is sent yet.
    ///
    /// # Errors
    /// A file cannot be read, or endpoint, headers or certificates cannot be used. No value is named.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        let transport = Transport::new(settings.destination.clone())?;
        Ok(Self { settings, transport })
    }

    /// Exports at every interval until `shutdown`, and then once more, for which there is little time.
    ///
    /// A failed export is told in the log, once for each run of failures, and disturbs nothing else.
    pub fn run(self, series: Series, clock: Clock, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut reached = (self.settings.temporality == Temporality::Delta).then(Reached::default);
            let mut failing = false;
            let mut due = Instant::now();
            loop {
                due += self.settings.interval;
                let last = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => true,
                    () = tokio::time::sleep_until(due) => false,
                };
                let within = if last { self.transport.last_words() } else { self.settings.export_timeout };
                let export = tokio::time::timeout(within, self.export(&series, clock, &mut reached));
                let outcome = match last {
                    true => export.await,
                    // An export that is under way must not hold the end up; what it would have told, the last one tells.
                    false => match shutdown.run_until_cancelled(export).await {
                        Some(outcome) => outcome,
                        None => continue,
                    },
                };
                match outcome.unwrap_or_else(|_| Err("not done in time".to_owned())) {
                    Ok(()) if failing => {
                        failing = false;
                        tracing::info!("metrics are pushed again");
                    }
                    Ok(()) => {}
                    Err(message) if !failing => {
                        failing = true;
                        tracing::warn!("cannot push metrics, and goes on trying: {message}");
                    }
                    Err(message) => tracing::debug!("cannot push metrics: {message}"),
                }
                if last {
                    return;
                }
                // What could not be told in time is told with the next export.
                due = due.max(Instant::now());
            }
        })
    }

    async fn export(&self, series: &Series, clock: Clock, reached: &mut Option<Reached>) -> Result<(), String> {
        let snapshot = series.snapshot();
        let resource = self.settings.resource.clone();
        let mut requests = Requests::new(&snapshot, clock.now(), resource, reached.as_ref());
        for request in requests.by_ref() {
            self.transport.send(request.encode_to_vec().into()).await?;
            // Many series: others have work to do as well.
            tokio::task::yield_now().await;
        }
        if let Some(now) = requests.reached() {
            *reached = Some(now);
        }
        Ok(())
    }
}
