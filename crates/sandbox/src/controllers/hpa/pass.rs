//! One pass over one HorizontalPodAutoscaler.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    ExternalMetricSource, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, Request, Selector};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Deserialize;
use tidemark_clock::Clock;
use tidemark_engine::hpa::{self, Controls, Decision, Failure, Measured, Memory, Observed, PodTiming, Reading, Spec};
use tidemark_engine::quantity;
use tidemark_engine::verdict::{Status, Verdict};
use tokio::time::Instant;

use super::super::{Error, Key, Note, ask, cache};
use super::convert::Source;
use super::{convert, resource, status};

/// A write of the target's scale that lost against another one is repeated so many times.
const CONFLICTS: usize = 5;

/// What a pass needs to know.
pub(super) struct Pass {
    pub(super) client: Client,
    pub(super) clock: Clock,
    pub(super) controls: Controls,
    pub(super) hpa: HorizontalPodAutoscaler,
    pub(super) key: Key,
    pub(super) memory: Memory,
    /// The other HPAs of the namespace, with the uids of the pods that each scaled at its last pass.
    pub(super) rivals: Vec<(String, BTreeSet<String>)>,
}

/// What a pass leaves behind.
pub(super) struct Outcome {
    pub(super) key: Key,
    pub(super) uid: String,
    pub(super) started: Instant,
    pub(super) memory: Memory,
    /// `None` when the pods were not looked at.
    pub(super) pods: Option<BTreeSet<String>>,
    /// The HPA as the API server has it after a write of its status.
    pub(super) written: Option<HorizontalPodAutoscaler>,
    pub(super) notes: Vec<Note>,
}

/// Why a pass ended without a decision.
struct Stop {
    condition: &'static str,
    reason: &'static str,
    message: String,
}

impl Stop {
    fn new(condition: &'static str, reason: &'static str, message: String) -> Self {
        Self { condition, reason, message }
    }
}

/// The target's scale and how to reach it.
struct Target {
    api: Api<DynamicObject>,
    name: String,
    scale: Scale,
}

#[derive(Deserialize)]
struct ExternalMetricValues {
    items: Vec<ExternalMetricValue>,
}

#[derive(Deserialize)]
struct ExternalMetricValue {
    value: String,
}

impl Pass {
    pub(super) async fn run(self) -> Outcome {
        let started = Instant::now();
        let mut status = self.hpa.status.clone().unwrap_or_default();
        status.observed_generation = self.hpa.metadata.generation.or(status.observed_generation);
        let mut outcome = Outcome {
            key: self.key.clone(),
            uid: cache::uid(&self.hpa).to_owned(),
            started,
            memory: self.memory.clone(),
            pods: None,
            written: None,
            notes: Vec::new(),
        };
        if let Err(stop) = self.look_and_act(&self.hpa.spec, &mut status, &mut outcome).await {
            let verdict = verdict(Status::False, stop.reason, stop.message.clone());
            status::set(&mut status, stop.condition, &verdict, self.clock.now());
            outcome.notes.push(self.note(true, stop.reason, stop.message));
        }
        outcome.written = self.write(&status).await;
        outcome
    }

    async fn look_and_act(
        &self,
        api_spec: &HorizontalPodAutoscalerSpec,
        status: &mut HorizontalPodAutoscalerStatus,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        let target = self.target(api_spec).await.map_err(|error| {
            let message =
                format!("the HPA controller was unable to get the target's current scale: {}", error.sentence());
            Stop::new("AbleToScale", "FailedGetScale", message)
        })?;
        let spec = convert::spec(api_spec);
        let mut observed = Observed {
            spec_replicas: target.scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default(),
            status_replicas: target.scale.status.as_ref().map_or(0, |status| status.replicas),
            ready_pods: 0,
            pods: 0,
        };
        status.current_replicas = Some(observed.spec_replicas);
        status.current_metrics = None;
        let mut measured = Vec::new();
        if hpa::needs_metrics(&spec, observed) {
            let pods = self.pods(&target.scale).await?;
            observed.pods = i32::try_from(pods.len()).unwrap_or(i32::MAX);
            observed.ready_pods =
                i32::try_from(pods.iter().filter(|pod| runs_and_is_ready(pod)).count()).unwrap_or(i32::MAX);
            let uids = pods.iter().filter_map(|pod| pod.uid()).collect();
            self.unambiguous(&uids)?;
            outcome.pods = Some(uids);
            for metric in api_spec.metrics.iter().flatten() {
                measured.push(match convert::source(metric) {
                    Ok(Source::External(external)) => Measured::External(self.read(external).await),
                    Ok(Source::Resource(metric)) => {
                        let (namespace, selector) = (&self.key.namespace, selector(&target.scale));
                        Measured::Pods(resource::pods(&self.client, namespace, selector, &pods, &metric).await)
                    }
                    Err(failure) => Measured::External(Err(failure)),
                });
            }
        }
        let (now, timing) = (self.clock.now(), PodTiming::default());
        let decision = hpa::decide_all(&spec, &self.controls, &timing, observed, &measured, &self.memory, now);
        status.current_metrics = status::metrics(api_spec, &decision);
        self.settle(&spec, &decision, target, status, outcome).await;
        Ok(())
    }

