//! Plain lines: one whenever an object's state has changed in a way that a user cares about.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemark_operator::{Handle, ObjectKey, Snapshot};

use super::{Places, table};

/// Prints until `stop` resolves.
pub(super) async fn print(
    operator: &Handle,
    places: &Places,
    stop: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    println!("Kubernetes API: {}", places.server);
    println!("export KUBECONFIG={}", places.kubeconfig.display());
    println!("logs of pods: {}", places.logs.display());
    let mut stop = std::pin::pin!(stop);
    let mut printed = BTreeMap::new();
    loop {
        // Without a target, nothing is known of it yet.
        for snapshot in operator.snapshots().iter().filter(|snapshot| !snapshot.target.is_empty()) {
            let gist = gist(snapshot);
            if printed.get(&snapshot.key) != Some(&gist) {
                println!("{}", table::summary(snapshot));
                printed.insert(snapshot.key.clone(), gist);
            }
        }
        forget_the_gone(&mut printed, operator);
        tokio::select! {
            biased;
            outcome = &mut stop => return outcome,
            () = operator.changed() => {}
        }
    }
}

/// What a new line is worth: not each new value, but what follows from it.
type Gist = (Option<i32>, Option<i32>, Option<bool>, bool, Option<String>, Vec<bool>);

fn gist(snapshot: &Snapshot) -> Gist {
    let problem = snapshot.ready.as_ref().filter(|ready| ready.status != "True");
    (
        snapshot.replicas,
        snapshot.desired,
        snapshot.active,
        snapshot.paused,
        problem.and_then(|ready| ready.message.clone()),
        snapshot.triggers.iter().map(|trigger| trigger.error.is_some()).collect(),
    )
}

fn forget_the_gone(printed: &mut BTreeMap<Arc<ObjectKey>, Gist>, operator: &Handle) {
    let present = operator.snapshots();
    printed.retain(|key, _| {
        let there = present.iter().any(|snapshot| snapshot.key == *key);
        if !there {
            println!("{key}: gone");
        }
        there
    });
}
