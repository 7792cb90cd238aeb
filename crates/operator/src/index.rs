//! The index: one task applies all watch events and passes on to each actor what concerns it. It starts the actors,
//! and waits for their end; it alone knows which workload and which authentication is whose.

mod counted;
mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ObjectMeta};
use kube::runtime::watcher::Event;
use tidemark_api::{AuthenticationKind, DEFAULT_HPA_PREFIX, FINALIZER, SCALED_OBJECT_LABEL, ScaledObject};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::actor::{self, ANOTHER_TARGET, Birth, Message};
use crate::authentications::{self, AuthenticationKey};
use crate::claims::{Claimants, HpaClaims, Rank, Rival};
use crate::context::Context;
use crate::hpa::HpaView;
use crate::observation::{ObjectKey, ResourceKind, Stage, What};
use crate::snapshot::Entry;
use crate::watches::{self, Change, Kind, Subject, Watch};
use counted::Counted;
use links::{Needs, TargetKind, WorkloadKey};

/// Pause before an actor that panicked is started anew, and before a failed write on an authentication is repeated.
const REPEAT: Duration = Duration::from_secs(60);

/// An object as the index knows it.
struct Known {
    entry: Arc<Entry>,
    /// Changes with everything that an actor must hear of.
    fingerprint: u64,
    needs: Needs,
    /// What its actor was told last.
    rival: Option<Arc<Rival>>,
}

/// The version last seen of something: a hash of its uid, and its generation.
type Version = (u64, i64);

/// A scale target: the version last seen of it, and who claims it.
#[derive(Default)]
struct Workload {
    version: Option<Version>,
    objects: Claimants,
}

/// An authentication: the version last seen of it, and who uses it.
#[derive(Default)]
struct Shared {
    version: Option<Version>,
    objects: BTreeSet<Arc<ObjectKey>>,
}

/// What came back from outside.
enum Done {
    /// An object whose actor had panicked, as it is now; none where it is gone.
    Revived(Option<Box<ScaledObject>>),
    /// Such an object could not be read.
    Lost(Arc<ObjectKey>),
    /// A write on an authentication; whether it succeeded.
    Authentication(AuthenticationKey, bool),
}

struct Index {
    ctx: Arc<Context>,
    shutdown: CancellationToken,
    objects: BTreeMap<Arc<ObjectKey>, Known>,
    workloads: BTreeMap<Arc<WorkloadKey>, Workload>,
    hpas: HpaClaims,
    authentications: BTreeMap<AuthenticationKey, Shared>,
    /// Those that there are, whether used or not.
    present: BTreeSet<AuthenticationKey>,
    /// Namespaces and names that a list under way has shown so far.
    listing: BTreeMap<Arc<Watch>, BTreeSet<(String, String)>>,
    /// Watches whose first list is complete.
    listed: BTreeSet<Arc<Watch>>,
    /// How many watches the work needs.
    watches: usize,
    /// What is counted, and nothing else.
    counted: Counted,
    actors: JoinSet<(Arc<Entry>, bool)>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Authentications whose list of users may be wrong, or which wait for their finalizer to go.
    dirty: BTreeSet<AuthenticationKey>,
    /// Authentications that are being written.
    writing: BTreeSet<AuthenticationKey>,
}

/// Runs until `shutdown` is cancelled; then ends all actors and waits for them.
pub(crate) async fn run(ctx: Arc<Context>, shutdown: CancellationToken) -> Result<(), Error> {
    let mut changes = watches::all(&ctx.client, &ctx.settings);
    let needed = changes.len();
    changes.extend(watches::counted(&ctx.client, &ctx.settings));
    let stop_actors = shutdown.child_token();
    let mut index = Index::new(ctx, stop_actors.clone(), needed);
    let result = loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(()),
            change = changes.next() => match change {
                Some(change) => index.on_change(change),
                None => break Err(Error::WatchesEnded),
            },
            Some(ended) = index.actors.join_next() => {
                // A task of this set catches its panics and is never aborted.
                if let Ok((entry, panicked)) = ended {
                    index.on_actor_ended(&entry, panicked);
                }
            }
            Some(done) = index.work.next() => index.on_done(done),
        }
        index.write_dirty();
    };
    stop_actors.cancel();
    while index.actors.join_next().await.is_some() {}
    result
}

