//! In which form an answer is wanted.

use http::HeaderMap;
use http::header::ACCEPT;

use super::failure::Failure;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The object or list itself.
    Object,
    /// `PartialObjectMetadata` or a list of them.
    Metadata,
    /// `Table`.
    Table,
    /// Aggregated discovery.
    Discovery,
}

/// The first form of `Accept` that can be served. Without the header, the object.
pub(crate) fn view(headers: &HeaderMap) -> Result<View, Failure> {
    let mut asked = false;
    for header in headers.get_all(ACCEPT) {
        for range in header.to_str().unwrap_or_default().split(',').filter(|range| !range.trim().is_empty()) {
            asked = true;
            if let Some(view) = served(range) {
                return Ok(view);
            }
        }
    }
    if asked { Err(Failure::not_acceptable()) } else { Ok(View::Object) }
}

fn served(range: &str) -> Option<View> {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if !matches!(media, "application/json" | "application/*" | "*/*") {
        return None;
    }
    let (mut form, mut group, mut version) = ("", "", "");
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match key {
            "as" => form = value,
            "g" => group = value,
            "v" => version = value,
            _ => {}
        }
    }
    match (form, group, version) {
        ("", _, _) => Some(View::Object),
        ("Table", "meta.k8s.io", "v1") => Some(View::Table),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => Some(View::Metadata),
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Some(View::Discovery),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &str) -> Option<View> {
        let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
        view(&headers).ok()
    }

    #[test]
    fn the_first_servable_form_wins() {
        assert_eq!(view(&HeaderMap::new()).unwrap(), View::Object);
        assert_eq!(of("application/json"), Some(View::Object));
        assert_eq!(of("application/vnd.kubernetes.protobuf, application/json"), Some(View::Object));
        assert_eq!(of("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(of("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), Some(View::Table));
        assert_eq!(of("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), Some(View::Metadata));
        assert_eq!(of("application/json;as=Table;v=v1beta1;g=meta.k8s.io, */*"), Some(View::Object));
    }
}
