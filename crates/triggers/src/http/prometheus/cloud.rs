//! Logins with the identity of a cloud. They are parsed, so that manifests are judged as KEDA judges them, and refused
//! when the trigger connects: a request without the login that was meant would only be answered with a riddle.

use tidemark_trigger::{Parameters, ParseError, Secret, TriggerInput};

/// The pod identity of Azure.
pub(super) const AZURE_WORKLOAD: &str = "azure-workload";

/// The parameters of cloud logins.
#[derive(Parameters)]
pub(super) struct Cloud {
    /// Region of Amazon Managed Prometheus. Logins of AWS are not supported yet.
    #[param(from = "metadata auth", plain)]
    aws_region: Option<String>,
    /// Whose AWS login: `pod` or `operator`. Logins of AWS are not supported yet.
    #[param(from = "metadata")]
    identity_owner: Option<String>,
    /// Cloud of Azure Managed Prometheus, with the pod identity `azure-workload`, which is not supported yet.
    #[param(from = "metadata", default = "AzurePublicCloud")]
    cloud: String,
    /// Resource of Azure Managed Prometheus in the cloud `Private`.
    #[param(name = "azureManagedPrometheusResourceURL", from = "metadata")]
    azure_managed_prometheus_resource_url: Option<String>,
    /// JSON of a service account of Google Cloud. Its logins are not supported yet.
    #[param(from = "env")]
    credentials: Option<Secret>,
    /// Environment variable with the path of such a JSON.
    #[param(from = "metadata")]
    credentials_from_env_file: Option<String>,
    /// JSON of a service account of Google Cloud. Its logins are not supported yet.
    #[param(name = "GoogleApplicationCredentials", from = "auth")]
    google_application_credentials: Option<Secret>,
    /// Role of AWS. Logins of AWS are not supported yet.
    #[param(from = "auth")]
    aws_role_arn: Option<Secret>,
    /// Access key of AWS. Logins of AWS are not supported yet.
    #[param(name = "awsAccessKeyID", alias = "awsAccessKeyId", from = "auth metadata env")]
    aws_access_key_id: Option<Secret>,
    /// Secret of `awsAccessKeyID`.
    #[param(from = "auth env")]
    aws_secret_access_key: Option<Secret>,
    /// Session token of `awsAccessKeyID`.
    #[param(from = "auth")]
    aws_session_token: Option<Secret>,
}

impl Cloud {
    /// Whether the cloud is one that has Azure Managed Prometheus.
    pub fn check_azure(&self) -> Result<(), ParseError> {
        let cloud = &self.cloud;
        match cloud.to_ascii_uppercase().as_str() {
            "AZUREPUBLICCLOUD" | "AZURECLOUD" | "AZUREUSGOVERNMENT" | "AZUREUSGOVERNMENTCLOUD" | "AZURECHINACLOUD" => {
                Ok(())
            }
            "PRIVATE" if self.azure_managed_prometheus_resource_url.is_some() => Ok(()),
            "PRIVATE" => {
                let name = "azureManagedPrometheusResourceURL";
                Err(ParseError::new(name, format!("{name} must be provided for Private cloud type")))
            }
            "AZUREGERMANCLOUD" | "AZURESTACKCLOUD" => {
                let message = format!("azure managed prometheus is not available in cloud {cloud}");
                Err(ParseError::new("cloud", message))
            }
            _ => Err(ParseError::new("cloud", format!("invalid cloud environment {cloud}"))),
        }
    }

    /// The cloud login that the parameters ask for, in words.
    pub fn wanted(&self, identity: Option<&str>) -> Option<String> {
        if let Some(known @ (AZURE_WORKLOAD | "gcp" | "aws")) = identity {
            return Some(format!("the pod identity {known}"));
        }
        let google = self.credentials.is_some()
            || self.credentials_from_env_file.is_some()
            || self.google_application_credentials.is_some();
        if google {
            return Some("a service account of Google Cloud".to_owned());
        }
        if let Some(owner) = self.identity_owner.as_deref().filter(|owner| *owner != "pod") {
            return Some(format!("the AWS login of identityOwner {owner}"));
        }
        let key = self.aws_access_key_id.is_some() && self.aws_secret_access_key.is_some();
        (key || self.aws_role_arn.is_some()).then(|| "an AWS login".to_owned())
    }
}

/// The provider of the pod identity, if there is one.
pub(super) fn pod_identity(input: &TriggerInput) -> Option<&str> {
    input.pod_identity.as_deref().filter(|provider| !matches!(*provider, "" | "none"))
}

/// The message on a cloud login.
pub(super) fn refusal(what: &str) -> String {
    format!("{what} is not supported yet by the prometheus trigger")
}
