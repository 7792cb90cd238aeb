//! Failures in a row, where a fallback is configured, and what the status says of them.

use tidemark_engine::fallback::{self, Health, Transition};
use tidemark_engine::verdict::Status;

use super::Actor;
use super::slot::Last;
use crate::observation::Life;
use crate::status::{FALLBACK, NewCondition};
use crate::texts::Text;

impl Actor {
    /// Counts a fetch that has ended, whoever asked for it.
    pub(super) fn count_fetch(&mut self, index: usize) {
        if self.plan.fallback.is_none() {
            return;
        }
        let slot = &mut self.slots[index];
        let health = slot.health.after(matches!(slot.last, Last::Read { .. }));
        if slot.health == health && self.status.health.is_some() {
            return;
        }
        slot.health = health;
        self.report_health();
        self.report_fallback();
        self.flush_status();
    }

    /// What the status has of a trigger's failures: the count goes on where another operator has left it.
    pub(super) fn recall_health(&mut self, index: usize) {
        if self.plan.fallback.is_none() {
            return;
        }
        let failures = self.slots[index].external_names().map(|name| self.status.health_of(name).failures).max();
        self.slots[index].health = Health { failures: failures.unwrap_or(0) };
    }

    /// Takes the triggers' health over into the status. Without a fallback nothing is counted, and what was goes with
    /// its metrics.
    pub(super) fn report_health(&mut self) {
        let health: Box<[(Text, Health)]> = match (&self.plan.fallback, &self.status.health) {
            // The metrics of the HPA alone have no health.
            (Some(_), None) if self.healths().next().is_none() => return,
            (Some(_), _) => self.healths().collect(),
            (None, None) => return,
            (None, Some(health)) => {
                let known = |name: &Text| self.slots.iter().flat_map(|slot| slot.external_names()).any(|n| n == name);
                health.iter().filter(|(name, _)| known(name)).cloned().collect()
            }
        };
        if self.status.health.as_ref() != Some(&health) {
            self.status.change().health = Some(health);
        }
    }

    /// The Fallback condition, and word of its change.
    pub(super) fn report_fallback(&mut self) {
        let verdict = {
            let healths: Vec<_> = self.healths().collect();
            let fallback = self.plan.fallback.as_ref();
            fallback::condition(fallback, healths.iter().map(|(name, health)| (&**name, *health)))
        };
        let before = self.status.condition(FALLBACK).map_or(Status::Unknown, |old| Status::from_word(&old.status));
        match fallback::transition(before, verdict.status) {
            Some(Transition::Activated) => self.tell_life(Life::FallbackActivated),
            Some(Transition::Deactivated) => self.tell_life(Life::FallbackDeactivated),
            None => {}
        }
        self.set_condition(NewCondition::of(FALLBACK, &verdict));
    }

    fn healths(&self) -> impl Iterator<Item = (Text, Health)> {
        self.slots.iter().flat_map(|slot| slot.external_names().map(|name| (name.clone(), slot.health)))
    }
}
