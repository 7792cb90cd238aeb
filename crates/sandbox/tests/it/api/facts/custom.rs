//! Custom resources.

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::wait::{await_condition, conditions};
use tidemark_api::ScaledObject;

use super::super::custom::{
    Change, CustomResourceDefinition, DEFINITIONS, gadget, gadget_schema, gadgets, scaled_object,
};
use super::*;

/// Creates a definition, unless it is there, and waits until it is served.
pub async fn define(client: &Client, definition: &CustomResourceDefinition) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    match api.create(&PostParams::default(), definition).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        other => drop(other.unwrap()),
    }
    let name = definition.metadata.name.as_deref().unwrap();
    let established = await_condition(api, name, conditions::is_crd_established());
    tokio::time::timeout(std::time::Duration::from_secs(60), established).await.unwrap().unwrap();
}

async fn define_ours(client: &Client) {
    for definition in tidemark_api::crds() {
        define(client, &definition).await;
    }
}

pub async fn what_the_schema_forbids_is_refused_with_its_place(client: Client) {
    define_ours(&client).await;
    let objects = path(&client, "apis/keda.sh/v1alpha1", "scaledobjects");
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|object| object["spec"]["triggers"] = json!([])), "spec.triggers"),
        (Box::new(|object| object["spec"]["scaleTargetRef"] = json!({})), "spec.scaleTargetRef.name"),
        (Box::new(|object| object["spec"]["scaleTargetRef"]["name"] = json!("")), "spec.scaleTargetRef.name"),
        (Box::new(|object| object["spec"]["pollingInterval"] = json!(0)), "spec.pollingInterval"),
        (Box::new(|object| object["spec"]["pollingInterval"] = json!("5")), "spec.pollingInterval"),
        (
            Box::new(|object| object["spec"]["triggers"][0]["metadata"]["value"] = json!(5)),
            "spec.triggers[0].metadata.value",
        ),
        (Box::new(|object| object["spec"]["minReplicaCount"] = json!(101)), "spec"),
    ];
    for (change, field) in cases {
        let status = refused(send(&client, "POST", &objects, scaled_object(change)).await);
        assert_eq!(status.code, 422, "{}", status.message);
        assert_eq!(status.details.as_ref().unwrap().causes[0].field, field, "{}", status.message);
        assert!(status.message.starts_with("ScaledObject.keda.sh \"web\" is invalid: "), "{}", status.message);
    }
}

pub async fn unknown_fields_are_pruned_and_the_status_is_apart(client: Client) {
    define_ours(&client).await;
    let objects = path(&client, "apis/keda.sh/v1alpha1", "scaledobjects");
    let sent = scaled_object(|object| {
        object["spec"]["advance"] = json!({"x": 1});
        object["metadata"]["finalizers"] = json!(["finalizer.keda.sh"]);
        object["status"] = json!({"hpaName": "mine"});
    });
    let made = send(&client, "POST", &objects, sent).await.unwrap();
    assert_eq!(made["metadata"]["finalizers"], json!(["finalizer.keda.sh"]), "it needs no domain");
    assert!(made["spec"].get("advance").is_none() && made.get("status").is_none(), "{made}");
    let api: Api<ScaledObject> = Api::default_namespaced(client.clone());
    let status = Patch::Merge(json!({"status": {"hpaName": "keda-hpa-web"}, "spec": {"pollingInterval": 9}}));
    let after = api.patch_status("web", &PatchParams::default(), &status).await.unwrap();
    assert_eq!(after.status.unwrap().hpa_name.as_deref(), Some("keda-hpa-web"));
    assert_eq!((after.spec.polling_interval, after.metadata.generation), (None, Some(1)));
    let spec = Patch::Merge(json!({"status": {"hpaName": "other"}, "spec": {"pollingInterval": 9}}));
    let after = api.patch("web", &PatchParams::default(), &spec).await.unwrap();
    assert_eq!(after.status.unwrap().hpa_name.as_deref(), Some("keda-hpa-web"));
    assert_eq!((after.spec.polling_interval, after.metadata.generation), (Some(9), Some(2)));
}

