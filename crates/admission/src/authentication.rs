//! The rules for TriggerAuthentications and ClusterTriggerAuthentications.

use tidemark_api::authentication::OAuth2;
use tidemark_api::{AuthenticationSpec, PodIdentity};
use url::Url;

use crate::{Path, Verdict};

pub(crate) fn review(spec: &AuthenticationSpec, verdict: &mut Verdict) {
    if let Some(identity) = &spec.pod_identity {
        pod_identity(identity, verdict);
    }
    // Whatever the identity: KEDA skips this beside some of them, by mistake.
    if let Some(oauth2) = &spec.oauth2 {
        client_credentials(oauth2, verdict);
    }
}

fn pod_identity(identity: &PodIdentity, verdict: &mut Verdict) {
    let path = Path::of(["spec", "podIdentity"]);
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    match identity.provider.as_str() {
        "azure-workload" => {
            if identity.identity_id.as_deref() == Some("") {
                let text = "identityId of PodIdentity should not be empty: name an identity, or leave the field out";
                verdict.refuse(path.key("identityId"), "", text);
            }
            let host = !empty(&identity.identity_authority_host);
            if host && empty(&identity.identity_tenant_id) {
                let text = "identityTenantId of PodIdentity should not be empty when identityAuthorityHost is set";
                verdict.refuse(path.key("identityTenantId"), "", text);
            } else if !host && identity.identity_tenant_id.as_deref() == Some("") {
                let text = "identityTenantId of PodIdentity should not be empty: name a tenant, or leave the field out";
                verdict.refuse(path.key("identityTenantId"), "", text);
            }
        }
        "aws" => {
            if !empty(&identity.role_arn) && identity.identity_owner.as_deref() == Some("workload") {
                let text = "roleArn of PodIdentity can't be set if KEDA isn't identityOwner: leave one of them out";
                verdict.refuse(path.key("roleArn"), "", text);
            }
            if !empty(&identity.external_id) && empty(&identity.role_arn) {
                let text = "externalID of PodIdentity can't be set if roleArn isn't set: name the role to assume";
                verdict.refuse(path.key("externalID"), "", text);
            }
        }
        _ => {}
    }
}

fn client_credentials(oauth2: &OAuth2, verdict: &mut Verdict) {
    let path = Path::of(["spec", "oauth2"]);
    if oauth2.type_ != "clientCredentials" {
        let text = format!("the type of oauth2 must be clientCredentials, not {:?}", oauth2.type_);
        verdict.refuse(path.key("type"), "", text);
    }
    if oauth2.client_id.is_empty() {
        verdict.refuse(path.key("clientId"), "", "oauth2 needs a clientId");
    }
    if oauth2.token_url.is_empty() {
        verdict.refuse(path.key("tokenUrl"), "", "oauth2 needs a tokenUrl");
    } else if !is_http(&oauth2.token_url) {
        // The text is not told: it may hold a password.
        verdict.refuse(path.key("tokenUrl"), "", "tokenUrl of oauth2 must be an http or https URL with a host");
    }
}

/// As strict as KEDA, which reads URLs as they stand: the parser mends what it can, and what is meant would be a guess.
fn is_http(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let (path, _) = rest.split_once('?').unwrap_or((rest, ""));
    let is_escape = |part: &str| part.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
        && !rest.starts_with(['/', '\\'])
        && !text.contains(|c: char| c.is_ascii_control())
        && path.split('%').skip(1).all(is_escape)
        && Url::parse(text).is_ok_and(|url| url.has_host())
}
