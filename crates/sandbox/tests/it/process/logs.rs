//! Logs of process pods through the API.

use futures::AsyncBufReadExt;
use futures::TryStreamExt;
use kube::api::LogParams;

use super::*;

#[tokio::test]
async fn the_log_of_the_run_before_is_there_and_ends_before_the_present_one() {
    let machine = Machine::new("log-previous");
    machine.create(shell("if [ -e ran ]; then echo second; exec sleep 1000; fi; echo > ran; echo first; exit 1")).await;
    let restarted = |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        statuses.is_some_and(|all| all[0].restart_count == 1) && is_ready(pod)
    };
    machine.until(restarted).await;
    eventually("the second run has written", || machine.log().ends_with("second\n")).await;
    let log = async |previous| machine.pods().logs("pod", &LogParams { previous, ..Default::default() }).await.unwrap();
    assert_eq!((log(true).await, log(false).await), ("first\n".to_owned(), "second\n".to_owned()));
    machine.finish().await;
}

#[tokio::test]
async fn a_log_can_be_followed_until_the_container_ends() {
    let machine = Machine::new("log-follow");
    let mut spec = shell("echo one; while [ ! -e go ]; do sleep 0.05; done; echo two; printf three");
    spec["restartPolicy"] = "Never".into();
    machine.create(spec).await;
    machine.until(is_ready).await;
    let follow = LogParams { follow: true, timestamps: true, ..Default::default() };
    let mut lines = machine.pods().log_stream("pod", &follow).await.unwrap().lines();
    let text = |line: Option<String>| line.map(|line| line.split_once(' ').unwrap().1.to_owned());
    assert_eq!(text(lines.try_next().await.unwrap()).as_deref(), Some("one"));
    std::fs::write(machine.file("go"), "").unwrap();
    let rest = tokio::time::timeout(PATIENCE, lines.try_collect::<Vec<_>>()).await.unwrap().unwrap();
    assert_eq!(rest.into_iter().map(|line| text(Some(line)).unwrap()).collect::<Vec<_>>(), ["two", "three"]);
    machine.finish().await;
}
