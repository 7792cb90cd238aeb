//! The versions of a StatefulSet's pod template.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::super::deployment::short_hash;
use super::super::{Error, ask, dynamic};

const HASH: &str = "controller.kubernetes.io/hash";

/// One version, as it was when its number was given.
#[derive(Clone)]
pub(super) struct Revision {
    /// `<set>-<hash>`, the value of the label `controller-revision-hash` of its pods.
    pub(super) name: String,
    pub(super) number: i64,
    pub(super) template: PodTemplateSpec,
}

/// The versions of one StatefulSet, the latest last. They are kept as ControllerRevisions, which `kubectl rollout` reads;
/// nobody else writes those, so that what is remembered here is what is there.
#[derive(Default)]
pub(super) struct Revisions {
    all: Vec<Revision>,
    /// Whether those that are there already have been read.
    read: bool,
}

impl Revisions {
    /// The version of the present template, made or brought to the front if need be.
    pub(super) async fn latest(&mut self, hand: &Hand<'_>, template: &PodTemplateSpec) -> Result<Revision, Error> {
        if !std::mem::replace(&mut self.read, true) {
            self.all = hand.read().await.inspect_err(|_| self.read = false)?;
        }
        if let Some(latest) = self.all.last().filter(|latest| latest.template == *template) {
            return Ok(latest.clone());
        }
        let number = self.all.last().map_or(1, |latest| latest.number + 1);
        let known = self.all.iter().position(|revision| revision.template == *template);
        let revision = match known {
            Some(position) => {
                let revision = Revision { number, ..self.all[position].clone() };
                hand.renumber(&revision).await?;
                self.all.remove(position);
                revision
            }
            None => {
                let hash = short_hash(&serde_json::to_string(template).unwrap_or_default());
                let name = format!("{}-{hash}", hand.set.name_any());
                let revision = Revision { name, number, template: template.clone() };
                hand.create(&revision, &hash).await?;
                revision
            }
        };
        self.all.push(revision.clone());
        Ok(revision)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Revision> {
        self.all.iter().find(|revision| revision.name == name)
    }

    /// Removes the oldest versions beyond `limit` that are not in use.
    pub(super) async fn forget(&mut self, hand: &Hand<'_>, limit: usize, used: &[&str]) -> Result<(), Error> {
        let spare = |revision: &Revision| !used.contains(&revision.name.as_str());
        while self.all.iter().filter(|revision| spare(revision)).count() > limit {
            let Some(position) = self.all.iter().position(spare) else { break };
            hand.delete(&self.all[position]).await?;
            self.all.remove(position);
        }
        Ok(())
    }
}

/// Requests about a StatefulSet's ControllerRevisions.
pub(super) struct Hand<'a> {
    pub(super) client: &'a Client,
    pub(super) set_kind: &'a ApiResource,
    pub(super) set: &'a DynamicObject,
}

impl Hand<'_> {
    fn api(&self) -> (kube::Api<DynamicObject>, ApiResource) {
        let kind = dynamic::kind("apps", "v1", "ControllerRevision", "controllerrevisions");
        (dynamic::api(self.client, &kind, self.set.namespace().as_deref()), kind)
    }

    async fn read(&self) -> Result<Vec<Revision>, Error> {
        let list = ask(self.api().0.list(&kube::api::ListParams::default())).await?;
        let own = list.items.into_iter().filter(|object| {
            object.owner_references().iter().any(|owner| Some(&owner.uid) == self.set.metadata.uid.as_ref())
        });
        let read = |object: DynamicObject| {
            let template = object.data.pointer("/data/spec/template")?.clone();
            Some(Revision {
                name: object.name_any(),
                number: object.data["revision"].as_i64()?,
                template: serde_json::from_value(template).ok()?,
            })
        };
        let mut all: Vec<_> = own.filter_map(read).collect();
        all.sort_by_key(|revision| revision.number);
        Ok(all)
    }

    async fn create(&self, revision: &Revision, hash: &str) -> Result<(), Error> {
        let (api, kind) = self.api();
        let mut template = json!(revision.template);
        template["$patch"] = "replace".into();
        let mut object = DynamicObject::new(&revision.name, &kind);
        object.metadata.labels = revision.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
        object.metadata.labels.get_or_insert_default().insert(HASH.to_owned(), hash.to_owned());
        object.metadata.owner_references = self.set.controller_owner_ref(self.set_kind).map(|mut owner| {
            owner.block_owner_deletion = Some(true);
            vec![owner]
        });
        object.data = json!({ "data": { "spec": { "template": template } }, "revision": revision.number });
        match ask(api.create(&PostParams::default(), &object)).await {
            // It is left from an earlier attempt.
            Err(error) if error.is_already_exists() => self.renumber(revision).await,
            other => other.map(drop),
        }
    }

    async fn renumber(&self, revision: &Revision) -> Result<(), Error> {
        let patch: Value = json!({ "revision": revision.number });
        match ask(self.api().0.patch(&revision.name, &PatchParams::default(), &Patch::Merge(patch))).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    async fn delete(&self, revision: &Revision) -> Result<(), Error> {
        match ask(self.api().0.delete(&revision.name, &DeleteParams::background())).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}
