//! `/healthz` and `/readyz`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use tidemark_serving::plain;
use tidemark_trigger::causes;
use tokio_util::sync::CancellationToken;

use super::bind::Bind;

/// The minor versions of Kubernetes 1 that Tidemark is made for.
const KUBERNETES: RangeInclusive<u32> = 30..=37;

/// What a process waits for before it is ready, part by part.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>);

impl Health {
    /// Ready, as long as no part says otherwise.
    pub fn new() -> Self {
        Self::default()
    }

    /// A part is ready, or is not, and why.
    pub fn set(&self, part: &'static str, state: Result<(), String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part, state);
    }

    /// What is not ready, one line each.
    fn lacking(&self) -> String {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lacking = parts.iter().filter_map(|(part, state)| Some((part, state.as_ref().err()?)));
        lacking.map(|(part, why)| format!("{part}: {why}\n")).collect()
    }

    fn answer(&self, path: &str) -> (StatusCode, String) {
        match path.trim_end_matches('/') {
            "/healthz" | "/livez" => (StatusCode::OK, "ok".to_owned()),
            "/readyz" => match self.lacking() {
                lacking if lacking.is_empty() => (StatusCode::OK, "ok".to_owned()),
                lacking => (StatusCode::SERVICE_UNAVAILABLE, lacking),
            },
            _ => (StatusCode::NOT_FOUND, "not found: /healthz and /readyz are served here".to_owned()),
        }
    }
}

/// Serves both over HTTP until `shutdown`.
///
/// # Errors
/// The address is taken.
pub fn serve(bind: Bind, health: Health, shutdown: CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(async move {
        let Some(listener) = bind.listen().await? else {
            shutdown.cancelled().await;
            return Ok(());
        };
        let service = tower::service_fn(move |request: Request<plain::Incoming>| {
            let (status, text) = health.answer(request.uri().path());
            let mut response = Response::new(plain::whole(text));
            *response.status_mut() = status;
            std::future::ready(Ok::<_, Infallible>(response))
        });
        plain::serve(listener, service, shutdown).await;
        Ok(())
    })
}

/// Whether a version of Kubernetes is among those that Tidemark is made for. Providers write the minor one as `33+`.
fn is_known(major: &str, minor: &str) -> bool {
    let minor = minor.trim_end_matches('+').parse::<u32>();
    major == "1" && minor.is_ok_and(|minor| KUBERNETES.contains(&minor))
}

/// Asks the API server whether it is there, until it is; the part is ready from then on.
pub async fn until_answered(health: &Health, client: &kube::Client) {
    const PART: &str = "the API server";
    let mut said = String::new();
    loop {
        match client.apiserver_version().await {
            Ok(version) => {
                tracing::info!(version = version.git_version, "the API server answers");
                if !is_known(&version.major, &version.minor) {
                    let (oldest, newest) = (KUBERNETES.start(), KUBERNETES.end());
                    tracing::warn!(
                        version = version.git_version,
                        "this version of Kubernetes is none of 1.{oldest} to 1.{newest}, with which Tidemark is tested"
                    );
                }
                return health.set(PART, Ok(()));
            }
            Err(error) => {
                let error = causes(&error);
                health.set(PART, Err(error.clone()));
                if error != said {
                    tracing::warn!("waiting for the API server: {error}");
                    said = error;
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_versions_of_kubernetes_are_known_and_others_are_not() {
        assert!(is_known("1", "30") && is_known("1", "33+") && is_known("1", "37"));
        assert!(!is_known("1", "29") && !is_known("2", "30") && !is_known("1", ""));
    }

    #[test]
    fn readiness_names_what_is_waited_for() {
        let health = Health::new();
        assert_eq!(health.answer("/readyz").0, StatusCode::OK);
        health.set("the certificate", Err("not there".to_owned()));
        assert_eq!(
            health.answer("/readyz"),
            (StatusCode::SERVICE_UNAVAILABLE, "the certificate: not there\n".to_owned())
        );
        assert_eq!(health.answer("/healthz").0, StatusCode::OK, "it lives");
        health.set("the certificate", Ok(()));
        assert_eq!(health.answer("/readyz").0, StatusCode::OK);
    }
}
