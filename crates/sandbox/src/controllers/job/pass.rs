//! One look at a Job that has not ended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec, PodTemplateSpec};
use kube::core::DynamicObject;
use kube::{Resource, ResourceExt};

use super::super::pods::{count, from_template, ready};
use super::super::replica_set::dispensable;
use super::super::{Error, cache, dynamic};
use super::spec::{Spec, Status};
use super::tally::{INDEX, Tally, index_of};
use super::{Controller, TRACKING};

/// Most pods that one look at a Job makes. It is looked at again at once.
const BURST: usize = 50;

/// Reason and message of an end.
type End = (String, String);

impl Controller {
    pub(super) async fn advance(
        &mut self,
        job: &DynamicObject,
        spec: &Spec,
        mut status: Status,
    ) -> Result<Option<Duration>, Error> {
        let now = self.clock.now();
        if !spec.suspend {
            status.start.get_or_insert(now);
        }
        let going = job.metadata.deletion_timestamp.is_none();
        let mut tally = Tally::of(spec, &status, &self.pods_of(job), status.holds("FailureTarget").is_some());
        let failure = failure(spec, &status, &tally, now);
        if let Some((reason, message)) = &failure {
            status.set("FailureTarget", true, reason, message, now);
            for pod in std::mem::take(&mut tally.active) {
                self.remove(job, &pod).await?;
            }
            tally = Tally::of(spec, &status, &self.pods_of(job), true);
        }
        self.streaks.entry(cache::uid(job).to_owned()).or_default().enter(&tally, now);
        self.count(job, &mut status, &tally).await?;
        let again = match failure {
            None if going => self.manage(job, spec, &mut status, &tally).await,
            _ => Ok(None),
        };
        // What was done so far is reported also when the rest failed.
        self.report(job, spec, status, again.is_ok()).await?;
        Ok(earlier(again?, time_left(spec, job, now)))
    }

    fn pods_of(&self, job: &DynamicObject) -> Vec<Arc<Pod>> {
        self.pods.owned_by(cache::uid(job)).cloned().collect()
    }

    /// Counts the pods that have ended, in such an order that none is lost or counted twice.
    async fn count(&mut self, job: &DynamicObject, status: &mut Status, tally: &Tally) -> Result<(), Error> {
        let uids = |pods: &[Arc<Pod>]| pods.iter().filter_map(|pod| pod.uid()).collect::<Vec<_>>();
        status.uncounted_succeeded.extend(uids(&tally.succeeded));
        status.uncounted_failed.extend(uids(&tally.failed));
        if let Some(completed) = &mut status.completed {
            completed.0.extend(tally.succeeded.iter().filter_map(|pod| index_of(pod)));
        }
        if !tally.succeeded.is_empty() || !tally.failed.is_empty() {
            self.write(job, status).await?;
        }
        for pod in tally.succeeded.iter().chain(&tally.failed).chain(&tally.spent) {
            self.release(pod).await?;
        }
        // Every pod whose uid stands there has lost its finalizer by now.
        status.failed = status.failed.saturating_add(count(std::mem::take(&mut status.uncounted_failed).len()));
        let succeeded = std::mem::take(&mut status.uncounted_succeeded).len();
        status.succeeded = match &status.completed {
            Some(completed) => count(completed.0.len()),
            None => status.succeeded.saturating_add(count(succeeded)),
        };
        Ok(())
    }