impl Index {
    fn new(ctx: Arc<Context>, shutdown: CancellationToken, watches: usize) -> Self {
        Self {
            watches,
            counted: Counted::default(),
            ctx,
            shutdown,
            objects: BTreeMap::new(),
            workloads: BTreeMap::new(),
            hpas: HpaClaims::default(),
            authentications: BTreeMap::new(),
            present: BTreeSet::new(),
            listing: BTreeMap::new(),
            listed: BTreeSet::new(),
            actors: JoinSet::new(),
            work: FuturesUnordered::new(),
            dirty: BTreeSet::new(),
            writing: BTreeSet::new(),
        }
    }

    fn on_change(&mut self, Change { watch, event }: Change) {
        match event {
            Event::Init => drop(self.listing.insert(watch, BTreeSet::new())),
            Event::InitApply(subject) => {
                if let Some(seen) = self.listing.get_mut(&watch) {
                    seen.insert(name_of(&subject));
                }
                let at_start = !self.listed.contains(&watch);
                self.apply(watch.kind, subject, at_start);
            }
            Event::InitDone => {
                if let Some(seen) = self.listing.remove(&watch) {
                    self.forget_unlisted(&watch, &seen);
                }
                if !matches!(watch.kind, Kind::Counted(_)) {
                    self.listed.insert(watch);
                }
                if self.listed.len() == self.watches {
                    self.ctx.synced.send_replace(true);
                }
            }
            Event::Apply(subject) => self.apply(watch.kind, subject, false),
            Event::Delete(subject) => self.delete(watch.kind, subject),
        }
    }

    fn apply(&mut self, kind: Kind, subject: Subject, at_start: bool) {
        match (kind, subject) {
            (Kind::Counted(kind), Subject::Object(object)) => self.counted.apply(&self.ctx, kind, &object),
            (_, Subject::Object(object)) => self.apply_object(*object, at_start),
            (_, Subject::Hpa(hpa)) => self.pass_hpa(&hpa, false),
            (Kind::Authentications(kind), Subject::Meta(meta)) => self.apply_authentication(kind, &meta, at_start),
            (kind, Subject::Meta(meta)) => self.apply_workload(kind, &meta),
        }
    }

    fn delete(&mut self, kind: Kind, subject: Subject) {
        match (kind, subject) {
            (Kind::Hpas, Subject::Hpa(hpa)) => self.pass_hpa(&hpa, true),
            (kind, subject) => self.forget(kind, name_of(&subject)),
        }
    }

    /// What was known and is not in a new list was deleted while nobody watched.
    fn forget_unlisted(&mut self, watch: &Watch, seen: &BTreeSet<(String, String)>) {
        let within = |namespace: &str| watch.namespace.as_deref().is_none_or(|scope| scope == namespace);
        let known: Vec<(String, String)> = match watch.kind {
            // The HPAs are listed by their objects' names.
            Kind::Hpas | Kind::ScaledObjects => {
                self.objects.keys().map(|key| (key.namespace.clone(), key.name.clone())).collect()
            }
            Kind::Authentications(kind) => {
                let keys = self.present.iter().filter(|key| key.kind == kind);
                keys.map(|key| (key.namespace.clone(), key.name.clone())).collect()
            }
            Kind::Counted(kind) => self.counted.names(kind),
            kind => {
                let keys = self.workloads.keys().filter(|key| key.0 == TargetKind::Watched(kind));
                keys.map(|key| (key.1.clone(), key.2.clone())).collect()
            }
        };
        for name in known.into_iter().filter(|name| within(&name.0) && !seen.contains(name)) {
            self.forget(watch.kind, name);
        }
    }

