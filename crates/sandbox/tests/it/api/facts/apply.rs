//! Server-side apply, and who owns which field.

use super::super::custom::gadgets;
use super::*;

fn web(change: impl FnOnce(&mut Value)) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"team": "a"}},
        "spec": {
            "replicas": 2, "paused": true, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "nginx:1", "ports": [{"containerPort": 80}]}]},
            },
        },
    });
    change(&mut object);
    object
}

fn named(change: impl FnOnce(&mut Value)) -> Value {
    let mut fields = json!({
        "f:metadata": {"f:labels": {"f:team": {}}},
        "f:spec": {
            "f:paused": {}, "f:replicas": {}, "f:selector": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"main\"}": {
                    ".": {}, "f:image": {}, "f:name": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                }}},
            },
        },
    });
    change(&mut fields);
    fields
}

fn deployment_path(client: &Client) -> String {
    path(client, "apis/apps/v1", "deployments/web")
}

async fn merge(client: &Client, path: &str, manager: &str, body: Value) -> Value {
    let request = Request::patch(format!("{path}?fieldManager={manager}"));
    let request = request.header("Content-Type", "application/merge-patch+json");
    client.request(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
}

pub async fn an_apply_owns_what_it_names_and_takes_away_what_it_no_longer_names(client: Client) {
    let path = deployment_path(&client);
    let made = apply(&client, &path, "one", &web(|_| ())).await.unwrap();
    assert_eq!(owners(&made)["Apply one"], named(|_| ()));
    assert_eq!(made["spec"]["revisionHistoryLimit"], 10, "completed as any other");
    let more = web(|web| web["spec"]["minReadySeconds"] = json!(1));
    let more = apply(&client, &path, "one", &more).await.unwrap();
    assert_eq!((&more["spec"]["minReadySeconds"], &more["metadata"]["generation"]), (&json!(1), &json!(2)));
    let less = web(|web| {
        web["metadata"]["labels"] = json!({"size": "s"});
        web["spec"]["replicas"].take();
        web["spec"]["template"]["spec"]["containers"] = json!([{"name": "other", "image": "nginx:2"}]);
    });
    let mut less = less;
    less["spec"].as_object_mut().unwrap().remove("replicas");
    let less = apply(&client, &path, "one", &less).await.unwrap();
    assert_eq!(less["metadata"]["labels"], json!({"size": "s"}));
    assert!(less["spec"]["minReadySeconds"].is_null());
    assert_eq!(less["spec"]["replicas"], 1, "filled in anew");
    let containers = less["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!((containers.len(), &containers[0]["name"]), (1, &json!("other")));
}

pub async fn an_update_owns_what_it_changes(client: Client) {
    let path = deployment_path(&client);
    let collection = path.trim_end_matches("/web").to_owned();
    let made = send(&client, "POST", &format!("{collection}?fieldManager=maker"), web(|_| ())).await.unwrap();
    let wanted = json!({
        "f:metadata": {"f:labels": {".": {}, "f:team": {}}},
        "f:spec": {
            "f:paused": {}, "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:containers": {"k:{\"name\":\"main\"}": {
                        ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:ports": {
                            ".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}},
                        },
                        "f:resources": {}, "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {},
                    }},
                    "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {},
                    "f:terminationGracePeriodSeconds": {},
                },
            },
        },
    });
    assert_eq!(owners(&made)["Update maker"], wanted);
    let changed =
        merge(&client, &path, "other", json!({"spec": {"replicas": 3, "progressDeadlineSeconds": null}})).await;
    let owners = owners(&changed);
    assert_eq!(owners["Update other"], json!({"f:spec": {"f:replicas": {}}}));
    assert!(owners["Update maker"]["f:spec"].get("f:replicas").is_none());
    assert!(owners["Update maker"]["f:spec"].get("f:progressDeadlineSeconds").is_some(), "the default came back");
    let list = path_of_config_maps(&client);
    let map = json!({"metadata": {"name": "c"}, "data": {"a": "b"}});
    let made = send(&client, "POST", &format!("{list}?fieldManager=maker"), map).await.unwrap();
    assert_eq!(super::owners(&made)["Update maker"], json!({"f:data": {".": {}, "f:a": {}}}));
}