pub async fn the_finalizer_of_existing_operators_is_accepted(client: Client) {
    define_ours(&client).await;
    let objects = path(&client, "apis/keda.sh/v1alpha1", "scaledobjects");
    send(&client, "POST", &objects, scaled_object(|_| ())).await.unwrap();
    let patch = json!({"metadata": {"finalizers": ["finalizer.keda.sh"]}, "spec": {"pollingInterval": 9}});
    let warning = "299 - \"metadata.finalizers: \\\"finalizer.keda.sh\\\": prefer a domain-qualified finalizer name including \
        a path (/) to avoid accidental conflicts with other finalizer writers\"";
    for expected in [Some(warning), None] {
        let request = Request::patch(format!("{objects}/web")).header("Content-Type", "application/merge-patch+json");
        let response = client.send(request.body(patch.to_string().into_bytes().into()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        let told = response.headers().get("warning").map(|value| value.to_str().unwrap());
        assert_eq!(told, expected, "it is told once, when the finalizer is new");
    }
    let api: Api<ScaledObject> = Api::default_namespaced(client.clone());
    assert_eq!(api.get("web").await.unwrap().metadata.finalizers.unwrap(), ["finalizer.keda.sh"]);
}

pub async fn an_update_of_a_custom_resource_needs_a_version(client: Client) {
    define_ours(&client).await;
    let objects = path(&client, "apis/keda.sh/v1alpha1", "scaledobjects");
    send(&client, "POST", &objects, scaled_object(|_| ())).await.unwrap();
    let blind = refused(send(&client, "PUT", &format!("{objects}/web"), scaled_object(|_| ())).await);
    assert_eq!(blind.code, 422);
    assert!(blind.message.contains("must be specified for an update"), "{}", blind.message);
    let strategic = Patch::Strategic(json!({"spec": {}}));
    let api: Api<ScaledObject> = Api::default_namespaced(client);
    assert_eq!(refused(api.patch("web", &PatchParams::default(), &strategic).await).code, 415);
}

pub async fn a_custom_scale_follows_the_paths_of_its_definition(client: Client) {
    define(&client, &read(gadgets(gadget_schema()))).await;
    let path = path(&client, "apis/example.com/v1", "gadgets");
    send(&client, "POST", &path, gadget(json!({}))).await.unwrap();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Gadget"));
    let api: Api<DynamicObject> = Api::default_namespaced_with(client, &kind);
    let status = json!({"metadata": {"uid": "not looked at"}, "status": {"size": 1, "selector": "app=g"}});
    let status = Patch::Merge(status);
    api.patch_status("g", &PatchParams::default(), &status).await.unwrap();
    assert_eq!(refused(api.get_scale("g").await).code, 500, "there are no replicas to show");
    let first = Patch::Merge(json!({"spec": {"replicas": 2}}));
    api.patch_scale("g", &PatchParams::default(), &first).await.unwrap();
    let scale = api.get_scale("g").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(2));
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=g"));
    let up = Patch::Merge(json!({"spec": {"replicas": 7}}));
    api.patch_scale("g", &PatchParams::default(), &up).await.unwrap();
    let after = api.get("g").await.unwrap();
    assert_eq!((&after.data["spec"]["size"], after.metadata.generation), (&json!(7), Some(3)));
}

pub async fn a_null_stands_for_an_absent_field(client: Client) {
    define_ours(&client).await;
    let objects = path(&client, "apis/keda.sh/v1alpha1", "scaledobjects");
    let sent = scaled_object(|object| {
        object["spec"]["pollingInterval"] = json!(null);
        object["spec"]["fallback"] = json!(null);
        object["spec"]["advanced"] = json!({"restoreToOriginalReplicaCount": null});
    });
    let made = send(&client, "POST", &objects, sent).await.unwrap();
    assert!(made["spec"].get("pollingInterval").is_none() && made["spec"].get("fallback").is_none(), "{made}");
    assert_eq!(made["spec"]["advanced"], json!({}));
    let nameless = scaled_object(|object| object["spec"]["scaleTargetRef"]["name"] = json!(null));
    let status = refused(send(&client, "POST", &objects, nameless).await);
    assert_eq!(status.details.unwrap().causes[0].reason, "FieldValueRequired", "{}", status.message);
}

pub async fn a_definition_that_would_not_be_obeyed_is_refused(client: Client) {
    let bad = |change: &dyn Fn(&mut Value)| {
        let mut definition = gadgets(gadget_schema());
        definition["metadata"]["name"] = json!("widgets.example.com");
        definition["spec"]["names"] = json!({"plural": "widgets", "kind": "Widget"});
        change(&mut definition);
        definition
    };
    let field = |schema: Value| {
        bad(&move |definition| {
            let version = &mut definition["spec"]["versions"][0];
            version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["x"] = schema.clone();
        })
    };
    for definition in [
        field(json!({"type": "string", "$ref": "#/x"})),
        field(json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}})),
        field(json!({"type": "object", "patternProperties": {"a": {"type": "string"}}})),
        field(json!({"properties": {"a": {"type": "string"}}})),
        field(json!({"type": "array"})),
        field(json!({"type": "string", "pattern": "("})),
        field(json!({"type": "string", "default": 5})),
        field(json!({"type": "text"})),
        bad(&|definition| definition["spec"]["group"] = json!("apps")),
        bad(&|definition| {
            definition["metadata"]["name"] = json!("leases.coordination.k8s.io");
            definition["spec"]["group"] = json!("coordination.k8s.io");
            definition["spec"]["names"] = json!({"plural": "leases", "kind": "Lease"});
        }),
        bad(&|definition| {
            definition["spec"]["versions"][0]["subresources"]["scale"]["specReplicasPath"] = json!("spec.size");
        }),
    ] {
        let status = refused(send(&client, "POST", DEFINITIONS, definition.clone()).await);
        assert_eq!(status.code, 422, "{definition}");
    }
}