    /// Makes and deletes pods, and tells after which time more can be made.
    async fn manage(
        &mut self,
        job: &DynamicObject,
        spec: &Spec,
        status: &mut Status,
        tally: &Tally,
    ) -> Result<Option<Duration>, Error> {
        let now = self.clock.now();
        let complete = spec.is_complete(status.succeeded, count(tally.active.len()));
        if spec.suspend && !complete {
            let active = tally.active.clone();
            for pod in &active {
                self.withdraw(job, pod).await?;
            }
            if status.set("Suspended", true, "JobSuspended", "Job suspended", now) {
                self.note(job, false, "Suspended", "Job suspended").await;
            }
            return Ok(None);
        }
        if status.set("Suspended", false, "JobResumed", "Job resumed", now) {
            status.start = Some(now);
            self.note(job, false, "Resumed", "Job resumed").await;
        }
        let active = tally.active.len();
        let wanted = usize::try_from(spec.wanted(status.succeeded, count(active))).unwrap_or_default();
        if active > wanted {
            for pod in dispensable(tally.active.clone()).iter().take(active - wanted) {
                self.withdraw(job, pod).await?;
            }
            return Ok(None);
        }
        let taken = if spec.replaces_ending { active } else { active + tally.ending };
        let missing = wanted.saturating_sub(taken);
        if missing == 0 {
            return Ok(None);
        }
        let pause = self.streaks.get(cache::uid(job)).map_or(Duration::ZERO, |streak| streak.pause(now));
        if !pause.is_zero() {
            return Ok(Some(pause));
        }
        self.create(job, spec, status, tally, missing.min(BURST)).await?;
        Ok((missing > BURST).then_some(Duration::ZERO))
    }

