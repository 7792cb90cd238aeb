//! Judges writes by the rules and by the cluster: what is compared comes from an index that watches keep, and whatever
//! would be refused for a conflict is first read again, since an index is always a moment late.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, join, join_all};
use serde_json::Value;
use tidemark_admission::{Near, Needs, Neighbour, Neighbours, Request, Target, Verdict, View, needs, reduced, review};
use tidemark_serving::admission_review::{Question, Reviewer, Unjudged};
use tokio::sync::watch;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::watches::Synced;

/// The reasons of refusals that depend on other objects.
const CONFLICTS: [&str; 4] =
    ["other-scaled-object", "other-scaled-object-hpa", "other-hpa", "transfer-ownership-missing-hpa-name"];
/// An object that was admitted is stored within this time, or something else has refused it.
const STORED_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks whether it is.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Neighbours that are read again for one review; further ones are believed to be what the index says.
const READ_AGAIN: usize = 16;

/// The index of neighbours.
#[derive(Default)]
pub struct Index(Mutex<Neighbours>);

impl Index {
    /// The index, for a moment: no await while it is held.
    pub fn lock(&self) -> MutexGuard<'_, Neighbours> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write and what has become of it.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// The write.
    pub question: &'a Question,
    /// Whether the object may be stored, and what is said about it.
    pub verdict: &'a Verdict,
}