pub async fn the_most_stable_version_is_preferred(client: Client) {
    let mut definition = gadgets(gadget_schema());
    definition["metadata"]["name"] = json!("tools.many.example.com");
    definition["spec"]["group"] = json!("many.example.com");
    definition["spec"]["names"] = json!({"plural": "tools", "kind": "Tool"});
    let first = definition["spec"]["versions"][0].clone();
    for name in ["v1beta1", "v2", "v1alpha1"] {
        let mut version = first.clone();
        version["name"] = json!(name);
        version["storage"] = json!(false);
        definition["spec"]["versions"].as_array_mut().unwrap().push(version);
    }
    define(&client, &read(definition)).await;
    // A real server learns of a new group a moment later, and of its versions one by one.
    let group = async {
        loop {
            let groups = client.list_api_groups().await.unwrap().groups;
            match groups.into_iter().find(|group| group.name == "many.example.com" && group.versions.len() == 4) {
                Some(group) => return group,
                None => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    };
    let group = tokio::time::timeout(std::time::Duration::from_secs(60), group).await.unwrap();
    let versions: Vec<_> = group.versions.iter().map(|version| version.version.as_str()).collect();
    assert_eq!(versions, ["v2", "v1", "v1beta1", "v1alpha1"]);
}

fn ruled(group: &str, spec: Value) -> CustomResourceDefinition {
    let mut definition = gadgets(json!({"type": "object", "properties": {"spec": spec}}));
    definition["metadata"]["name"] = json!(format!("gadgets.{group}"));
    definition["spec"]["group"] = json!(group);
    read(definition)
}

fn gadget_of(group: &str, spec: Value) -> Value {
    let mut object = gadget(spec);
    object["apiVersion"] = json!(format!("{group}/v1"));
    object
}

pub async fn validation_rules_are_evaluated(client: Client) {
    let group = "ruled.example.com";
    let spec = json!({"type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.min <= self.max", "message": "min above max"},
            {"rule": "!has(self.label) || self.label.size() < 3", "messageExpression": "'label ' + self.label + ' is long'",
             "reason": "FieldValueForbidden", "fieldPath": ".label"},
            {"rule": "!has(self.ports) || self.ports.all(p, self.ports.exists_one(q, q.number == p.number))"},
            {"rule": "!has(self.when) || self.when > timestamp('2026-01-01T00:00:00Z')", "message": "too early"},
            {"rule": "!has(self.share) || (type(self.share) == string ? self.share.matches('^[0-9]+%$') : self.share > 0)",
             "message": "no share"},
            {"rule": "!has(self.tags) || self.tags == ['b', 'a'] || !('a' in self.tags)", "message": "a and b only"},
        ],
        "properties": {
            "min": {"type": "integer", "minimum": 0}, "max": {"type": "integer"},
            "size": {"type": "integer", "x-kubernetes-validations": [{"rule": "self % 2 == 0", "message": "even"}]},
            "label": {"type": "string"}, "when": {"type": "string", "format": "date-time"},
            "share": {"x-kubernetes-int-or-string": true},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "maxItems": 9, "items": {"type": "string", "maxLength": 9}},
            "ports": {"type": "array", "maxItems": 9, "items": {"type": "object", "properties": {"number": {"type": "integer"}}}},
        },
    });
    define(&client, &ruled(group, spec)).await;
    let path = path(&client, &format!("apis/{group}/v1"), "gadgets");
    let ports = |second: i64| json!([{"number": 1}, {"number": second}]);
    let sound = json!({"min": 1, "max": 2, "size": 2, "label": "ab", "ports": ports(2), "when": "2026-02-01T00:00:00Z",
        "share": "5%", "tags": ["a", "b"]});
    let with = |change: Value| {
        let mut spec = sound.clone();
        json_patch_merge(&mut spec, &change);
        gadget_of(group, spec)
    };
    let blocked = "some validation rules were not checked because the object was invalid; correct the existing errors to \
                   complete validation";
    for (change, said) in [
        (json!({"min": 3}), vec!["spec: Invalid value: min above max".to_owned()]),
        (
            json!({"max": null}),
            vec!["spec: Invalid value: \"object\": no such key: max evaluating rule: min above max".to_owned()],
        ),
        (json!({"size": 3}), vec!["spec.size: Invalid value: 3: even".to_owned()]),
        (json!({"label": "long"}), vec!["spec.label: Forbidden: label long is long".to_owned()]),
        (
            json!({"ports": ports(1)}),
            vec![
                "spec: Invalid value: failed rule: !has(self.ports) || self.ports.all(p, self.ports.exists_one(q, \
                  q.number == p.number))"
                    .to_owned(),
            ],
        ),
        (json!({"when": "2025-01-01T00:00:00Z"}), vec!["spec: Invalid value: too early".to_owned()]),
        (json!({"share": "much"}), vec!["spec: Invalid value: no share".to_owned()]),
        (json!({"share": 0}), vec!["spec: Invalid value: no share".to_owned()]),
        (json!({"tags": ["a"]}), vec!["spec: Invalid value: a and b only".to_owned()]),
        (
            json!({"max": "x", "min": 3}),
            vec![
                "spec.max: Invalid value: \"string\": spec.max in body must be of type integer: \"string\"".to_owned(),
                format!("<nil>: Invalid value: null: {blocked}"),
            ],
        ),
    ] {
        let status = refused(send(&client, "POST", &path, with(change.clone())).await);
        let causes = status.details.unwrap().causes;
        let mut told: Vec<_> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let mut said = said;
        told.sort();
        said.sort();
        assert_eq!(told, said, "{change}");
        assert_eq!(status.code, 422);
    }
    send(&client, "POST", &path, with(json!({}))).await.unwrap();
}