    async fn create(
        &mut self,
        job: &DynamicObject,
        spec: &Spec,
        status: &Status,
        tally: &Tally,
        missing: usize,
    ) -> Result<(), Error> {
        // The API server has read it as this type.
        let template: PodTemplateSpec =
            serde_json::from_value(job.data["spec"]["template"].clone()).unwrap_or_default();
        let mut indexes = missing_indexes(spec, status, tally).into_iter();
        for _ in 0..missing {
            let mut pod = from_template(template.clone(), job.namespace(), job.controller_owner_ref(&self.kind));
            pod.metadata.generate_name = Some(format!("{}-", job.name_any()));
            pod.metadata.finalizers.get_or_insert_default().push(TRACKING.to_owned());
            if spec.indexed {
                let Some(index) = indexes.next() else { break };
                give_index(&mut pod, &job.name_any(), index);
            }
            match self.pods.create(&pod).await {
                Ok(created) => {
                    self.note(job, false, "SuccessfulCreate", format!("Created pod: {}", created.name_any())).await;
                }
                Err(error) => {
                    let message = format!("Error creating: {}", error.sentence());
                    self.note(job, true, "FailedCreate", message).await;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Deletes a pod that is too many: its end does not count.
    async fn withdraw(&mut self, job: &DynamicObject, pod: &Pod) -> Result<(), Error> {
        self.release(pod).await?;
        self.remove(job, pod).await
    }

    async fn remove(&mut self, job: &DynamicObject, pod: &Pod) -> Result<(), Error> {
        self.pods.delete(pod).await?;
        self.note(job, false, "SuccessfulDelete", format!("Deleted pod: {}", pod.name_any())).await;
        Ok(())
    }

    /// Writes the status, and the end when the last pod has ended.
    async fn report(
        &mut self,
        job: &DynamicObject,
        spec: &Spec,
        mut status: Status,
        undisturbed: bool,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let over = status.holds("FailureTarget").is_some();
        let left = Tally::of(spec, &status, &self.pods_of(job), over);
        status.active = count(left.active.len());
        status.ready = count(left.active.iter().filter(|pod| ready(pod).is_some()).count());
        status.terminating = count(left.ending);
        let mut told = None;
        if let Some(target) = status.holds("FailureTarget").filter(|_| status.active == 0 && left.ending == 0) {
            let text = |field: &str| target[field].as_str().unwrap_or_default().to_owned();
            let (reason, message) = (text("reason"), text("message"));
            status.set("Failed", true, &reason, &message, now);
            told = Some((true, reason_of_event(&reason), message));
        } else if !over && undisturbed && spec.is_complete(status.succeeded, status.active) {
            let (reason, message) = ("CompletionsReached", "Reached expected number of succeeded pods");
            status.set("SuccessCriteriaMet", true, reason, message, now);
            if status.active == 0 && left.ending == 0 {
                status.set("Complete", true, reason, message, now);
                status.completion = Some(now);
                told = Some((false, "Completed", "Job completed".to_owned()));
            }
        }
        self.write(job, &status).await?;
        if let Some((warning, reason, message)) = told {
            self.note(job, warning, reason, message).await;
        }
        Ok(())
    }

    async fn write(&mut self, job: &DynamicObject, status: &Status) -> Result<(), Error> {
        // Own writes of this look are in the cache.
        let known = self.jobs.get(&super::Key::of(job)).filter(|known| known.uid() == job.uid()).cloned();
        let Some(known) = known else { return Ok(()) };
        if let Some(written) = dynamic::write_status(&self.client, &self.kind, &known, status.to_json()).await? {
            self.jobs.written(written);
        }
        Ok(())
    }
}

/// Why the Job has failed, if it has.
fn failure(spec: &Spec, status: &Status, tally: &Tally, now: Timestamp) -> Option<End> {
    let end = |reason: &str, message: &str| Some((reason.to_owned(), message.to_owned()));
    if let Some(target) = status.holds("FailureTarget") {
        let text = |field: &str| target[field].as_str().unwrap_or_default();
        return end(text("reason"), text("message"));
    }
    if let Some(field) = spec.unserved {
        return end("NotImplemented", &format!("not implemented by the sandbox: spec.{field} of a Job"));
    }
    if let Some(verdict) = &tally.verdict {
        return end("PodFailurePolicy", verdict);
    }
    let failed = count(tally.failed.len() + status.uncounted_failed.len()).saturating_add(status.failed);
    let restarts = if spec.restarts_containers { tally.restarts() } else { 0 };
    if failed > spec.backoff_limit || (restarts > 0 && restarts >= spec.backoff_limit) {
        return end("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    let deadline = spec.deadline.filter(|_| !spec.suspend)?;
    let active_for = Duration::try_from(now.duration_since(status.start?)).unwrap_or_default();
    if active_for >= deadline {
        return end("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    None
}

/// The reasons of Job events, which are the reasons of its conditions.
fn reason_of_event(reason: &str) -> &'static str {
    match reason {
        "DeadlineExceeded" => "DeadlineExceeded",
        "PodFailurePolicy" => "PodFailurePolicy",
        "NotImplemented" => "NotImplemented",
        _ => "BackoffLimitExceeded",
    }
}

/// The time until the deadline of an active Job.
fn time_left(spec: &Spec, job: &DynamicObject, now: Timestamp) -> Option<Duration> {
    let deadline = spec.deadline.filter(|_| !spec.suspend)?;
    let started = dynamic::time(&job.data["status"]["startTime"]).unwrap_or(now);
    let active_for = Duration::try_from(now.duration_since(started)).unwrap_or_default();
    Some(deadline.saturating_sub(active_for)).filter(|left| !left.is_zero())
}

fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// The indexes, from the lowest, that have neither succeeded nor a pod.
fn missing_indexes(spec: &Spec, status: &Status, tally: &Tally) -> Vec<u32> {
    let running: BTreeSet<_> = tally.active.iter().filter_map(|pod| index_of(pod)).collect();
    let done = status.completed.as_ref().map(|completed| &completed.0);
    let all = 0..u32::try_from(spec.completions.filter(|_| spec.indexed).unwrap_or(0)).unwrap_or_default();
    all.filter(|index| !running.contains(index) && done.is_none_or(|done| !done.contains(index))).take(BURST).collect()
}

/// Tells a pod, and its containers by a variable, which completion it is for.
fn give_index(pod: &mut Pod, job: &str, index: u32) {
    pod.metadata.generate_name = Some(format!("{job}-{index}-"));
    for marks in [&mut pod.metadata.annotations, &mut pod.metadata.labels] {
        marks.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    }
    let Some(PodSpec { containers, init_containers, hostname, .. }) = &mut pod.spec else { return };
    hostname.get_or_insert_with(|| format!("{job}-{index}"));
    for container in containers.iter_mut().chain(init_containers.iter_mut().flatten()) {
        let variables = container.env.get_or_insert_default();
        if variables.iter().any(|variable| variable.name == "JOB_COMPLETION_INDEX") {
            continue;
        }
        let field = ObjectFieldSelector { api_version: None, field_path: format!("metadata.annotations['{INDEX}']") };
        variables.push(EnvVar {
            name: "JOB_COMPLETION_INDEX".to_owned(),
            value_from: Some(EnvVarSource { field_ref: Some(field), ..Default::default() }),
            ..Default::default()
        });
    }
}
