//! Custom resources on which nothing is scaled here: that they are there is told, for the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

use crate::context::Context;
use crate::observation::{ObjectKey, ResourceKind, What};
use crate::texts::Text;

/// Those that there are, and the types of their triggers.
#[derive(Default)]
pub(super) struct Counted(BTreeMap<(ResourceKind, ObjectKey), Arc<[Text]>>);

impl Counted {
    /// One has come or has changed.
    pub(super) fn apply(&mut self, ctx: &Context, kind: ResourceKind, object: &DynamicObject) {
        let key = ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
        let triggers = object.data.pointer("/spec/triggers").and_then(Value::as_array);
        let types = triggers.into_iter().flatten().filter_map(|trigger| trigger["type"].as_str());
        let types: Arc<[Text]> = match kind {
            ResourceKind::ScaledJob => types.map(|kind| ctx.texts.share(kind)).collect(),
            _ => Arc::default(),
        };
        if self.0.insert((kind, key.clone()), types.clone()).as_ref() != Some(&types) {
            tell(ctx, key, What::Resource { kind, here: true, triggers: types });
        }
    }

    /// One is gone.
    pub(super) fn forget(&mut self, ctx: &Context, kind: ResourceKind, key: ObjectKey) {
        if self.0.remove(&(kind, key.clone())).is_some() {
            tell(ctx, key, What::Resource { kind, here: false, triggers: Arc::default() });
        }
    }

    /// Namespaces and names of those of a kind.
    pub(super) fn names(&self, kind: ResourceKind) -> Vec<(String, String)> {
        let of_kind = self.0.keys().filter(|(of, _)| *of == kind);
        of_kind.map(|(_, key)| (key.namespace.clone(), key.name.clone())).collect()
    }
}

fn tell(ctx: &Context, key: ObjectKey, what: What) {
    ctx.observer.tell(&Arc::new(key), &"".into(), 0, what);
}