    /// Enters the decision into the status and carries it out.
    async fn settle(
        &self,
        spec: &Spec,
        decision: &Decision,
        target: Target,
        status: &mut HorizontalPodAutoscalerStatus,
        outcome: &mut Outcome,
    ) {
        let now = self.clock.now();
        let conditions = [
            ("AbleToScale", &decision.able_to_scale),
            ("ScalingActive", &decision.scaling_active),
            ("ScalingLimited", &decision.scaling_limited),
        ];
        for (type_, verdict) in conditions {
            if let Some(verdict) = verdict {
                status::set(status, type_, verdict, now);
            }
        }
        outcome.memory = decision.memory.clone();
        if let Some(failure) = &decision.failure {
            outcome.notes.push(self.note(true, failure.reason, failure.message.to_string()));
            let message = format!("invalid metrics: {}", failure.message);
            outcome.notes.push(self.note(true, "FailedComputeMetricsReplicas", message));
            return;
        }
        let from = target.scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
        let before = std::mem::replace(&mut status.desired_replicas, decision.desired);
        if decision.desired == from {
            return;
        }
        let to = decision.desired;
        match rescale(target, to).await {
            Ok(()) => {
                let why: Vec<_> = decision.reasons.iter().map(ToString::to_string).collect();
                let message = format!("the HPA controller was able to update the target scale to {to}");
                let verdict = verdict(Status::True, "SucceededRescale", message);
                status::set(status, "AbleToScale", &verdict, now);
                status.last_scale_time = Some(Time(now));
                hpa::record_rescale(&mut outcome.memory, spec, from, to, now);
                outcome.notes.push(self.note(
                    false,
                    "SuccessfulRescale",
                    format!("New size: {to}; reason: {}", why.join("; ")),
                ));
            }
            Err(error) => {
                let message = format!("the HPA controller was unable to update the target scale: {}", error.sentence());
                let verdict = verdict(Status::False, "FailedUpdateScale", message.clone());
                status::set(status, "AbleToScale", &verdict, now);
                status.desired_replicas = before;
                outcome.notes.push(self.note(true, "FailedRescale", format!("New size: {to}; error: {message}")));
            }
        }
    }

