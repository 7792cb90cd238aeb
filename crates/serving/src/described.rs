//! What aggregated APIs say about themselves: discovery, in its old form and in the aggregated one, and OpenAPI.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::reply::{self, Form};

/// The aggregated form of discovery.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A group with one version.
pub(crate) struct Described {
    pub group: &'static str,
    pub version: &'static str,
    /// The entries of its `APIResourceList`.
    pub resources: Vec<Value>,
    /// The same in the aggregated form.
    pub aggregated: Vec<Value>,
    /// Paths and definitions of OpenAPI v2, paths and schemas of v3.
    pub paths_v2: Map<String, Value>,
    pub definitions: Map<String, Value>,
    pub paths_v3: Map<String, Value>,
    pub schemas: Map<String, Value>,
}

/// The document of a path, if it is one of these groups' or one of all of them together. `title` is that of the OpenAPI
/// documents.
pub(crate) fn find(path: &str, headers: &HeaderMap, title: &str, groups: &[&Described]) -> Option<Response<Bytes>> {
    let (body, kind) = match path {
        "/apis" if reply::accepts(headers, is_aggregated) => (aggregated(groups), AGGREGATED),
        "/apis" => {
            let groups: Vec<Value> = groups.iter().map(|group| group.group_document()).collect();
            return Some(plain(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}), headers));
        }
        "/openapi/v2" => (openapi_v2(title, groups), "application/json"),
        "/openapi/v3" => (openapi_v3_index(title, groups), "application/json"),
        _ => {
            if let Some(key) = path.strip_prefix("/openapi/v3/") {
                let group = groups.iter().find(|group| group.key() == key)?;
                (group.openapi_v3(title), "application/json")
            } else {
                let rest = path.strip_prefix("/apis/")?;
                let document = groups.iter().find_map(|group| match rest == group.group {
                    true => Some(group.group_document()),
                    false => (rest == group.group_version()).then(|| group.resource_list()),
                });
                return Some(plain(&document?, headers));
            }
        }
    };
    Some(tagged(&body, kind, headers))
}

impl Described {
    fn group_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// What the group and version are called in the index of OpenAPI v3.
    fn key(&self) -> String {
        format!("apis/{}/{}", self.group, self.version)
    }

    fn group_document(&self) -> Value {
        let version = json!({"groupVersion": self.group_version(), "version": self.version});
        json!({
            "kind": "APIGroup", "apiVersion": "v1", "name": self.group, "versions": [version],
            "preferredVersion": version,
        })
    }

    fn resource_list(&self) -> Value {
        json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": self.group_version(),
            "resources": self.resources,
        })
    }

    fn openapi_v3(&self, title: &str) -> Value {
        json!({
            "openapi": "3.0.0", "info": info(title), "paths": self.paths_v3,
            "components": {"schemas": self.schemas},
        })
    }
}

fn aggregated(groups: &[&Described]) -> Value {
    let item = |group: &&Described| {
        json!({
            "metadata": {"name": group.group, "creationTimestamp": null},
            "versions": [{"version": group.version, "freshness": "Current", "resources": group.aggregated}],
        })
    };
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": groups.iter().map(item).collect::<Vec<_>>(),
    })
}

fn info(title: &str) -> Value {
    json!({"title": title, "version": "1.0.0"})
}

fn openapi_v2(title: &str, groups: &[&Described]) -> Value {
    let all = |of: fn(&Described) -> &Map<String, Value>| {
        groups.iter().flat_map(|group| of(group).clone()).collect::<Map<String, Value>>()
    };
    json!({
        "swagger": "2.0", "info": info(title), "paths": all(|group| &group.paths_v2),
        "definitions": all(|group| &group.definitions),
    })
}

fn openapi_v3_index(title: &str, groups: &[&Described]) -> Value {
    let entry = |group: &&Described| {
        let (key, tag) = (group.key(), hash(&group.openapi_v3(title)));
        let address = json!({"serverRelativeURL": format!("/openapi/v3/{key}?hash={tag}")});
        (key, address)
    };
    json!({"paths": groups.iter().map(entry).collect::<Map<String, Value>>()})
}

fn plain(body: &Value, headers: &HeaderMap) -> Response<Bytes> {
    reply::in_form(reply::json(StatusCode::OK, body), Form::asked(headers))
}

/// A document with a tag, so that whoever has it need not get it again.
fn tagged(body: &Value, kind: &'static str, headers: &HeaderMap) -> Response<Bytes> {
    let tag = format!("\"{}\"", hash(body));
    let mut response = reply::json(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Bytes::new();
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

fn hash(body: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    body.to_string().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Whether a media type asks for aggregated discovery.
fn is_aggregated(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(str::trim);
    let parameters: Vec<&str> = match parts.next() {
        Some("application/json") => parts.collect(),
        _ => return false,
    };
    ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"].iter().all(|wanted| parameters.contains(wanted))
}

/// A parameter of a path or query: its name, its place, and what it means.
pub(crate) type Parameter = (&'static str, &'static str, &'static str);

/// A GET that answers with a schema, in the words of OpenAPI v2.
pub(crate) fn operation_v2(mut operation: Value, parameters: &[Parameter], schema: &str) -> Value {
    let parameter = |(name, place, description): &Parameter| {
        let required = *place == "path";
        json!({"name": name, "in": place, "type": "string", "required": required, "description": description})
    };
    operation["produces"] = json!(["application/json", "application/yaml"]);
    operation["parameters"] = parameters.iter().map(parameter).collect();
    let schema = json!({"$ref": format!("#/definitions/{schema}")});
    operation["responses"] = json!({"200": {"description": "OK", "schema": schema}});
    json!({"get": operation})
}

/// The same in the words of OpenAPI v3.
pub(crate) fn operation_v3(mut operation: Value, parameters: &[Parameter], schema: &str) -> Value {
    let parameter = |(name, place, description): &Parameter| {
        let required = *place == "path";
        let schema = json!({"type": "string"});
        json!({"name": name, "in": place, "required": required, "description": description, "schema": schema})
    };
    operation["parameters"] = parameters.iter().map(parameter).collect();
    let content = json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}});
    operation["responses"] = json!({"200": {"description": "OK", "content": {"application/json": content}}});
    json!({"get": operation})
}
