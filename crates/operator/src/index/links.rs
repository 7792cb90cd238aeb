//! What objects depend on and lay claim to, and who has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemark_api::{AuthenticationKind, DEFAULT_HPA_PREFIX, ScaledObject};

use super::{Index, Shared};
use crate::actor::Message;
use crate::authentications::AuthenticationKey;
use crate::claims::{Claimants, Contested, Rank, Rival};
use crate::observation::ObjectKey;
use crate::watches::Kind;

/// A scale target, with namespace and name.
pub(super) type WorkloadKey = (TargetKind, String, String);

/// The kind of a scale target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TargetKind {
    /// Its metadata is watched.
    Watched(Kind),
    /// Group and kind.
    Other(Box<str>),
}

/// What an object depends on, and lays claim to.
#[derive(Clone, PartialEq)]
pub(super) struct Needs {
    pub(super) workload: Arc<WorkloadKey>,
    /// The HPA's name, where the user has chosen it.
    pub(super) hpa: Option<Box<str>>,
    pub(super) authentications: BTreeSet<AuthenticationKey>,
}

impl Needs {
    pub(super) fn of(key: &ObjectKey, object: &ScaledObject) -> Self {
        let target = &object.spec.scale_target_ref;
        let kind = match (target.api_version(), target.kind()) {
            ("apps/v1", "Deployment") => TargetKind::Watched(Kind::Deployments),
            ("apps/v1", "StatefulSet") => TargetKind::Watched(Kind::StatefulSets),
            (api_version, kind) => {
                let group = api_version.split_once('/').map_or("", |(group, _)| group);
                TargetKind::Other(format!("{group}/{kind}").into())
            }
        };
        let config = object.spec.advanced.as_ref().and_then(|a| a.horizontal_pod_autoscaler_config.as_ref());
        let hpa = config.and_then(|config| config.name.as_deref()).filter(|name| !name.is_empty());
        Self {
            workload: Arc::new((kind, key.namespace.clone(), target.name.clone())),
            hpa: hpa.map(Into::into),
            authentications: authentications_of(key, object),
        }
    }
}

impl Index {
    /// Notes that an object depends on other things than before.
    pub(super) fn link(&mut self, object: &Arc<ObjectKey>, rank: Rank, old: Option<&Needs>, new: Option<&Needs>) {
        let workload = |needs: Option<&Needs>| needs.map(|needs| needs.workload.clone());
        if workload(old) != workload(new) {
            if let Some(key) = workload(old)
                && let Some(workload) = self.workloads.get_mut(&key)
            {
                workload.objects.remove(object);
                if workload.objects.is_empty() {
                    self.workloads.remove(&key);
                }
            }
            if let Some(key) = workload(new) {
                self.workloads.entry(key).or_default().objects.add(rank, object);
            }
        }
        let hpa = |needs: Option<&Needs>| needs.map(|needs| needs.hpa.clone());
        if hpa(old) != hpa(new) {
            if let Some(name) = hpa(old) {
                self.hpas.remove(name.as_deref(), object);
            }
            match hpa(new) {
                Some(Some(name)) => {
                    let owner = self.owner_by_default(&object.namespace, &name);
                    self.hpas.add(&name, rank, object, owner);
                }
                Some(None) => self.hpas.add_default(rank, object),
                None => {}
            }
        }
        let none = BTreeSet::new();
        let users = |needs: Option<&Needs>| needs.map_or_else(|| none.clone(), |needs| needs.authentications.clone());
        let (old, new) = (users(old), users(new));
        for key in old.difference(&new) {
            unlink(&mut self.authentications, key, object);
            self.dirty.insert(key.clone());
        }
        for key in new.difference(&old) {
            self.authentications.entry(key.clone()).or_default().objects.insert(object.clone());
            self.dirty.insert(key.clone());
        }
    }

    /// The object whose HPA has this name without being named so, and since when, as far as its target tells.
    fn owner_by_default(&self, namespace: &str, hpa: &str) -> Option<(Rank, Arc<ObjectKey>)> {
        let owner = ObjectKey::new(namespace, hpa.strip_prefix(DEFAULT_HPA_PREFIX)?);
        let known = self.objects.get(&owner).filter(|known| known.needs.hpa.is_none())?;
        let workload = self.workloads.get(&known.needs.workload);
        let rank = workload.and_then(|workload| workload.objects.rank_of(&owner)).unwrap_or(Rank::LAST);
        Some((rank, known.entry.key.clone()))
    }

    pub(super) fn rival_of(&self, object: &ObjectKey, needs: &Needs) -> Option<Arc<Rival>> {
        let target = self.workloads.get(&needs.workload).and_then(|workload| workload.objects.before(object));
        let hpa = || self.hpas.of(needs.hpa.as_deref(), object).and_then(|claimants| claimants.before(object));
        let (over, other) = match target {
            Some(other) => (Contested::Target, other),
            None => (Contested::Hpa, hpa()?),
        };
        Some(Arc::new(Rival { over, other: other.clone() }))
    }

    /// Tells all who claim the same as these whether they have it.
    pub(super) fn settle_claims<'a>(&mut self, object: &ObjectKey, needs: impl IntoIterator<Item = &'a Needs>) {
        let mut claimants = BTreeSet::new();
        for needs in needs {
            let workload = self.workloads.get(&needs.workload).map(|workload| &workload.objects);
            let hpa = self.hpas.of(needs.hpa.as_deref(), object);
            claimants.extend(workload.into_iter().chain(hpa).flat_map(Claimants::iter).cloned());
        }
        for object in claimants {
            let Some(known) = self.objects.get(&object) else { continue };
            let rival = self.rival_of(&object, &known.needs);
            if let Some(known) = self.objects.get_mut(&object).filter(|known| known.rival != rival) {
                known.rival.clone_from(&rival);
                let _ = known.entry.mailbox.send(Message::Rival(rival));
            }
        }
    }
}

fn authentications_of(key: &ObjectKey, object: &ScaledObject) -> BTreeSet<AuthenticationKey> {
    let references = object.spec.triggers.iter().filter_map(|trigger| trigger.authentication_ref.as_ref());
    references
        .map(|reference| {
            let kind = reference.kind.unwrap_or_default();
            let namespace = match kind {
                AuthenticationKind::TriggerAuthentication => key.namespace.clone(),
                AuthenticationKind::ClusterTriggerAuthentication => String::new(),
            };
            AuthenticationKey { kind, namespace, name: reference.name.clone() }
        })
        .collect()
}

fn unlink(map: &mut BTreeMap<AuthenticationKey, Shared>, key: &AuthenticationKey, object: &Arc<ObjectKey>) {
    if let Some(shared) = map.get_mut(key) {
        shared.objects.remove(object);
        if shared.objects.is_empty() {
            map.remove(key);
        }
    }
}