pub async fn an_update_that_changes_nothing_keeps_the_version(client: Client) {
    let list = path_of_config_maps(&client);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": {"a": "b"}}, "data": {"a": "b"}});
    let made = send(&client, "POST", &list, map.clone()).await.unwrap();
    let same = send(&client, "PUT", &format!("{list}/c"), map.clone()).await.unwrap();
    assert_eq!(same["metadata"], made["metadata"]);
    let by_another = send(&client, "PUT", &format!("{list}/c?fieldManager=other"), map).await.unwrap();
    assert_eq!(by_another["metadata"], made["metadata"]);
}

fn path_of_config_maps(client: &Client) -> String {
    path(client, "api/v1", "configmaps")
}

pub async fn an_apply_that_changes_what_others_own_conflicts_unless_it_is_forced(client: Client) {
    let path = deployment_path(&client);
    let collection = path.trim_end_matches("/web").to_owned();
    send(&client, "POST", &format!("{collection}?fieldManager=maker"), web(|_| ())).await.unwrap();
    let shared = apply(&client, &path, "one", &web(|_| ())).await.unwrap();
    assert!(owners(&shared).contains_key("Apply one"), "what is the same can be owned by several");
    let scale = json!({"spec": {"replicas": 5}});
    merge(&client, &format!("{path}/scale"), "scaler", scale).await;
    let other = web(|web| web["spec"]["template"]["spec"]["containers"][0]["image"] = json!("nginx:2"));
    let status = refused(apply(&client, &path, "one", &other).await);
    assert_eq!((status.code, &*status.reason), (409, "Conflict"));
    assert_eq!(
        status.message,
        "Apply failed with 2 conflicts: conflicts with \"maker\" using apps/v1:\n\
         - .spec.template.spec.containers[name=\"main\"].image\n\
         conflicts with \"scaler\" with subresource \"scale\" using apps/v1:\n- .spec.replicas"
    );
    let causes = status.details.unwrap().causes;
    assert_eq!(causes.len(), 2);
    assert!(causes.iter().any(|cause| cause.reason == "FieldManagerConflict" && cause.field == ".spec.replicas"));
    let forced = apply(&client, &format!("{path}?force=true"), "one", &other).await.unwrap();
    assert_eq!(forced["spec"]["replicas"], 2);
    let owners = owners(&forced);
    assert!(!owners.contains_key("Update scaler scale"), "{owners:?}");
    let left = &owners["Update maker"]["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"main\"}"];
    assert!(left.get("f:image").is_none() && left.get("f:imagePullPolicy").is_some());
    let one =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 9}});
    let status = refused(apply(&client, &path, "two", &one).await);
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
}

pub async fn what_two_appliers_name_stays_until_neither_does(client: Client) {
    let path = deployment_path(&client);
    apply(&client, &path, "one", &web(|_| ())).await.unwrap();
    apply(&client, &path, "two", &web(|_| ())).await.unwrap();
    let bare = web(|web| drop(web["metadata"].as_object_mut().unwrap().remove("labels")));
    let after = apply(&client, &path, "one", &bare).await.unwrap();
    assert_eq!(after["metadata"]["labels"], json!({"team": "a"}));
    let after = apply(&client, &path, "two", &bare).await.unwrap();
    assert!(after["metadata"].get("labels").is_none(), "{after}");
    let again = apply(&client, &path, "two", &bare).await.unwrap();
    // A controller may write the status in between.
    assert_eq!(again["metadata"]["generation"], after["metadata"]["generation"], "nothing changed");
}