/// Is told of every verdict, at once and before the answer: events and counters are made from it. Must not block.
pub type Listener = Box<dyn Fn(Judged<'_>) + Send + Sync>;

/// Judges.
pub struct Judge {
    cluster: Cluster,
    index: Arc<Index>,
    synced: watch::Receiver<Synced>,
    listeners: Vec<Listener>,
    /// From when the index counts its times.
    start: Instant,
}

impl Judge {
    /// Judges by this cluster and this index, once it is whole.
    pub fn new(cluster: Cluster, index: Arc<Index>, synced: watch::Receiver<Synced>, listeners: Vec<Listener>) -> Self {
        Self { cluster, index, synced, listeners, start: Instant::now() }
    }

    async fn judge(&self, question: &Question) -> Result<Verdict, Unjudged> {
        let request = Request { object: &question.object, old: question.old.as_ref(), dry_run: question.dry_run };
        let needs = needs(&request);
        if !needs.neighbours {
            return Ok(review(&request, &View::default()));
        }
        let mut synced = self.synced.clone();
        let whole = async { synced.wait_for(|synced| synced.all()).await.is_ok() };
        if tokio::time::timeout_at(question.deadline, whole).await != Ok(true) {
            return Err(Unjudged("the ScaledObjects and HPAs of the cluster have not been read yet".to_owned()));
        }
        let (target, limit_ranges) = self.surroundings(&question.object, &needs).await;
        let view = View { target: target.seen(), limit_ranges: &limit_ranges, ..View::default() };
        Ok(self.compare(&request, view, question.deadline).await)
    }

    /// The target and the LimitRanges, as far as they are needed.
    async fn surroundings(&self, object: &Value, needs: &Needs) -> (Surroundings, Vec<Value>) {
        let Some(target) = &needs.target else { return (Surroundings::Unread, Vec::new()) };
        if !needs.pods {
            let known = self.cluster.has_kind(target).await;
            return (known.map_or_else(Surroundings::UnknownKind, |()| Surroundings::Unread), Vec::new());
        }
        let namespace = namespace(object);
        let workload = self.cluster.workload(namespace, target);
        let (workload, limit_ranges) = join(workload, self.cluster.limit_ranges(namespace)).await;
        (workload.map_or_else(Surroundings::Unreadable, Surroundings::Found), limit_ranges)
    }

    /// The verdict beside the neighbours. Looking at them and claiming the object's place is one step: of two objects that
    /// come at once, one sees the other.
    async fn compare(&self, request: &Request<'_>, view: View<'_>, deadline: Instant) -> Verdict {
        let mut read = Read::default();
        loop {
            let (verdict, near) = {
                let mut index = self.index.lock();
                let now = self.start.elapsed();
                let near = index.of(request.object, now);
                let [scaled_objects, autoscalers] = read.instead_of(&near);
                let view = View { scaled_objects: &scaled_objects, autoscalers: &autoscalers, ..view };
                let verdict = review(request, &view);
                if verdict.admitted() && !request.dry_run {
                    index.claim(request.object, now);
                }
                (verdict, near)
            };
            let conflict = verdict.errors.iter().filter_map(|error| error.reason).any(|why| CONFLICTS.contains(&why));
            let doubtful = read.not_yet(near);
            if !conflict || doubtful.is_empty() {
                return verdict;
            }
            let found = doubtful.iter().enumerate().map(|(at, (id, near))| async move {
                let known = near.last().map(|near| near.object.clone());
                let present = if at < READ_AGAIN { self.present(request.object, near, deadline).await } else { known };
                (id.clone(), present)
            });
            read.0.extend(join_all(found).await);
        }
    }

    /// What a neighbour is now; `known` is what the index knows by its name. One that was admitted lately may be stored
    /// in the next moment.
    async fn present(&self, object: &Value, known: &[Near], deadline: Instant) -> Option<Value> {
        let last = known.last()?;
        let claim = known.iter().find_map(|near| Some((near.claimed?, &near.object)));
        loop {
            let Ok(found) = self.cluster.present(last.kind, namespace(object), last.name()).await else {
                // What cannot be read again is believed to be what was last known.
                return Some(last.object.clone());
            };
            let found = found.map(|found| reduced(last.kind, &found));
            let awaited = claim.is_some_and(|(since, claimed)| {
                found.as_ref() != Some(claimed) && self.start.elapsed().saturating_sub(since) < STORED_WITHIN
            });
            if !awaited || Instant::now() + LOOK_AGAIN >= deadline {
                return found;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Reviewer for Judge {
    fn review(&self, question: Question) -> BoxFuture<'_, Result<Verdict, Unjudged>> {
        Box::pin(async move {
            let verdict = self.judge(&question).await?;
            for listener in &self.listeners {
                listener(Judged { question: &question, verdict: &verdict });
            }
            Ok(verdict)
        })
    }
}

/// A kind and a name.
type Id = (Neighbour, String);

/// Neighbours that were read again, by kind and name; none for those that are not there.
#[derive(Default)]
struct Read(BTreeMap<Id, Option<Value>>);

impl Read {
    /// ScaledObjects and HPAs: as they were read, or as the index has them.
    fn instead_of(&self, near: &[Near]) -> [Vec<Value>; 2] {
        let (mut lists, mut seen) = ([Vec::new(), Vec::new()], BTreeSet::new());
        for near in near {
            let list = &mut lists[usize::from(near.kind == Neighbour::Autoscaler)];
            let id = id(near);
            match self.0.get(&id) {
                None => list.push(near.object.clone()),
                Some(found) => {
                    if seen.insert(id) {
                        list.extend(found.clone());
                    }
                }
            }
        }
        lists
    }

    /// Those that were not read, together what the index has by one name.
    fn not_yet(&self, near: Vec<Near>) -> Vec<(Id, Vec<Near>)> {
        let mut groups: BTreeMap<Id, Vec<Near>> = BTreeMap::new();
        for near in near {
            let id = id(&near);
            if !self.0.contains_key(&id) {
                groups.entry(id).or_default().push(near);
            }
        }
        groups.into_iter().collect()
    }
}

fn id(near: &Near) -> Id {
    (near.kind, near.name().to_owned())
}

fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

/// What was read of a target.
enum Surroundings {
    Unread,
    UnknownKind(String),
    Unreadable(String),
    Found(Value),
}

impl Surroundings {
    fn seen(&self) -> Target<'_> {
        match self {
            Self::Unread => Target::Unread,
            Self::UnknownKind(cause) => Target::UnknownKind(cause),
            Self::Unreadable(cause) => Target::Unreadable(cause),
            Self::Found(workload) => Target::Found(workload),
        }
    }
}
