//! What holds for a real API server holds for the sandbox: each fact is tested on both.

mod apply;
mod custom;
mod kinds;
mod objects;
mod watches;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use tidemark_testkit::ControlPlane;
use tokio::sync::OnceCell;

use super::*;

/// One control plane for all tests. Never dropped: its processes end with the test binary.
static CONTROL_PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

async fn create_namespace(client: &Client, name: &str) {
    let namespace: Namespace = read(json!({"metadata": {"name": name}}));
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

async fn on_sandbox(namespace: &str) -> Client {
    let client = Client::new(sandbox(Options::default()).service(), namespace);
    create_namespace(&client, namespace).await;
    client
}

async fn on_control_plane(namespace: &str) -> Option<Client> {
    // A skip is not kept: each test says for itself that it was skipped.
    let start = async || ControlPlane::start_or_skip(tidemark_testkit::Options::default()).await.ok_or(());
    let plane = CONTROL_PLANE.get_or_try_init(start).await.ok()?;
    let mut config = plane.config().await.unwrap();
    config.default_namespace = namespace.to_owned();
    let client = Client::try_from(config).unwrap();
    create_namespace(&client, namespace).await;
    Some(client)
}

/// A namespace's name from a test's.
fn label(test: &str) -> String {
    test.replace('_', "-").chars().take(60).collect::<String>().trim_end_matches('-').to_owned()
}

/// The answer to a server-side apply.
async fn apply(client: &Client, path: &str, manager: &str, body: &Value) -> Result<Value, kube::Error> {
    let sign = if path.contains('?') { '&' } else { '?' };
    let request = Request::patch(format!("{path}{sign}fieldManager={manager}"));
    let request = request.header("Content-Type", "application/apply-patch+yaml");
    client.request(request.body(body.to_string().into_bytes()).unwrap()).await
}

/// The owners of an object by operation and name, and what they own.
fn owners(object: &Value) -> BTreeMap<String, Value> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let entry = |entry: &Value| {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        (
            format!("{} {} {}", text("operation"), text("manager"), text("subresource")).trim().to_owned(),
            entry["fieldsV1"].clone(),
        )
    };
    entries.map(entry).collect()
}

/// The path of a namespace's objects.
fn path(client: &Client, group_version: &str, rest: &str) -> String {
    format!("/{group_version}/namespaces/{}/{rest}", client.default_namespace())
}

macro_rules! facts {
    ($($module:ident: $($fact:ident),+;)+) => {
        mod on_sandbox { $($(
            #[tokio::test(start_paused = true)]
            async fn $fact() {
                super::$module::$fact(super::on_sandbox(&super::label(stringify!($fact))).await).await;
            }
        )+)+ }

        mod control_plane { $($(
            #[tokio::test]
            async fn $fact() {
                if let Some(client) = super::on_control_plane(&super::label(stringify!($fact))).await {
                    super::$module::$fact(client).await;
                }
            }
        )+)+ }
    };
}

facts! {
    apply:
        an_apply_owns_what_it_names_and_takes_away_what_it_no_longer_names,
        an_update_owns_what_it_changes,
        an_update_that_changes_nothing_keeps_the_version,
        an_apply_that_changes_what_others_own_conflicts_unless_it_is_forced,
        what_two_appliers_name_stays_until_neither_does,
        an_apply_that_cannot_be_meant_is_refused,
        an_applied_custom_resource_keeps_the_items_of_others,
        the_status_is_applied_apart,
        owners_can_be_reset_and_what_had_none_belonged_to_somebody,
        a_rehearsed_apply_changes_nothing,
        kubectl_applies_on_the_server_what_it_applied_itself_before;
    kinds:
        a_wrong_type_is_refused_with_its_place,
        quantities_are_kept_in_one_way_of_writing,
        lists_of_a_service_and_of_a_pod_merge_by_their_keys,
        an_autoscaler_is_seen_through_both_versions,
        a_revision_keeps_its_data,
        a_job_gets_its_selector;
    objects:
        names_are_unique_generated_and_checked,
        an_update_with_an_old_version_conflicts,
        the_generation_grows_with_the_spec_and_the_status_is_apart,
        every_patch_does_what_its_type_says,
        the_scale_of_a_deployment_is_read_and_written,
        a_finalizer_holds_an_object_until_it_is_taken_away,
        a_deletion_has_conditions_and_can_be_rehearsed,
        a_collection_is_deleted_by_selector,
        an_autoscaler_is_completed_and_checked_as_on_a_real_server,
        unknown_fields_warn_or_are_refused,
        a_rehearsed_write_changes_nothing,
        an_event_is_seen_through_both_groups,
        a_strategic_patch_without_a_merge_key_is_refused,
        options_that_cannot_be_are_refused,
        what_no_object_may_look_like_is_refused;
    custom:
        what_the_schema_forbids_is_refused_with_its_place,
        unknown_fields_are_pruned_and_the_status_is_apart,
        an_update_of_a_custom_resource_needs_a_version,
        the_finalizer_of_existing_operators_is_accepted,
        a_custom_scale_follows_the_paths_of_its_definition,
        a_null_stands_for_an_absent_field,
        a_definition_that_would_not_be_obeyed_is_refused,
        the_most_stable_version_is_preferred,
        validation_rules_are_evaluated,
        a_transition_rule_compares_with_the_state_before,
        a_rule_compares_quantities,
        a_rule_that_makes_no_sense_is_refused_with_its_definition;
    watches:
        a_watch_goes_on_from_a_version_and_ends_in_time,
        a_selector_turns_changes_into_arrivals_and_departures,
        a_streaming_list_says_when_it_is_complete,
        metadata_alone_can_be_watched;
}