/// Puts the fields of a change into an object; a null takes one out.
fn json_patch_merge(value: &mut Value, change: &Value) {
    for (name, part) in change.as_object().unwrap() {
        match part {
            Value::Null => drop(value.as_object_mut().unwrap().remove(name)),
            _ => value[name] = part.clone(),
        }
    }
}

pub async fn a_rule_compares_quantities(client: Client) {
    let group = "measured.example.com";
    let rule = |rule: &str, message: &str| json!({"rule": rule, "message": message});
    let spec = json!({"type": "object", "required": ["amount"], "x-kubernetes-validations": [
        rule("isQuantity(self.amount)", "no quantity"),
        rule("!isQuantity(self.amount) || quantity(self.amount).isGreaterThan(quantity('500m'))", "too small"),
        rule("!isQuantity(self.amount) || quantity(self.amount).isLessThan(quantity('1Gi'))", "too large"),
        rule("!isQuantity(self.amount) || quantity(self.amount).compareTo(quantity('2')) != 0", "two"),
        rule("!isQuantity(self.amount) || quantity(self.amount).asApproximateFloat() != 2.5", "two and a half"),
        rule("sign(quantity('-1')) == -1 && sign(quantity('0')) == 0 && sign(quantity('1n')) == 1", "signs"),
    ], "properties": {"amount": {"type": "string", "maxLength": 20}}});
    define(&client, &ruled(group, spec)).await;
    let path = path(&client, &format!("apis/{group}/v1"), "gadgets");
    for (amount, said) in [
        ("many", "no quantity"),
        ("", "no quantity"),
        ("1 Ki", "no quantity"),
        ("1K", "no quantity"),
        ("-3", "too small"),
        ("0.5", "too small"),
        ("1024Mi", "too large"),
        ("2000m", "two"),
        ("0.002k", "two"),
        ("2500m", "two and a half"),
    ] {
        let status = refused(send(&client, "POST", &path, gadget_of(group, json!({"amount": amount}))).await);
        let causes: Vec<_> = status.details.unwrap().causes.into_iter().map(|cause| cause.message).collect();
        assert_eq!(causes, [format!("Invalid value: {said}")], "{amount}");
    }
    send(&client, "POST", &path, gadget_of(group, json!({"amount": "1e3"}))).await.unwrap();
}

