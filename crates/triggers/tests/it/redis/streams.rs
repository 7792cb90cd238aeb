//! Streams.

use super::*;

/// The error or reading of a stream.
async fn stream(server: &Servers, metadata: &[(&str, &str)]) -> Result<Reading, SourceError> {
    let metadata = [&[("address", server.address())], metadata].concat();
    read(&door(), &input("redis-streams", &metadata, &[("password", &server.password)])).await
}

#[tokio::test]
async fn length_pending_entries_and_lag_of_a_stream_are_read() {
    let Some(server) = servers("TIDEMARK_TEST_REDIS") else { return };
    server.run(&["DEL stream:s", "XGROUP CREATE stream:s g $ MKSTREAM"]).await;
    for _ in 0..5 {
        server.run(&["XADD stream:s * field value"]).await;
    }
    server.run(&["XREADGROUP GROUP g consumer COUNT 2 STREAMS stream:s >"]).await;
    let (name, group, lag) = (("stream", "stream:s"), ("consumerGroup", "g"), ("lagCount", "5"));
    assert_eq!(stream(&server, &[name]).await, value(5.0, true));
    assert_eq!(stream(&server, &[name, lag]).await, value(5.0, true));
    assert_eq!(stream(&server, &[name, group]).await, value(2.0, true));
    assert_eq!(stream(&server, &[name, group, lag]).await, value(3.0, true));
    assert_eq!(stream(&server, &[name, group, lag, ("activationLagCount", "3")]).await, value(3.0, false));
    // A group that is not there yet has all of the stream before it.
    assert_eq!(stream(&server, &[name, ("consumerGroup", "later"), lag]).await, value(5.0, true));
}

#[tokio::test]
async fn a_missing_stream_has_no_length_and_no_lag_but_is_missing_for_pending_entries() {
    let Some(server) = servers("TIDEMARK_TEST_REDIS") else { return };
    let (name, group, lag) = (("stream", "stream:absent"), ("consumerGroup", "g"), ("lagCount", "5"));
    assert_eq!(stream(&server, &[name]).await, value(0.0, false));
    assert_eq!(stream(&server, &[name, group, lag]).await, value(0.0, false));
    let error = stream(&server, &[name, group]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::MissingResource, "{error}");
    let asked = "the pending entries of the group `g` of the stream `stream:absent`";
    assert_eq!(error.message, format!("{} has no such stream or group: {asked}", server.address()));
}

#[tokio::test]
async fn a_key_that_is_no_stream_is_refused_whatever_is_measured() {
    let Some(server) = servers("TIDEMARK_TEST_REDIS") else { return };
    server.run(&["SET stream:string hello"]).await;
    let (name, group, lag) = (("stream", "stream:string"), ("consumerGroup", "g"), ("lagCount", "5"));
    for metadata in [&[name][..], &[name, group], &[name, group, lag]] {
        let error = stream(&server, metadata).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{error}");
        assert!(error.message.contains("of the stream `stream:string`") || error.message.contains("length"), "{error}");
    }
}

#[tokio::test]
async fn a_lag_that_the_server_cannot_tell_is_below_zero_as_with_keda() {
    let Some(server) = servers("TIDEMARK_TEST_REDIS") else { return };
    server.run(&["DEL stream:holes", "XGROUP CREATE stream:holes g 0 MKSTREAM"]).await;
    server.run(&["XADD stream:holes 1-1 f v", "XADD stream:holes 2-1 f v", "XADD stream:holes 3-1 f v"]).await;
    server.run(&["XREADGROUP GROUP g consumer COUNT 1 STREAMS stream:holes >", "XDEL stream:holes 2-1"]).await;
    let metadata = [("stream", "stream:holes"), ("consumerGroup", "g"), ("lagCount", "5")];
    assert_eq!(stream(&server, &metadata).await, value(-1.0, false));
}

#[tokio::test]
async fn streams_of_a_cluster_and_of_a_sentinels_master_are_read() {
    let (Some(cluster), Some(sentinel)) =
        (servers("TIDEMARK_TEST_REDIS_CLUSTER"), servers("TIDEMARK_TEST_REDIS_SENTINEL"))
    else {
        return;
    };
    let door = door();
    for key in ["stream:1", "stream:2", "stream:3"] {
        cluster.run_on_its_node(&format!("DEL {key}")).await;
        cluster.run_on_its_node(&format!("XADD {key} * f v")).await;
        let metadata = [("stream", key), ("address", cluster.address()), ("consumerGroup", "g"), ("lagCount", "1")];
        let input = input("redis-cluster-streams", &metadata, &[("password", &cluster.password)]);
        assert_eq!(read(&door, &input).await, value(1.0, true), "{key}");
    }
    let metadata = [("stream", "stream:absent"), ("address", sentinel.address()), ("sentinelMaster", &sentinel.master)];
    let auth = [("password", sentinel.password.as_str()), ("sentinelPassword", &sentinel.password)];
    let input = input("redis-sentinel-streams", &metadata, &auth);
    assert_eq!(read(&door, &input).await, value(0.0, false));
}