    fn forget(&mut self, kind: Kind, (namespace, name): (String, String)) {
        match kind {
            Kind::Hpas => {
                if let Some(known) = self.objects.get(&ObjectKey { namespace, name }) {
                    let _ = known.entry.mailbox.send(Message::HpaUnlisted);
                }
            }
            Kind::ScaledObjects => self.remove_object(&ObjectKey { namespace, name }),
            Kind::Authentications(kind) => {
                let key = AuthenticationKey { kind, namespace, name };
                if self.present.remove(&key) {
                    self.tell_authentication(&key, false);
                }
                if let Some(shared) = self.authentications.get_mut(&key) {
                    shared.version = None;
                    let objects: Vec<_> = shared.objects.iter().cloned().collect();
                    self.send_all(&objects, || Message::Authentication);
                }
            }
            Kind::Counted(kind) => self.counted.forget(&self.ctx, kind, ObjectKey { namespace, name }),
            kind => {
                // Its version is not known where the objects came after it; they have read it all the same.
                let key = (TargetKind::Watched(kind), namespace, name);
                let Some(workload) = self.workloads.get_mut(&key) else { return };
                workload.version = None;
                let objects: Vec<_> = workload.objects.iter().cloned().collect();
                self.send_all(&objects, || Message::Target { generation: ANOTHER_TARGET });
            }
        }
    }

    fn apply_object(&mut self, mut object: DynamicObject, at_start: bool) {
        object.metadata.managed_fields = None;
        let key = ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
        let uid = object.metadata.uid.clone().unwrap_or_default();
        match object.try_parse::<ScaledObject>() {
            Ok(object) => self.take_object(key, uid, Box::new(object), at_start),
            Err(error) => {
                tracing::warn!(namespace = key.namespace, name = key.name, %error, "ScaledObject cannot be decoded");
                let message = format!("the ScaledObject cannot be decoded: {error}").into();
                self.ctx.observer.tell(&Arc::new(key), &uid.into(), 0, What::Error { stage: Stage::Check, message });
            }
        }
    }

    fn take_object(&mut self, key: ObjectKey, uid: String, object: Box<ScaledObject>, at_start: bool) {
        let (fingerprint, needs) = (fingerprint(&object), Needs::of(&key, &object));
        if self.objects.get(&key).is_some_and(|known| *known.entry.uid != *uid) {
            self.remove_object(&key);
        }
        let rank = if at_start { Rank::at_start(&object) } else { Rank::LAST };
        let Some(known) = self.objects.get_mut(&key) else {
            let key = Arc::new(key);
            self.link(&key, rank, None, Some(&needs));
            let rival = self.rival_of(&key, &needs);
            let entry = self.start_actor(&key, &uid, object, at_start, rival.clone());
            let known = Known { entry, fingerprint, needs: needs.clone(), rival };
            self.objects.insert(key.clone(), known);
            return self.settle_claims(&key, [&needs]);
        };
        if known.fingerprint == fingerprint {
            return;
        }
        known.fingerprint = fingerprint;
        let old = std::mem::replace(&mut known.needs, needs.clone());
        let entry = known.entry.clone();
        if old != needs {
            self.link(&entry.key, rank, Some(&old), Some(&needs));
            self.settle_claims(&entry.key, [&old, &needs]);
        }
        let _ = entry.mailbox.send(Message::Object(object));
    }

    fn start_actor(
        &mut self,
        key: &Arc<ObjectKey>,
        uid: &str,
        object: Box<ScaledObject>,
        at_start: bool,
        rival: Option<Arc<Rival>>,
    ) -> Arc<Entry> {
        let entry = self.ctx.registry.enter(key.clone(), uid);
        let first_poll = match at_start {
            true => spread(key, object.spec.polling_interval().min(self.ctx.settings.first_poll_spread)),
            false => Duration::ZERO,
        };
        let birth = Box::new(Birth { entry: entry.clone(), object, first_poll, rival });
        let life = actor::run(self.ctx.clone(), birth, self.shutdown.clone());
        let ended = entry.clone();
        self.actors.spawn(AssertUnwindSafe(life).catch_unwind().map(|result| (ended, result.is_err())));
        entry
    }

    fn remove_object(&mut self, key: &ObjectKey) {
        let Some(known) = self.objects.remove(key) else { return };
        let _ = known.entry.mailbox.send(Message::Gone);
        self.ctx.registry.remove(key);
        self.link(&known.entry.key, Rank::LAST, Some(&known.needs), None);
        self.settle_claims(key, [&known.needs]);
    }

