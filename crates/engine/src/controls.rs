//! What a user's annotations ask of a ScaledObject.

use std::collections::BTreeMap;

use crate::activation::Controls;

/// Boolean text: stops the loop, deletes the HPA and freezes the replicas.
pub const PAUSED: &str = "autoscaling.keda.sh/paused";
/// Its presence pauses; the target is scaled to this count.
pub const PAUSED_REPLICAS: &str = "autoscaling.keda.sh/paused-replicas";
/// Boolean text: nothing scales in, not even to zero or idle.
pub const PAUSED_SCALE_IN: &str = "autoscaling.keda.sh/paused-scale-in";
/// Boolean text: nothing scales out, not even from zero or idle.
pub const PAUSED_SCALE_OUT: &str = "autoscaling.keda.sh/paused-scale-out";
/// Boolean text: the object counts as active.
pub const FORCE_ACTIVATION: &str = "autoscaling.keda.sh/force-activation";

/// An annotation whose value cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: \"{value}\" is not a number of replicas; give a whole number from 0 to 2147483647")]
pub struct BadAnnotation {
    /// The annotation's key.
    pub annotation: &'static str,
    /// Its value as the user wrote it.
    pub value: String,
}

/// Reads all annotations that steer scaling.
///
/// # Errors
/// `paused-replicas` is not a number of replicas. The object is to be held paused all the same: see [`needs_pause`].
pub fn read(annotations: &BTreeMap<String, String>) -> Result<Controls, BadAnnotation> {
    Ok(Controls {
        paused: needs_pause(annotations),
        paused_replicas: paused_replicas(annotations)?,
        scale_in_paused: switched_on(annotations, PAUSED_SCALE_IN),
        scale_out_paused: switched_on(annotations, PAUSED_SCALE_OUT),
        force_activation: switched_on(annotations, FORCE_ACTIVATION),
    })
}

/// Whether one of the annotations that pause an object as a whole is there, whatever its value.
pub fn has_pause_annotation(annotations: &BTreeMap<String, String>) -> bool {
    annotations.contains_key(PAUSED) || annotations.contains_key(PAUSED_REPLICAS)
}

/// Whether the object is paused as a whole. `paused-replicas` pauses by its presence, also beside `paused: "false"`.
pub fn needs_pause(annotations: &BTreeMap<String, String>) -> bool {
    annotations.contains_key(PAUSED_REPLICAS) || switched_on(annotations, PAUSED)
}

/// The replicas at which the object is to be held while paused; `None` without the annotation.
///
/// # Errors
/// The value is not a whole number from 0 to 2147483647.
pub fn paused_replicas(annotations: &BTreeMap<String, String>) -> Result<Option<i32>, BadAnnotation> {
    let Some(value) = annotations.get(PAUSED_REPLICAS) else { return Ok(None) };
    match value.parse::<i32>() {
        Ok(replicas) if replicas >= 0 => Ok(Some(replicas)),
        _ => Err(BadAnnotation { annotation: PAUSED_REPLICAS, value: value.clone() }),
    }
}

/// Boolean text as KEDA reads it in annotations: everything counts as true but the words for false.
fn boolean(text: &str) -> bool {
    !matches!(text, "0" | "f" | "F" | "FALSE" | "false" | "False")
}

fn switched_on(annotations: &BTreeMap<String, String>, key: &str) -> bool {
    annotations.get(key).is_some_and(|text| boolean(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_text_that_is_no_boolean_pauses() {
        for text in ["", "no", "yes", "True", "1"] {
            assert!(needs_pause(&annotations(&[(PAUSED, text)])), "{text:?}");
        }
        for text in ["false", "False", "FALSE", "f", "F", "0"] {
            assert!(!needs_pause(&annotations(&[(PAUSED, text)])), "{text:?}");
        }
    }

    #[test]
    fn paused_replicas_pauses_even_beside_paused_false() {
        let controls = read(&annotations(&[(PAUSED, "false"), (PAUSED_REPLICAS, "3")])).unwrap();
        assert!(controls.paused);
        assert_eq!(controls.paused_replicas, Some(3));
    }

    #[test]
    fn one_way_pauses_and_force_activation_do_not_pause_the_object() {
        let controls =
            read(&annotations(&[(PAUSED_SCALE_IN, "true"), (PAUSED_SCALE_OUT, ""), (FORCE_ACTIVATION, "t")])).unwrap();
        assert!(controls.scale_in_paused && controls.scale_out_paused && controls.force_activation);
        assert!(!controls.paused);
    }

    #[test]
    fn a_count_that_is_no_count_is_refused_and_named() {
        for text in ["", "five", "-1", "1.5", "2147483648"] {
            let error = read(&annotations(&[(PAUSED_REPLICAS, text)])).unwrap_err();
            assert!(error.to_string().contains(PAUSED_REPLICAS) && error.to_string().contains(&format!("{text:?}")));
        }
    }
}