pub async fn an_apply_that_cannot_be_meant_is_refused(client: Client) {
    let path = deployment_path(&client);
    let start = "failed to create typed patch object (/web; apps/v1, Kind=Deployment): ";
    let twice = json!([{"name": "a", "image": "x"}, {"name": "a", "image": "y"}]);
    let cases: [(Value, u16, String); 4] = [
        (web(|web| web["spec"]["bogus"] = json!(1)), 500, format!("{start}.spec.bogus: field not declared in schema")),
        (
            web(|web| web["spec"]["replicas"] = json!("1")),
            500,
            format!("{start}.spec.replicas: expected numeric (int or float), got string"),
        ),
        (
            web(|web| web["spec"]["template"]["spec"]["containers"] = twice),
            500,
            format!("{start}.spec.template.spec.containers: duplicate entries for key [name=\"a\"]"),
        ),
        (web(|web| web["metadata"]["managedFields"] = json!([])), 400, "metadata.managedFields must be nil".to_owned()),
    ];
    for (body, code, message) in cases {
        let status = refused(apply(&client, &path, "one", &body).await);
        assert_eq!((status.code, status.message), (code, message));
    }
    let request = Request::patch(&path).header("Content-Type", "application/apply-patch+yaml");
    let nobody = client.request::<Value>(request.body(web(|_| ()).to_string().into_bytes()).unwrap()).await;
    let status = refused(nobody);
    assert_eq!(status.code, 422);
    assert_eq!(
        status.message,
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let invalid = web(|web| web["spec"]["replicas"] = json!(-1));
    assert_eq!(refused(apply(&client, &path, "one", &invalid).await).code, 422);
    let yaml =
        Request::patch(format!("{path}?fieldManager=one")).header("Content-Type", "application/apply-patch+yaml");
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  \
                template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n      - {name: a, image: x}\n";
    let made: Value = client.request(yaml.body(text.as_bytes().to_vec()).unwrap()).await.unwrap();
    assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["image"], "x", "YAML is taken as it is");
}

pub async fn an_applied_custom_resource_keeps_the_items_of_others(client: Client) {
    let (mut definition, group) = (
        gadgets(json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
                "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "port": {"type": "integer"}},
            }},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "args": {"type": "array", "items": {"type": "string"}},
            "mode": {"type": "string", "default": "fast"},
            "pair": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        }}}})),
        "applied.example.com",
    );
    definition["metadata"]["name"] = json!(format!("gadgets.{group}"));
    definition["spec"]["group"] = json!(group);
    super::custom::define(&client, &read(definition)).await;
    let path = path(&client, &format!("apis/{group}/v1"), "gadgets/g");
    let of = |spec: Value| json!({"apiVersion": format!("{group}/v1"), "kind": "Gadget", "metadata": {"name": "g"}, "spec": spec});
    let first =
        of(json!({"ports": [{"name": "b", "port": 2}, {"name": "a", "port": 1}], "tags": ["x"], "args": ["1", "2"],
        "pair": {"k": "v"}}));
    let made = apply(&client, &path, "one", &first).await.unwrap();
    assert_eq!(made["spec"]["mode"], "fast");
    assert_eq!(
        owners(&made)["Apply one"],
        json!({"f:spec": {
            "f:args": {}, "f:pair": {},
            "f:ports": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:port": {}}, "k:{\"name\":\"b\"}": {".": {}, "f:name": {}, "f:port": {}}},
            "f:tags": {"v:\"x\"": {}},
        }})
    );
    let second = of(json!({"ports": [{"name": "c", "port": 3}, {"name": "a", "port": 1}], "tags": ["y"]}));
    let both = apply(&client, &path, "two", &second).await.unwrap();
    let names: Vec<_> = both["spec"]["ports"].as_array().unwrap().iter().map(|port| port["name"].clone()).collect();
    assert_eq!(names, ["b", "c", "a"]);
    assert_eq!(both["spec"]["tags"], json!(["x", "y"]));
    let less = of(json!({"tags": ["x"], "args": ["3"], "pair": {"other": "v"}}));
    let after = apply(&client, &path, "one", &less).await.unwrap();
    let names: Vec<_> = after["spec"]["ports"].as_array().unwrap().iter().map(|port| port["name"].clone()).collect();
    assert_eq!(names, ["c", "a"]);
    assert_eq!((&after["spec"]["args"], &after["spec"]["pair"]), (&json!(["3"]), &json!({"other": "v"})));
    assert_eq!(
        refused(apply(&client, &path, "two", &of(json!({"args": ["4"]}))).await).code,
        409,
        "one value as a whole"
    );
}

