//! `cpu` and `memory`: what the scale target's pods use. The HorizontalPodAutoscaler reads it by itself; nothing is read
//! here.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tidemark_trigger::{
    Connection, Door, ErrorKind, MetricSpec, Parameters, ParseError, ParseErrors, Resource, ResourceTarget,
    SourceError, Trigger, TriggerInput, TriggerType, parameters,
};

use super::quantity::canonical;

/// The trigger type `cpu`.
pub static CPU: TriggerType = TriggerType {
    name: "cpu",
    parse: |input| PodResource::parse(input, Resource::Cpu).map(|trigger| Arc::new(trigger) as Arc<dyn Trigger>),
    ..MEMORY
};

/// The trigger type `memory`.
pub static MEMORY: TriggerType = TriggerType {
    name: "memory",
    scaler_name: "cpuMemoryScaler",
    parameters: Declared::TABLE,
    cached_metrics: false,
    parse: |input| PodResource::parse(input, Resource::Memory).map(|trigger| Arc::new(trigger) as Arc<dyn Trigger>),
    inspect: parameters::inspect::<Declared>,
};

#[derive(Clone, Debug, Parameters)]
#[parameters(check = Declared::check)]
struct Declared {
    /// Target per pod. With the trigger's `metricType: Utilization` per cent of what the pods request, such as `60`; with
    /// `AverageValue` an amount, such as `500m` or `128Mi`.
    #[param(from = "metadata")]
    value: String,
    /// Only the containers of this name count. Without it whole pods do.
    #[param(from = "metadata")]
    container_name: Option<String>,
    /// Kind of the target, of old.
    #[param(
        name = "type",
        from = "metadata",
        removed = "The 'type' setting is DEPRECATED and is removed in v2.18 - Use 'metricType' instead."
    )]
    kind: Option<String>,
}

impl Declared {
    fn check(&self, input: &TriggerInput) -> Vec<ParseError> {
        self.target(input).err().into_iter().collect()
    }

    fn target(&self, input: &TriggerInput) -> Result<ResourceTarget, ParseError> {
        let value = &self.value;
        match input.metric_type.as_deref().unwrap_or_default() {
            "Utilization" => match value.parse() {
                Ok(percent) if percent > 0 => Ok(ResourceTarget::Utilization(percent)),
                _ => Err(ParseError::new(
                    "value",
                    format!(
                        "parameter \"value\" value \"{value}\" must be a whole number of per cent above 0, such as 60, \
                         with metricType Utilization"
                    ),
                )),
            },
            "AverageValue" => {
                canonical(value).map(|amount| ResourceTarget::AverageValue(amount.into())).ok_or_else(|| {
                    let message = format!(
                        "parameter \"value\" value \"{value}\" must be a quantity above 0, such as 500m or 128Mi, with \
                     metricType AverageValue"
                    );
                    ParseError::new("value", message)
                })
            }
            other => Err(ParseError::new(
                "metricType",
                format!("unknown metric type: {other}, allowed values are 'Utilization' or 'AverageValue'"),
            )),
        }
    }
}

/// A parsed trigger.
#[derive(Debug)]
struct PodResource {
    metrics: [MetricSpec; 1],
    notes: Box<[String]>,
}

impl PodResource {
    fn parse(input: &TriggerInput, resource: Resource) -> Result<Self, ParseErrors> {
        let declared = <Declared as Parameters>::parse(input)?;
        let target = declared.target(input)?;
        let container = declared.container_name.map(Into::into);
        Ok(Self { metrics: [MetricSpec::Resource { resource, container, target }], notes: Declared::notes(input) })
    }
}

impl Trigger for PodResource {
    fn metrics(&self) -> &[MetricSpec] {
        &self.metrics
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn connect<'a>(&'a self, _: &'a Door) -> BoxFuture<'a, Result<Arc<dyn Connection>, SourceError>> {
        let message = "there is nothing to read: what pods use is read by the HorizontalPodAutoscaler itself";
        async move { Err(SourceError::new(ErrorKind::Configuration, message)) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::trigger_input;

    fn parse(metric_type: &str, metadata: &[(&str, &str)]) -> Result<PodResource, ParseErrors> {
        let mut input = trigger_input("cpu", metadata, &[]);
        input.metric_type = Some(metric_type.to_owned()).filter(|text| !text.is_empty());
        PodResource::parse(&input, Resource::Cpu)
    }

    fn target(metric_type: &str, value: &str) -> Result<ResourceTarget, String> {
        let parsed = parse(metric_type, &[("value", value)]).map_err(|errors| errors.to_string())?;
        match parsed.metrics {
            [MetricSpec::Resource { resource: Resource::Cpu, container: None, target }] => Ok(target),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_metric_type_tells_what_the_value_means() {
        assert_eq!(target("Utilization", "60"), Ok(ResourceTarget::Utilization(60)));
        assert_eq!(target("AverageValue", "60"), Ok(ResourceTarget::AverageValue("60".into())));
        assert_eq!(target("AverageValue", "0.25"), Ok(ResourceTarget::AverageValue("250m".into())));
        assert_eq!(target("AverageValue", "1024Mi"), Ok(ResourceTarget::AverageValue("1Gi".into())));
    }

    #[test]
    fn a_value_that_no_hpa_could_have_is_refused() {
        for value in ["60%", "60.5", "", "0", "-5", "3000000000", "1k"] {
            assert!(target("Utilization", value).is_err(), "{value}");
        }
        for value in ["60%", "abc", "0", "-5Mi", "1.2.3"] {
            let message = target("AverageValue", value).unwrap_err();
            assert!(message.contains("must be a quantity above 0"), "{value}: {message}");
        }
    }

    #[test]
    fn without_a_metric_type_of_its_own_the_trigger_is_refused() {
        for metric_type in ["", "Value", "utilization"] {
            let message =
                format!("unknown metric type: {metric_type}, allowed values are 'Utilization' or 'AverageValue'");
            assert_eq!(target(metric_type, "60"), Err(message));
        }
    }

    #[test]
    fn the_old_type_setting_is_refused_with_what_to_do() {
        let errors = parse("Utilization", &[("type", "Utilization"), ("value", "60")]).unwrap_err().to_string();
        let expected =
            "scaler cpu info: The 'type' setting is DEPRECATED and is removed in v2.18 - Use 'metricType' instead.";
        assert_eq!(errors, expected);
    }

    #[test]
    fn a_container_may_be_chosen() {
        let trigger = parse("Utilization", &[("value", "60"), ("containerName", "web")]).unwrap();
        assert_eq!(trigger.metrics[0].source(), "ContainerResource");
        assert_eq!(trigger.metrics[0].external_name(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_nothing_to_connect_to() {
        let trigger = parse("Utilization", &[("value", "60")]).unwrap();
        let error = trigger.connect(&crate::tests::no_network()).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Configuration);
    }
}
