//! Which traces are told.

use super::ids::TraceId;
use crate::otlp::variables::Reader;

/// Every id is below this.
const ALL: u64 = 1 << 63;

/// Decides by the trace's id alone, so that all its spans are told or none, whoever decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Traces whose last 63 bits are below this are told.
    below: u64,
}

impl Sampler {
    pub const ALWAYS_ON: Self = Self { below: ALL };
    pub const ALWAYS_OFF: Self = Self { below: 0 };

    /// A sampler that tells this part of all traces, from 0 to 1.
    pub fn ratio(ratio: f64) -> Self {
        Self { below: (ratio.clamp(0.0, 1.0) * ALL as f64) as u64 }
    }

    /// Whether a trace is told.
    pub fn takes(self, trace: TraceId) -> bool {
        trace.fraction() < self.below
    }

    /// As `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say. No trace here has a parent elsewhere, so that those
    /// that look at the parent do what they do for a root.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        let name = reader.get(NAME).unwrap_or_else(|| "parentbased_always_on".to_owned()).to_ascii_lowercase();
        match name.strip_prefix("parentbased_").unwrap_or(&name) {
            "always_on" => Self::ALWAYS_ON,
            "always_off" => Self::ALWAYS_OFF,
            "traceidratio" => {
                let valid = |ratio: &f64| (0.0..=1.0).contains(ratio);
                Self::ratio(reader.number(&["OTEL_TRACES_SAMPLER_ARG"], 1.0, "a number from 0 to 1", valid))
            }
            _ => {
                reader.warn(format!("{NAME}={name:?} is not served: always_on, always_off, traceidratio and the same after parentbased_ are; always_on is used"));
                Self::ALWAYS_ON
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sampler: &str, argument: &str) -> (Sampler, Vec<String>) {
        let get = |name: &str| match name {
            "OTEL_TRACES_SAMPLER" => Some(sampler.to_owned()),
            "OTEL_TRACES_SAMPLER_ARG" => Some(argument.to_owned()),
            _ => None,
        };
        let mut reader = Reader::new(&get);
        (Sampler::read(&mut reader), reader.into_warnings())
    }

    #[test]
    fn a_ratio_takes_so_many_and_a_greater_one_takes_them_too() {
        let traces: Vec<_> = (1..=10_000).map(|number| TraceId::of_evaluation(1, "u", number)).collect();
        let taken = |sampler: Sampler| traces.iter().filter(|trace| sampler.takes(**trace)).count();
        let (tenth, fifth) = (Sampler::ratio(0.1), Sampler::ratio(0.2));
        assert!((900..1100).contains(&taken(tenth)), "{}", taken(tenth));
        assert!(traces.iter().all(|trace| fifth.takes(*trace) || !tenth.takes(*trace)));
        assert_eq!((taken(Sampler::ALWAYS_ON), taken(Sampler::ALWAYS_OFF)), (10_000, 0));
        assert_eq!((taken(Sampler::ratio(1.0)), taken(Sampler::ratio(0.0))), (10_000, 0));
    }

    #[test]
    fn samplers_are_those_of_the_specification() {
        assert_eq!(read("", ""), (Sampler::ALWAYS_ON, Vec::new()));
        assert_eq!(read("parentbased_always_off", ""), (Sampler::ALWAYS_OFF, Vec::new()));
        assert_eq!(read("traceidratio", "0.25"), (Sampler::ratio(0.25), Vec::new()));
        assert_eq!(read("parentbased_traceidratio", ""), (Sampler::ALWAYS_ON, Vec::new()));
        for (sampler, argument) in [("traceidratio", "2"), ("traceidratio", "NaN"), ("xray", "")] {
            let (sampler, warnings) = read(sampler, argument);
            assert_eq!((sampler, warnings.len()), (Sampler::ALWAYS_ON, 1));
        }
    }
}
