//! `kubernetes-workload`: the number of pods that match a selector, or of the nodes that they run on.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tidemark_trigger::metric::{external_name, metric_type, target_milli};
use tidemark_trigger::{
    Connection, Door, MetricSpec, Parameters, ParseError, ParseErrors, Reading, SourceError, Trigger, TriggerInput,
    TriggerType, parameters,
};

use super::selector;

/// The trigger type `kubernetes-workload`.
pub static TYPE: TriggerType = TriggerType {
    name: "kubernetes-workload",
    scaler_name: "kubernetesWorkloadScaler",
    parameters: Declared::TABLE,
    cached_metrics: true,
    parse: |input| Workload::parse(input).map(|trigger| Arc::new(trigger) as Arc<dyn Trigger>),
    inspect: parameters::inspect::<Declared>,
};

#[derive(Clone, Debug, Parameters)]
#[parameters(check = Declared::check)]
struct Declared {
    /// Label selector of the pods that count, such as `app=backend, tier notin (batch, test)`. They are looked for in the
    /// namespace of the object that has the trigger. Pods that have succeeded or failed do not count.
    #[param(from = "metadata")]
    pod_selector: String,
    /// Target of the number of pods, or of nodes. Above 0, but for a trigger that only feeds a formula.
    #[param(from = "metadata", default = 0)]
    value: f64,
    /// The trigger is active when the number is above this.
    #[param(from = "metadata", default = 0)]
    activation_value: f64,
    /// Count the nodes that the pods run on.
    #[param(from = "metadata", default = false)]
    group_by_node: bool,
}

impl Declared {
    fn check(&self, input: &TriggerInput) -> Vec<ParseError> {
        let mut errors = Vec::new();
        if let Err(cause) = selector::check(&self.pod_selector) {
            errors.push(ParseError::new("podSelector", format!("error parsing pod selector: {cause}")));
        }
        if !input.as_metric_source && target_milli(self.value) == 0 {
            let message = if self.value > 0.0 {
                format!("parameter \"value\" value \"{}\" must be at least 0.001", self.value)
            } else {
                "value must be a float greater than 0".to_owned()
            };
            errors.push(ParseError::new("value", message));
        }
        errors.extend(metric_type(input).err());
        errors
    }
}

/// A parsed trigger.
#[derive(Debug)]
struct Workload {
    metrics: [MetricSpec; 1],
    notes: Box<[String]>,
    counted: Arc<Counted>,
}

impl Workload {
    fn parse(input: &TriggerInput) -> Result<Self, ParseErrors> {
        let declared = <Declared as Parameters>::parse(input)?;
        let name = external_name(input.index, &format!("workload-{}", input.namespace));
        let (metric_type, target_milli) = (metric_type(input)?, target_milli(declared.value));
        let counted = Counted {
            namespace: input.namespace.as_str().into(),
            selector: declared.pod_selector.into(),
            by_node: declared.group_by_node,
            activation: declared.activation_value,
        };
        Ok(Self {
            metrics: [MetricSpec::External { name, metric_type, target_milli }],
            notes: Declared::notes(input),
            counted: Arc::new(counted),
        })
    }
}

impl Trigger for Workload {
    fn metrics(&self) -> &[MetricSpec] {
        &self.metrics
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn connect<'a>(&'a self, _: &'a Door) -> BoxFuture<'a, Result<Arc<dyn Connection>, SourceError>> {
        let counted: Arc<dyn Connection> = self.counted.clone();
        async move { Ok(counted) }.boxed()
    }
}

/// What is counted.
#[derive(Debug)]
struct Counted {
    namespace: Box<str>,
    selector: Box<str>,
    by_node: bool,
    activation: f64,
}

impl Counted {
    async fn count(&self, door: &Door) -> Result<usize, SourceError> {
        let cluster = door.cluster()?;
        if self.by_node {
            return Ok(cluster.nodes_of_live_pods(&self.namespace, &self.selector).await?.len());
        }
        cluster.live_pods(&self.namespace, &self.selector).await
    }
}

impl Connection for Counted {
    fn read<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Vec<Reading>, SourceError>> {
        async move {
            let value = self.count(door).await? as f64;
            Ok(vec![Reading { value, active: value > self.activation }])
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use tidemark_trigger::ErrorKind;
    use tidemark_trigger::door::{Cluster, ServiceEndpoint};

    use super::*;
    use crate::tests::{no_network, trigger_input};

    /// A cluster with pods on these nodes, and what it was asked.
    struct Nodes(&'static [&'static str], Mutex<Vec<String>>);

    impl Nodes {
        fn ask(&self, namespace: &str, selector: &str) {
            self.1.lock().unwrap().push(format!("{namespace}: {selector}"));
        }
    }

    impl Cluster for Nodes {
        fn live_pods<'a>(&'a self, namespace: &'a str, selector: &'a str) -> BoxFuture<'a, Result<usize, SourceError>> {
            self.ask(namespace, selector);
            async move { Ok(self.0.len()) }.boxed()
        }