pub async fn the_status_is_applied_apart(client: Client) {
    let path = deployment_path(&client);
    let made = apply(&client, &path, "one", &web(|web| web["status"] = json!({"replicas": 7}))).await.unwrap();
    assert_ne!(made["status"]["replicas"], 7);
    let status = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 9},
        "status": {"conditions": [{"type": "Odd", "status": "True"}]},
    });
    let after = apply(&client, &format!("{path}/status"), "two", &status).await.unwrap();
    assert_eq!(after["spec"]["replicas"], 2);
    let odd = |object: &Value| {
        object["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == "Odd"))
    };
    assert!(odd(&after), "{after}");
    let owned = &owners(&after)["Apply two status"];
    assert_eq!(
        *owned,
        json!({"f:status": {"f:conditions": {"k:{\"type\":\"Odd\"}": {".": {}, "f:status": {}, "f:type": {}}}}})
    );
    let none = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "status": {}});
    assert!(!odd(&apply(&client, &format!("{path}/status"), "two", &none).await.unwrap()));
}

pub async fn owners_can_be_reset_and_what_had_none_belonged_to_somebody(client: Client) {
    let list = path_of_config_maps(&client);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}});
    send(&client, "POST", &list, map.clone()).await.unwrap();
    let path = format!("{list}/c");
    let reset = merge(&client, &path, "any", json!({"metadata": {"managedFields": [{}]}})).await;
    assert!(reset["metadata"].get("managedFields").is_none(), "{reset}");
    let applied = apply(&client, &path, "one", &map).await.unwrap();
    let owners = owners(&applied);
    assert_eq!(owners["Apply one"], json!({"f:data": {"f:a": {}}}));
    assert_eq!(owners["Update before-first-apply"], json!({"f:data": {".": {}, "f:a": {}}}));
}

pub async fn a_rehearsed_apply_changes_nothing(client: Client) {
    let path = deployment_path(&client);
    let shown = apply(&client, &format!("{path}?dryRun=All"), "one", &web(|_| ())).await.unwrap();
    assert_eq!(shown["spec"]["revisionHistoryLimit"], 10);
    assert!(shown["metadata"].get("resourceVersion").is_none());
    assert_eq!(refused(send(&client, "GET", &path, json!(null)).await).code, 404);
    apply(&client, &path, "one", &web(|_| ())).await.unwrap();
    let other = web(|web| web["spec"]["replicas"] = json!(7));
    let shown = apply(&client, &format!("{path}?dryRun=All"), "one", &other).await.unwrap();
    assert_eq!(shown["spec"]["replicas"], 7);
    assert_eq!(get(&client, &path, "application/json").await["spec"]["replicas"], 2);
}

pub async fn kubectl_applies_on_the_server_what_it_applied_itself_before(client: Client) {
    let list = path_of_config_maps(&client);
    let map = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": value, "b": "1"}});
    let mut noted = map("1");
    noted["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": map("1").to_string()});
    send(&client, "POST", &format!("{list}?fieldManager=kubectl-client-side-apply"), noted).await.unwrap();
    let path = format!("{list}/c");
    assert_eq!(refused(apply(&client, &path, "other", &map("2")).await).code, 409);
    let applied = apply(&client, &path, "kubectl", &map("2")).await.unwrap();
    assert_eq!(applied["data"]["a"], "2");
    merge(&client, &path, "stranger", json!({"data": {"b": "9"}})).await;
    assert_eq!(refused(apply(&client, &path, "kubectl", &map("2")).await).code, 409);
}
