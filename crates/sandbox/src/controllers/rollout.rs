//! How many replicas the old and the new ReplicaSet of a Deployment get in one step of a rollout.

use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How a Deployment replaces its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// All old pods go before the first new one comes.
    Recreate,
    /// Old and new pods side by side, within these bounds (pods).
    RollingUpdate { surge: i32, unavailable: i32 },
}

/// Replicas of one ReplicaSet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// `spec.replicas`.
    pub(super) wanted: i32,
    /// `status.availableReplicas`.
    pub(super) available: i32,
}

impl Strategy {
    /// The Deployment's strategy with percentages of `desired` resolved: a surge is rounded up, unavailability down, and
    /// where both come to nothing one pod may be unavailable, or nothing would ever move.
    pub(super) fn of(spec: &DeploymentSpec, desired: i32) -> Self {
        let strategy = spec.strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
            return Self::Recreate;
        }
        let bounds = strategy.and_then(|s| s.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let surge = bounds.and_then(|b| b.max_surge.as_ref()).unwrap_or(&quarter);
        let unavailable = bounds.and_then(|b| b.max_unavailable.as_ref()).unwrap_or(&quarter);
        let (surge, unavailable) = (resolve(surge, desired, true), resolve(unavailable, desired, false));
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable.min(desired) };
        Self::RollingUpdate { surge, unavailable }
    }

    /// What the new ReplicaSet is to have next, given all `spec.replicas` of the old ones.
    pub(super) fn new_replicas(self, desired: i32, new: Counts, old: &[Counts]) -> i32 {
        let Self::RollingUpdate { surge, .. } = self else { return desired };
        if new.wanted >= desired {
            return desired;
        }
        let total = new.wanted + old.iter().map(|set| set.wanted).sum::<i32>();
        let room = (desired.saturating_add(surge) - total).max(0);
        new.wanted + room.min(desired - new.wanted)
    }

    /// What each old ReplicaSet is to have next; `old` is ordered from the oldest.
    ///
    /// Pods that are not available go first, since nobody misses them; then available ones as far as enough remain.
    pub(super) fn old_replicas(self, desired: i32, new: Counts, old: &[Counts]) -> Vec<i32> {
        let Self::RollingUpdate { unavailable, .. } = self else { return vec![0; old.len()] };
        let mut wanted: Vec<i32> = old.iter().map(|set| set.wanted).collect();
        let total = new.wanted + wanted.iter().sum::<i32>();
        let least = desired - unavailable;
        let mut budget = total - least - (new.wanted - new.available).max(0);
        for (wanted, set) in wanted.iter_mut().zip(old) {
            let broken = (*wanted - set.available).clamp(0, budget.max(0));
            *wanted -= broken;
            budget -= broken;
        }
        let available = new.available + old.iter().map(|set| set.available).sum::<i32>();
        let mut spare = (available - least).min(budget).max(0);
        for wanted in &mut wanted {
            let taken = (*wanted).min(spare);
            *wanted -= taken;
            spare -= taken;
        }
        wanted
    }
}

fn resolve(value: &IntOrString, desired: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(count) => (*count).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0).clamp(0, 1_000_000);
            let hundredths = percent * i64::from(desired.max(0));
            let pods = if up { (hundredths + 99) / 100 } else { hundredths / 100 };
            i32::try_from(pods).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{DeploymentStrategy, RollingUpdateDeployment};

    use super::*;

    fn rolling(surge: &str, unavailable: &str, desired: i32) -> Strategy {
        let bound = |text: &str| Some(text.parse().map_or(IntOrString::String(text.to_owned()), IntOrString::Int));
        let rolling_update =
            Some(RollingUpdateDeployment { max_surge: bound(surge), max_unavailable: bound(unavailable) });
        let strategy = Some(DeploymentStrategy { rolling_update, type_: None });
        Strategy::of(&DeploymentSpec { strategy, ..Default::default() }, desired)
    }

    fn counts(wanted: i32, available: i32) -> Counts {
        Counts { wanted, available }
    }

    #[test]
    fn percentages_round_surge_up_and_unavailability_down() {
        assert_eq!(rolling("25%", "25%", 10), Strategy::RollingUpdate { surge: 3, unavailable: 2 });
        assert_eq!(rolling("25%", "25%", 1), Strategy::RollingUpdate { surge: 1, unavailable: 0 });
        assert_eq!(rolling("0", "0", 5), Strategy::RollingUpdate { surge: 0, unavailable: 1 });
    }

    #[test]
    fn a_rollout_never_exceeds_the_surge_nor_falls_below_what_must_be_available() {
        let strategy = rolling("1", "1", 4);
        let (mut new, mut old) = (counts(0, 0), counts(4, 4));
        for _ in 0..20 {
            new.wanted = strategy.new_replicas(4, new, &[old]);
            assert!(new.wanted + old.wanted <= 5, "{new:?} {old:?}");
            old.wanted = strategy.old_replicas(4, new, &[old])[0];
            old.available = old.available.min(old.wanted);
            assert!(new.available + old.available >= 3, "{new:?} {old:?}");
            new.available = new.wanted;
        }
        assert_eq!((new, old), (counts(4, 4), counts(0, 0)));
    }

    #[test]
    fn pods_that_never_became_available_go_first() {
        let strategy = rolling("1", "0", 3);
        assert_eq!(strategy.old_replicas(3, counts(1, 1), &[counts(1, 0), counts(2, 2)]), [0, 2]);
    }

    #[test]
    fn a_new_set_that_never_becomes_available_stops_the_rollout() {
        let strategy = rolling("1", "0", 3);
        assert_eq!(strategy.old_replicas(3, counts(1, 0), &[counts(3, 3)]), [3]);
        assert_eq!(strategy.new_replicas(3, counts(1, 0), &[counts(3, 3)]), 1);
    }
}
