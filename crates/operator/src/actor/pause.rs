//! Pausing by annotation.

use kube::ResourceExt;
use tidemark_api::ScaledObject;
use tidemark_engine::controls;
use tidemark_engine::reason::Reason;
use tokio::time::Instant;

use super::Actor;
use super::check::{CheckFailure, Reconcile, refused};
use crate::observation::{Life, ScaleCause, What, Write};
use crate::status::{self, NewCondition};
use crate::target::{Scaled, Target};

const STEP_HPA: &str = "failed to delete HPA for paused ScaledObject";
const STEP_SCALE: &str = "failed to scale target to paused replica count";

impl Actor {
    /// Follows the annotations: conditions and events of a pause, and its end; the loop stops at once.
    pub(super) fn apply_controls(&mut self, object: &ScaledObject) {
        let pausing = self.controls.paused || self.controls.scale_in_paused || self.controls.scale_out_paused;
        if self.told_paused.replace(pausing) != Some(pausing) {
            self.tell(What::Paused(pausing));
        }
        let was_pausing = self.status.is_true(status::PAUSED);
        if pausing && !was_pausing {
            let text = "ScaledObject is paused";
            self.set_condition(NewCondition::new(status::PAUSED, "True", "ScaledObjectPaused", text));
            self.tell_life(Life::Paused);
        } else if !pausing && was_pausing {
            let text = "pause annotation removed for ScaledObject";
            self.set_condition(NewCondition::new(status::PAUSED, "False", "ScaledObjectUnpaused", text));
            self.tell_life(Life::Unpaused);
        }
        if self.status.paused_replicas.is_some() && !controls::has_pause_annotation(object.annotations()) {
            self.status.change().paused_replicas = None;
        }
        if self.controls.paused {
            self.stop_polling("the ScaledObject is paused");
            self.reasons = [Reason::Paused { replicas: self.controls.paused_replicas }].into();
            self.desired = self.controls.paused_replicas;
        }
    }
}

impl Reconcile {
    /// The check of a paused object: no HPA, and the replicas of `paused-replicas`.
    pub(super) async fn pause(&mut self, object: &ScaledObject) -> Result<(), CheckFailure> {
        let name = self.hpa_name.as_deref().map_or_else(|| object.wanted_hpa_name(), str::to_owned);
        self.delete_hpa(&name, object).await.map_err(|error| refused(STEP_HPA, &error))?;
        let resolved =
            self.ctx.kinds.resolve(&self.ctx.client, &self.key.namespace, &object.spec.scale_target_ref).await;
        // Read before it is held: the replicas that it has by itself are those to give back one day. A paused object does
        // not need its target.
        if let Ok(target) = &resolved {
            let found = target.read(&self.ctx.client, &self.ctx.kinds).await.ok();
            self.out.target = found.map(|found| (target.clone(), found));
        }
        let wanted = controls::paused_replicas(object.annotations()).map_err(|error| refused(STEP_SCALE, &error))?;
        if let Some(to) = wanted {
            let target = resolved.as_ref().map_err(|error| refused(STEP_SCALE, error))?;
            self.hold(target, to).await?;
        }
        Ok(())
    }

    /// Scales the target to the count at which it is held.
    async fn hold(&mut self, target: &Target, to: i32) -> Result<(), CheckFailure> {
        let write = |from| Write::Scale { target: target.describe(), from, to, cause: ScaleCause::Paused };
        let begun = Instant::now();
        let scaled = target.scale(&self.ctx.client, None, to).await;
        let written = |from, error| self.ctx.written(write(from), begun.elapsed(), error);
        match scaled {
            Scaled::Failed { from, message } => {
                self.tell(written(from, Some(message.as_str().into())));
                return Err(refused(STEP_SCALE, &message));
            }
            Scaled::Done { from, written: true } => self.tell(written(from, None)),
            // Moved cannot be: no count was expected.
            Scaled::Done { .. } | Scaled::Moved { .. } => {}
        }
        self.out.paused_replicas = Some(to);
        Ok(())
    }
}
