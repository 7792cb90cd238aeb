//! The certificates of the installation, as the operator has them.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use tidemark_serving::certificates::Error;
use tidemark_serving::identity::{self, Identity};
use tidemark_serving::rotation::{ApiService, Settings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::OperatorArgs;
use crate::process::environment;

/// The APIService of the external metrics API, which every installation has, and that of the reasons.
const API_SERVICES: [(&str, bool); 2] =
    [("v1beta1.external.metrics.k8s.io", true), ("v1alpha1.reasons.tidemark.dev", false)];

/// Where the certificates come from.
#[derive(Clone)]
pub enum Source {
    /// The operator makes them: none before it has.
    Rotation(watch::Receiver<Option<Arc<Identity>>>),
    /// Somebody puts them there. The name is the one under which the metrics server comes.
    Folder(PathBuf, String),
}

/// What the flags say of the installation.
pub fn settings(args: &OperatorArgs) -> Settings {
    let mut services = vec![args.operator_service_name.clone(), args.metrics_server_service_name.clone()];
    if args.enable_webhook_patching {
        services.push(args.webhooks_service_name.clone());
    }
    Settings {
        namespace: environment::pod_namespace(),
        secret: args.cert_secret_name.clone(),
        services,
        domain: args.k8s_cluster_domain.clone(),
        api_services: API_SERVICES
            .iter()
            .filter(|_| args.enable_apiservice_patching)
            .map(|(name, expected)| ApiService { name: (*name).to_owned(), expected: *expected })
            .collect(),
        webhooks: args.enable_webhook_patching.then(|| args.validating_webhook_name.clone()),
        field_manager: "tidemark".to_owned(),
    }
}

/// The name under which the metrics server asks for values, unless it is told otherwise.
pub fn name(args: &OperatorArgs) -> String {
    let (service, domain) = (&args.operator_service_name, &args.k8s_cluster_domain);
    format!("{service}.{}.svc.{domain}", environment::pod_namespace())
}

/// Serves with the certificates once they are there, and keeps them up to date, until `shutdown`.
///
/// # Errors
/// The first certificates cannot be used.
pub async fn with_identity(
    source: Source,
    shutdown: CancellationToken,
    serve: impl FnOnce(watch::Receiver<Arc<Identity>>) -> Result<BoxFuture<'static, ()>, Error>,
) -> Result<(), Error> {
    let (identity, following): (_, BoxFuture<'static, ()>) = match source {
        Source::Folder(folder, name) => {
            let Some(followed) = shutdown.run_until_cancelled(identity::follow(folder, true)).await else {
                return Ok(());
            };
            if !followed.0.borrow().lacks([name.as_str()]).is_empty() {
                tracing::warn!(
                    "the certificate is not for {name}: a metrics server that asks under this name will not trust it"
                );
            }
            followed
        }
        Source::Rotation(mut made) => {
            let first = shutdown.run_until_cancelled(first(&mut made)).await.flatten();
            let Some(first) = first else { return Ok(()) };
            let (sender, identity) = watch::channel(first);
            let passing = async move {
                while made.changed().await.is_ok() {
                    if let Some(identity) = made.borrow_and_update().clone() {
                        sender.send_replace(identity);
                    }
                }
            };
            (identity, Box::pin(passing))
        }
    };
    let serving = serve(identity)?;
    let done = shutdown.clone();
    let followed = async {
        tokio::select! {
            biased;
            () = following => {}
            () = done.cancelled() => {}
        }
    };
    tokio::join!(serving, followed);
    Ok(())
}

async fn first(made: &mut watch::Receiver<Option<Arc<Identity>>>) -> Option<Arc<Identity>> {
    made.wait_for(Option::is_some).await.ok()?.clone()
}
