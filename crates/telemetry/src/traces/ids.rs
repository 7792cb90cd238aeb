//! Ids that need no memory: whoever knows what happened knows its trace, so that spans, log lines and the reasons that
//! are shown agree without asking each other.

use std::fmt;

use sha2::{Digest, Sha256};
use tidemark_operator::{Observation, What};

/// The trace of an object's evaluation.
///
/// `seed` is the process': evaluations are counted anew in each. `uid` is the object's, `evaluation` is
/// [`Observation::evaluation`], from 1.
pub fn trace_id(seed: u128, uid: &str, evaluation: u64) -> [u8; 16] {
    TraceId::of_evaluation(seed, uid, evaluation).0
}

/// A trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// A span within a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// As [`trace_id`].
    pub fn of_evaluation(seed: u128, uid: &str, evaluation: u64) -> Self {
        Self::hashed(seed, uid, &[b"evaluation", &evaluation.to_be_bytes()])
    }

    /// The trace that an observation belongs to: its evaluation's; a question of the HPA, and what happens before the first
    /// evaluation or beside them, has one of its own.
    pub fn of(seed: u128, observation: &Observation) -> Self {
        let uid = &observation.uid;
        let time = observation.time.as_nanosecond().to_be_bytes();
        match &observation.what {
            // Several may end at once.
            What::Write { write, .. } if observation.evaluation == 0 => {
                Self::hashed(seed, uid, &[b"write", &time, write.kind().as_bytes(), write.verb().as_bytes()])
            }
            What::Query { metric, .. } => Self::hashed(seed, uid, &[b"query", &time, metric.as_bytes()]),
            _ if observation.evaluation == 0 => Self::hashed(seed, uid, &[b"beside", &time]),
            _ => Self::of_evaluation(seed, uid, observation.evaluation),
        }
    }

    fn hashed(seed: u128, uid: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(seed.to_be_bytes());
        hasher.update((uid.len() as u64).to_be_bytes());
        hasher.update(uid);
        parts.iter().for_each(|part| hasher.update(part));
        let hash: [u8; 32] = hasher.finalize().into();
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        // All zeros would be no id.
        id[0] |= u8::from(id == [0; 16]);
        Self(id)
    }

    /// The span that all others of the trace are below of.
    pub fn root(self) -> SpanId {
        self.span(0)
    }

    /// The span of a number; 0 is the root.
    pub(crate) fn span(self, number: u64) -> SpanId {
        let hash: [u8; 32] = Sha256::new().chain_update(self.0).chain_update(number.to_be_bytes()).finalize().into();
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        id[0] |= u8::from(id == [0; 8]);
        SpanId(id)
    }

    /// The part of the id that samplers compare: 63 bits.
    pub(crate) fn fraction(self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_depend_on_seed_object_and_evaluation_and_on_nothing_else() {
        let id = |seed, uid: &str, evaluation| TraceId(trace_id(seed, uid, evaluation)).to_string();
        assert_eq!(id(7, "u", 1), id(7, "u", 1));
        let others = [id(7, "u", 1), id(8, "u", 1), id(7, "v", 1), id(7, "u", 2), id(7, "u\0", 1)];
        assert_eq!(BTreeSet::from(others.clone()).len(), others.len());
        assert_eq!(id(7, "u", 1).len(), 32);
    }

    #[test]
    fn the_spans_of_a_trace_have_ids_of_their_own() {
        let trace = TraceId::of_evaluation(1, "u", 1);
        let spans: BTreeSet<_> = (0..1000).map(|number| trace.span(number)).collect();
        assert_eq!((spans.len(), trace.root().to_string().len()), (1000, 16));
    }
}