    fn pass_hpa(&self, hpa: &HorizontalPodAutoscaler, deleted: bool) {
        let name = hpa.name_any();
        let labelled = hpa.labels().get(SCALED_OBJECT_LABEL).map(String::as_str);
        // Another object may have taken the HPA over by naming it; when it goes, the one it was made for has none.
        let made_for = name.strip_prefix(DEFAULT_HPA_PREFIX).filter(|object| deleted && Some(*object) != labelled);
        for object in labelled.into_iter().chain(made_for) {
            let key = ObjectKey::new(hpa.namespace().unwrap_or_default(), object);
            if let Some(known) = self.objects.get(&key) {
                let _ = known.entry.mailbox.send(Message::Hpa(Box::new(HpaView::new(hpa, deleted))));
            }
        }
    }

    fn apply_workload(&mut self, kind: Kind, meta: &ObjectMeta) {
        let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let Some(workload) = self.workloads.get_mut(&(TargetKind::Watched(kind), namespace, name)) else { return };
        let version = version_of(meta);
        if workload.version == Some(version) {
            return;
        }
        let another = workload.version.is_some_and(|(uid, _)| uid != version.0);
        let generation = if another { ANOTHER_TARGET } else { version.1 };
        workload.version = Some(version);
        let objects: Vec<_> = workload.objects.iter().cloned().collect();
        self.send_all(&objects, || Message::Target { generation });
    }

    fn apply_authentication(&mut self, kind: AuthenticationKind, meta: &ObjectMeta, at_start: bool) {
        let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let key = AuthenticationKey { kind, namespace, name };
        if self.present.insert(key.clone()) {
            self.tell_authentication(&key, true);
        }
        let finalized = meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        if at_start || (meta.deletion_timestamp.is_some() && finalized) {
            self.dirty.insert(key.clone());
        }
        let Some(shared) = self.authentications.get_mut(&key) else { return };
        let version = version_of(meta);
        let changed = match shared.version.replace(version) {
            Some(old) => old != version,
            // At the start the actors resolve their parameters anyway.
            None => !at_start,
        };
        if changed {
            let objects: Vec<_> = shared.objects.iter().cloned().collect();
            self.dirty.insert(key);
            self.send_all(&objects, || Message::Authentication);
        }
    }

    fn tell_authentication(&self, key: &AuthenticationKey, here: bool) {
        let object = Arc::new(ObjectKey::new(&*key.namespace, &*key.name));
        let what = What::Resource { kind: ResourceKind::Authentication(key.kind), here, triggers: Arc::default() };
        self.ctx.observer.tell(&object, &"".into(), 0, what);
    }

    fn send_all(&self, objects: &[Arc<ObjectKey>], message: impl Fn() -> Message) {
        for known in objects.iter().filter_map(|key| self.objects.get(&**key)) {
            // An actor that has ended is about to be replaced or forgotten.
            let _ = known.entry.mailbox.send(message());
        }
    }

    /// Writes on the authentications where something may be wrong, once it is known which objects there are.
    fn write_dirty(&mut self) {
        let is_of_objects = |watch: &&Arc<Watch>| watch.kind == Kind::ScaledObjects;
        let complete = self.listed.iter().filter(is_of_objects).count()
            == self.ctx.settings.watch_namespaces.len().max(1)
            && !self.listing.keys().any(|watch| is_of_objects(&watch));
        if self.dirty.is_empty() || !complete {
            return;
        }
        let due: Vec<_> = self.dirty.iter().filter(|key| !self.writing.contains(*key)).cloned().collect();
        for key in due {
            self.dirty.remove(&key);
            self.writing.insert(key.clone());
            let users = self.authentications.get(&key).map(|shared| &shared.objects);
            let users = users.into_iter().flatten().map(|object| object.name.clone()).collect();
            let keep = key.namespace.is_empty() && !self.ctx.settings.watch_namespaces.is_empty();
            let (ctx, target) = (self.ctx.clone(), key.clone());
            self.write(key, async move { authentications::settle(&ctx, &target, users, keep).await });
        }
    }