        fn nodes_of_live_pods<'a>(
            &'a self,
            namespace: &'a str,
            selector: &'a str,
        ) -> BoxFuture<'a, Result<BTreeSet<Box<str>>, SourceError>> {
            self.ask(namespace, selector);
            async move { Ok(self.0.iter().map(|node| Box::from(*node)).collect()) }.boxed()
        }

        fn service_endpoints<'a>(
            &'a self,
            _: &'a str,
            _: &'a str,
        ) -> BoxFuture<'a, Result<Vec<ServiceEndpoint>, SourceError>> {
            unreachable!("only pods are asked for")
        }
    }

    fn parse(metadata: &[(&str, &str)]) -> Result<Workload, ParseErrors> {
        Workload::parse(&trigger_input("kubernetes-workload", metadata, &[]))
    }

    async fn read(metadata: &[(&str, &str)], nodes: &'static [&'static str]) -> Reading {
        let metadata = [&[("podSelector", "app = web"), ("value", "2")], metadata].concat();
        let cluster = Arc::new(Nodes(nodes, Mutex::default()));
        let door = no_network().with_cluster(cluster.clone());
        let readings = parse(&metadata).unwrap().connect(&door).await.unwrap().read(&door).await.unwrap();
        assert_eq!(*cluster.1.lock().unwrap(), ["default: app = web"]);
        readings[0]
    }

    #[tokio::test(start_paused = true)]
    async fn pods_count_wherever_they_run_and_nodes_once() {
        let nodes = &["a", "b", "a"];
        assert_eq!(read(&[], nodes).await.value, 3.0);
        assert_eq!(read(&[("groupByNode", "true")], nodes).await.value, 2.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trigger_is_active_above_the_activation_value_only() {
        let active = async |threshold, nodes| read(&[("activationValue", threshold)], nodes).await.active;
        assert!(active("1", &["a", "a"]).await);
        assert!(!active("2", &["a", "a"]).await);
        assert!(!active("0", &[]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_no_cluster_the_error_says_so() {
        let trigger = parse(&[("podSelector", "a"), ("value", "1")]).unwrap();
        let connection = trigger.connect(&no_network()).await.unwrap();
        let error = connection.read(&no_network()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Configuration);
    }

    #[test]
    fn all_that_is_wrong_is_named() {
        let errors = |metadata: &[(&str, &str)]| parse(metadata).unwrap_err().to_string();
        assert_eq!(
            errors(&[("podSelector", "a b")]),
            "error parsing pod selector: unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt\n\
             value must be a float greater than 0"
        );
        assert_eq!(errors(&[("podSelector", "a"), ("value", "-1")]), "value must be a float greater than 0");
        let small = "parameter \"value\" value \"0.0001\" must be at least 0.001";
        assert_eq!(errors(&[("podSelector", "a"), ("value", "0.0001")]), small);
        assert_eq!(
            errors(&[("value", "1"), ("podSelecter", "a")]),
            "missing required parameter \"podSelector\" in [triggerMetadata] (the metadata has podSelecter, did you mean \
             podSelector?)"
        );
    }

    #[test]
    fn in_a_formula_it_needs_no_target() {
        let mut input = trigger_input("kubernetes-workload", &[("podSelector", "a")], &[]);
        input.as_metric_source = true;
        assert!(Workload::parse(&input).is_ok());
    }

    #[test]
    fn a_namespace_of_its_own_has_no_effect_and_is_noted() {
        let trigger = parse(&[("podSelector", "a"), ("value", "1"), ("namespace", "other")]).unwrap();
        assert_eq!(trigger.notes(), ["unknown parameter namespace"]);
        assert_eq!(&**trigger.metrics[0].external_name().unwrap(), "s0-workload-default");
    }
}
