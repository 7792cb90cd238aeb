//! Mutated manifests: the check of lint's fuzz target on a small corpus.

#[path = "../../../../fuzz/src/manifests.rs"]
mod manifests;
#[path = "../../../../fuzz/src/mutation.rs"]
mod mutation;

const CORPUS: [&[u8]; 4] = [
    include_bytes!("../../../../examples/quickstart/worker.yaml"),
    include_bytes!("../../../../examples/rabbitmq/consumer.yaml"),
    b"apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: a}\nspec:\n  scaleTargetRef: {name: a}\n  \
      advanced: {scalingModifiers: {formula: 'q * 2', target: '3'}}\n  triggers:\n  - type: prometheus\n    name: q\n    \
      metadata: {serverAddress: 'http://p', query: up, threshold: '5'}\n",
    b"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: keda.sh/v1alpha1, kind: TriggerAuthentication, metadata: {name: b}, \
      spec: {secretTargetRef: [{parameter: host, name: s, key: k}]}}\n- &x {kind: Secret, apiVersion: v1}\n- *x\n",
];
const PIECES: [&[u8]; 18] = [
    b": ",
    b"\n",
    b"\n---\n",
    b"- ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"'",
    b"\"",
    b"&a ",
    b"*a",
    b"!!binary ",
    b"|\n ",
    b"\t",
    b"# ",
    b"null",
    b"\xe2\x80\xa8",
];

#[test]
fn mutated_manifests_are_checked_or_refused() {
    mutation::each(600, &CORPUS, &PIECES, manifests::check);
}