    async fn target(&self, spec: &HorizontalPodAutoscalerSpec) -> Result<Target, Error> {
        let reference = &spec.scale_target_ref;
        let api_version = reference.api_version.as_deref().unwrap_or("v1");
        let resource = served_by(&self.client, api_version, &reference.kind).await?;
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.key.namespace, &resource);
        let scale = ask(api.get_scale(&reference.name)).await?;
        Ok(Target { api, name: reference.name.clone(), scale })
    }

    async fn pods(&self, scale: &Scale) -> Result<Vec<Pod>, Stop> {
        let selector = selector(scale);
        if selector.is_empty() {
            let message = "the HPA target's scale is missing a selector".to_owned();
            return Err(Stop::new("ScalingActive", "InvalidSelector", message));
        }
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.key.namespace);
        match ask(pods.list(&ListParams::default().labels(selector))).await {
            Ok(list) => Ok(list.items),
            Err(error) => {
                let message = format!("the pods of selector {selector:?} cannot be listed: {}", error.sentence());
                Err(Stop::new("ScalingActive", "InvalidSelector", message))
            }
        }
    }

    fn unambiguous(&self, pods: &BTreeSet<String>) -> Result<(), Stop> {
        let Some((rival, _)) = self.rivals.iter().find(|(_, theirs)| !theirs.is_disjoint(pods)) else { return Ok(()) };
        let message = format!("pods by selector are controlled by multiple HPAs: {} and {rival}", self.key.name);
        Err(Stop::new("ScalingActive", "AmbiguousSelector", message))
    }

    /// The sum of a metric's items.
    async fn read(&self, external: &ExternalMetricSource) -> Reading {
        let name = &external.metric.name;
        let failed = |message: String| {
            let message: Arc<str> =
                format!("unable to get external metric {}/{name}: {message}", self.key.namespace).into();
            Failure { reason: "FailedGetExternalMetric", message }
        };
        let selector = external.metric.selector.clone().unwrap_or_default();
        let selector = Selector::try_from(selector).map_err(|error| failed(error.to_string()))?.to_string();
        let namespace = &self.key.namespace;
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{name}");
        let query = if selector.is_empty() { ListParams::default() } else { ListParams::default().labels(&selector) };
        let request = Request::new(path).list(&query).map_err(|error| failed(error.to_string()))?;
        let answer = ask(self.client.request::<ExternalMetricValues>(request)).await;
        let values = answer.map_err(|error| failed(error.sentence()))?;
        if values.items.is_empty() {
            return Err(failed("no metrics returned from external metrics API".to_owned()));
        }
        let mut sum = 0_i64;
        for item in &values.items {
            let milli = quantity::parse_milli(&item.value)
                .ok_or_else(|| failed(format!("the value {:?} is not a quantity", item.value)))?;
            sum = sum.saturating_add(milli);
        }
        Ok(sum)
    }

    /// Writes the status if it is not the one that is there.
    async fn write(&self, status: &HorizontalPodAutoscalerStatus) -> Option<HorizontalPodAutoscaler> {
        if self.hpa.status.as_ref() == Some(status) {
            return None;
        }
        let hpas = Api::<HorizontalPodAutoscaler>::namespaced(self.client.clone(), &self.key.namespace);
        let mut version = self.hpa.resource_version();
        for _ in 0..CONFLICTS {
            let patch = Patch::Merge(status::patch(status, version.as_deref()));
            match ask(hpas.patch_status(&self.key.name, &PatchParams::default(), &patch)).await {
                Ok(written) => return Some(written),
                Err(error) if error.is_conflict() => match ask(hpas.get(&self.key.name)).await {
                    Ok(now) if now.uid() == self.hpa.uid() => version = now.resource_version(),
                    _ => return None,
                },
                Err(error) if error.is_not_found() => return None,
                Err(error) => {
                    let (namespace, name) = (&self.key.namespace, &self.key.name);
                    tracing::warn!(namespace, name, %error, "the status of an HPA could not be written");
                    return None;
                }
            }
        }
        None
    }

    fn note(&self, warning: bool, reason: &'static str, message: String) -> Note {
        Note { about: self.hpa.object_ref(&()), warning, reason, message }
    }
}

fn selector(scale: &Scale) -> &str {
    scale.status.as_ref().and_then(|status| status.selector.as_deref()).unwrap_or_default()
}

fn verdict(status: Status, reason: &'static str, message: String) -> Verdict {
    Verdict { status, reason, message }
}

async fn rescale(mut target: Target, replicas: i32) -> Result<(), Error> {
    for _ in 1..CONFLICTS {
        target.scale.spec.get_or_insert_default().replicas = Some(replicas);
        match ask(target.api.replace_scale(&target.name, &PostParams::default(), &target.scale)).await {
            Err(error) if error.is_conflict() => target.scale = ask(target.api.get_scale(&target.name)).await?,
            other => return other.map(drop),
        }
    }
    target.scale.spec.get_or_insert_default().replicas = Some(replicas);
    ask(target.api.replace_scale(&target.name, &PostParams::default(), &target.scale)).await.map(drop)
}

/// Which resource serves a kind, by discovery.
async fn served_by(client: &Client, api_version: &str, kind: &str) -> Result<ApiResource, Error> {
    let list = match api_version {
        "v1" => ask(client.list_core_api_resources("v1")).await?,
        version => ask(client.list_api_group_resources(version)).await?,
    };
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let found = list.resources.into_iter().find(|resource| resource.kind == kind && !resource.name.contains('/'));
    let plural = found.ok_or_else(|| unknown_kind(api_version, kind))?.name;
    Ok(ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        plural,
    })
}

fn unknown_kind(api_version: &str, kind: &str) -> Error {
    let message = format!("no matches for kind \"{kind}\" in version \"{api_version}\"");
    let status = kube::core::Status::failure(&message, "NotFound").with_code(404);
    Error::Api(Box::new(kube::Error::Api(Box::new(status))))
}

fn runs_and_is_ready(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let ready =
        |condition: &k8s_openapi::api::core::v1::PodCondition| condition.type_ == "Ready" && condition.status == "True";
    status.phase.as_deref() == Some("Running") && status.conditions.iter().flatten().any(ready)
}