    fn write(&self, key: AuthenticationKey, work: impl Future<Output = Result<(), String>> + Send + 'static) {
        let ctx = self.ctx.clone();
        self.work.push(Box::pin(async move {
            // Thousands begin at once when the operator starts. It is never closed.
            let turn = ctx.checks.acquire().await.ok();
            let result = work.await;
            drop(turn);
            if let Err(error) = &result {
                let AuthenticationKey { namespace, name, .. } = &key;
                tracing::warn!(namespace, name, error, "writing an authentication failed");
                tokio::time::sleep(REPEAT).await;
            }
            Done::Authentication(key, result.is_ok())
        }));
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Authentication(key, succeeded) => {
                self.writing.remove(&key);
                if !succeeded {
                    self.dirty.insert(key);
                }
            }
            Done::Revived(Some(object)) => {
                let key = ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any());
                let uid = object.metadata.uid.clone().unwrap_or_default();
                if !self.objects.contains_key(&key) {
                    self.take_object(key, uid, object, false);
                }
            }
            Done::Revived(None) => {}
            Done::Lost(key) => self.revive(key),
        }
    }

    /// An actor that panicked is started anew after a while: one broken object must not stay unscaled.
    fn on_actor_ended(&mut self, entry: &Arc<Entry>, panicked: bool) {
        let current = self.objects.get(&entry.key).is_some_and(|known| Arc::ptr_eq(&known.entry, entry));
        if !panicked || !current {
            return;
        }
        let key = entry.key.clone();
        tracing::error!(namespace = key.namespace, name = key.name, "the task of a ScaledObject panicked");
        self.remove_object(&key);
        self.revive(key);
    }

    fn revive(&self, key: Arc<ObjectKey>) {
        let client = self.ctx.client.clone();
        self.work.push(Box::pin(async move {
            tokio::time::sleep(REPEAT).await;
            let api: Api<ScaledObject> = Api::namespaced(client, &key.namespace);
            match api.get_opt(&key.name).await {
                Ok(object) => Done::Revived(object.map(Box::new)),
                Err(_) => Done::Lost(key),
            }
        }));
    }
}

/// Namespace and name; of an HPA, those of its ScaledObject.
fn name_of(subject: &Subject) -> (String, String) {
    let meta = match subject {
        Subject::Object(object) => &object.metadata,
        Subject::Hpa(hpa) => {
            let object = hpa.labels().get(SCALED_OBJECT_LABEL).cloned().unwrap_or_default();
            return (hpa.namespace().unwrap_or_default(), object);
        }
        Subject::Meta(meta) => meta,
    };
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn version_of(meta: &ObjectMeta) -> Version {
    let mut hasher = DefaultHasher::new();
    meta.uid.hash(&mut hasher);
    (hasher.finish(), meta.generation.unwrap_or_default())
}

/// A hash of what an actor must hear of. Status, finalizers, the operator's own label and managed fields are not in it:
/// they are written by the operator itself or concern others.
fn fingerprint(object: &ScaledObject) -> u64 {
    let meta = &object.metadata;
    let mut hasher = DefaultHasher::new();
    (meta.generation, meta.deletion_timestamp.is_some(), &meta.annotations).hash(&mut hasher);
    for pair in meta.labels.iter().flatten().filter(|(key, _)| *key != SCALED_OBJECT_LABEL) {
        pair.hash(&mut hasher);
    }
    hasher.finish()
}

/// A part of `window` that depends on the object's name only.
fn spread(key: &ObjectKey, window: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    window.mul_f64((hasher.finish() % 4096) as f64 / 4096.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_polls_are_spread_over_the_window_and_always_the_same() {
        let window = Duration::from_secs(30);
        let of = |n: usize| spread(&ObjectKey::new("shop", format!("object-{n}")), window);
        let early = (0..1000).filter(|n| of(*n) < window / 2).count();
        assert!((400..600).contains(&early), "{early} of 1000 fall into the first half");
        assert!((0..1000).all(|n| of(n) < window && of(n) == of(n)));
    }

    #[test]
    fn what_the_operator_writes_itself_is_no_news_for_it() {
        let mut object = ScaledObject::new("a", Default::default());
        let before = fingerprint(&object);
        object.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        object.labels_mut().insert(SCALED_OBJECT_LABEL.to_owned(), "a".to_owned());
        object.status = Some(Default::default());
        assert_eq!(fingerprint(&object), before);
        object.annotations_mut().insert("autoscaling.keda.sh/paused".to_owned(), "true".to_owned());
        assert_ne!(fingerprint(&object), before);
    }
}