pub async fn a_transition_rule_compares_with_the_state_before(client: Client) {
    let group = "moved.example.com";
    let spec = json!({"type": "object",
        "x-kubernetes-validations": [{"rule": "self.name == oldSelf.name", "message": "the name stays"}],
        "properties": {
            "name": {"type": "string"},
            "old": {"type": "string", "maxLength": 9, "x-kubernetes-validations": [{"rule": "self != 'bad'"}]},
            "sizes": {"type": "array", "maxItems": 9, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                "type": "object", "required": ["k"],
                "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "sizes only grow"}],
                "properties": {"k": {"type": "string", "maxLength": 9}, "v": {"type": "integer"}},
            }},
        },
    });
    let mut definition = ruled(group, spec);
    define(&client, &definition).await;
    let path = path(&client, &format!("apis/{group}/v1"), "gadgets");
    let spec = json!({"name": "a", "sizes": [{"k": "x", "v": 1}, {"k": "y", "v": 5}]});
    send(&client, "POST", &path, gadget_of(group, spec)).await.unwrap();
    let api = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", "Gadget"));
    let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &api);
    let patch = async |spec: Value| api.patch("g", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await;
    let status = refused(patch(json!({"name": "b"})).await);
    assert_eq!(status.message, "Gadget.moved.example.com \"g\" is invalid: spec: Invalid value: the name stays");
    let smaller = json!({"sizes": [{"k": "y", "v": 4}, {"k": "x", "v": 1}]});
    let status = refused(patch(smaller).await);
    assert_eq!(status.details.unwrap().causes[0].field, "spec.sizes[0]");
    patch(json!({"sizes": [{"k": "y", "v": 6}, {"k": "new", "v": 0}], "old": "bad"})).await.unwrap_err();
    patch(json!({"sizes": [{"k": "y", "v": 6}, {"k": "new", "v": 0}]})).await.unwrap();
    // What breaks a rule that came later may stay as it is.
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definition.metadata.resource_version = None;
    let rule = json!({"spec": {"versions": [{
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "name": {"type": "string", "maxLength": 9, "x-kubernetes-validations": [{"rule": "self == 'z'"}]},
            "other": {"type": "string"},
        }}}}},
    }]}});
    definitions.patch(&format!("gadgets.{group}"), &PatchParams::default(), &Patch::Merge(rule)).await.unwrap();
    let mut last = None;
    for _ in 0..200 {
        match patch(json!({"name": "y"})).await {
            Err(kube::Error::Api(status)) if status.message.contains("failed rule: self == 'z'") => {
                last = Some(status);
                break;
            }
            _ => drop(patch(json!({"name": "a"})).await),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(last.expect("the new rule counts").details.as_ref().unwrap().causes[0].field, "spec.name");
    patch(json!({"other": "changed"})).await.unwrap();
}

pub async fn a_rule_that_makes_no_sense_is_refused_with_its_definition(client: Client) {
    let place = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
    let told = |rule: &str| {
        let escaped = rule.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        format!(
            "{{\"Rule\":\"{escaped}\",\"Message\":\"m\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}}"
        )
    };
    for (rule, said) in [
        (
            "self.nope > 1 && foo(self) && bar",
            "compilation failed: ERROR: <input>:1:5: undefined field 'nope'\n | self.nope > 1 && foo(self) && bar\n | ....^\n\
             ERROR: <input>:1:21: undeclared reference to 'foo' (in container '')\n | self.nope > 1 && foo(self) && bar\n | \
             ....................^\n\
             ERROR: <input>:1:31: undeclared reference to 'bar' (in container '')\n | self.nope > 1 && foo(self) && bar\n | \
             ..............................^",
        ),
        ("self.min + 1", "cel expression must evaluate to a bool"),
        (
            "self.label < 5",
            "compilation failed: ERROR: <input>:1:12: found no matching overload for '_<_' applied to '(string, int)'\n | \
             self.label < 5\n | ...........^",
        ),
    ] {
        let spec = json!({"type": "object", "x-kubernetes-validations": [{"rule": rule, "message": "m"}], "properties": {
            "min": {"type": "integer"}, "label": {"type": "string"},
        }});
        let api: Api<CustomResourceDefinition> = Api::all(client.clone());
        let status = refused(api.create(&PostParams::default(), &ruled("senseless.example.com", spec)).await);
        let cause = &status.details.unwrap().causes[0];
        assert_eq!(cause.field, place);
        assert_eq!(cause.message, format!("Invalid value: {}: {said}", told(rule)));
    }
}
