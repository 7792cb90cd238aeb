//! The logs of containers. Whoever runs the pods keeps them; here is who asks.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::failure::{Cause, Failure};
use super::query::{flag, signed};

/// Whose output is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's identity: another pod may have had the name.
    pub uid: String,
    /// The container's name.
    pub container: String,
    /// The run before the present or latest one.
    pub previous: bool,
    /// The stream goes on with what is written later, until the run ends.
    pub follow: bool,
}

/// A line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub time: Timestamp,
    /// The text with its line end, which the last line of a run may lack.
    pub text: Bytes,
}

/// Keeps the output of containers.
pub trait ContainerLogs: Send + Sync {
    /// The lines of a run from the first that is kept; `None` when there is no such run. Without
    /// [`LogRequest::follow`] the stream ends at the present end of the log.
    fn open(&self, request: &LogRequest) -> Option<BoxStream<'static, LogLine>>;
}

/// What of a log is wanted.
#[derive(Debug, Default)]
struct Wanted {
    container: String,
    follow: bool,
    previous: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    tail: Option<u64>,
    limit: Option<u64>,
}

impl Wanted {
    fn parse(query: &str, now: Timestamp) -> Result<Self, Failure> {
        let mut wanted = Self::default();
        let (mut causes, mut since) = (Vec::new(), 0);
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "container" => wanted.container = value.into_owned(),
                "follow" => wanted.follow = flag(&value),
                "previous" => wanted.previous = flag(&value),
                "timestamps" => wanted.timestamps = flag(&value),
                "sinceSeconds" => {
                    let seconds = signed(&key, &value)?;
                    since += 1;
                    if seconds < 1 {
                        causes.push(Cause::invalid("sinceSeconds", &seconds.into(), "must be greater than 0"));
                    }
                    wanted.since = now.checked_sub(SignedDuration::from_secs(seconds)).ok();
                }
                "sinceTime" => {
                    since += 1;
                    let time =
                        value.parse().map_err(|_| Failure::bad_request(format!("sinceTime: {value:?} is no time")));
                    wanted.since = Some(time?);
                }
                "tailLines" => {
                    let lines = signed(&key, &value)?;
                    if lines < 0 {
                        causes.push(Cause::invalid("tailLines", &lines.into(), "must be greater than or equal to 0"));
                    }
                    wanted.tail = u64::try_from(lines).ok();
                }
                "limitBytes" => {
                    let bytes = signed(&key, &value)?;
                    if bytes < 1 {
                        causes.push(Cause::invalid("limitBytes", &bytes.into(), "must be greater than 0"));
                    }
                    wanted.limit = u64::try_from(bytes).ok();
                }
                _ => {}
            }
        }
        if since > 1 {
            causes.push(Cause::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
        }
        if causes.is_empty() { Ok(wanted) } else { Err(Failure::invalid("", "PodLogOptions", "", &causes)) }
    }
}

/// The log of a pod's container as a stream of text.
pub(super) async fn read(
    logs: &dyn ContainerLogs,
    pod: &Value,
    query: &str,
    now: Timestamp,
) -> Result<BoxStream<'static, Bytes>, Failure> {
    let wanted = Wanted::parse(query, now)?;
    let container = container_of(pod, &wanted.container)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &pod["metadata"];
    // A pod that nobody runs yet has nothing to say.
    if text(&pod["spec"]["nodeName"]).is_empty() {
        return Ok(futures::stream::empty().boxed());
    }
    let request = LogRequest {
        namespace: text(&metadata["namespace"]),
        pod: text(&metadata["name"]),
        uid: text(&metadata["uid"]),
        container,
        previous: wanted.previous,
        follow: wanted.follow,
    };
    let skipped = match wanted.tail {
        Some(tail) => {
            let present = LogRequest { follow: false, ..request.clone() };
            let lines = logs.open(&present).ok_or_else(|| absent(pod, &request))?;
            (lines.count().await as u64).saturating_sub(tail)
        }
        None => 0,
    };
    let lines = logs.open(&request).ok_or_else(|| absent(pod, &request))?;
    Ok(shaped(lines, skipped, wanted))
}

fn shaped(lines: BoxStream<'static, LogLine>, skipped: u64, wanted: Wanted) -> BoxStream<'static, Bytes> {
    let Wanted { timestamps, since, limit, .. } = wanted;
    let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
    let mut left = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let recent =
        lines.skip(skipped).filter(move |line| std::future::ready(since.is_none_or(|since| line.time >= since)));
    let written = recent.map(move |line| match timestamps {
        true => [format!("{:.9} ", line.time).as_bytes(), &line.text].concat().into(),
        false => line.text,
    });
    let mut cut = move |text: Bytes| {
        let room = match &mut left {
            None => return std::future::ready(Some(text)),
            Some(0) => return std::future::ready(None),
            Some(room) => room,
        };
        let text = text.slice(..text.len().min(*room));
        *room -= text.len();
        std::future::ready(Some(text))
    };
    written.scan((), move |(), text| cut(text)).boxed()
}

/// The container that is asked for, or the only one.
fn container_of(pod: &Value, asked: &str) -> Result<String, Failure> {
    let names = |field: &str| -> Vec<&str> {
        let containers = pod["spec"][field].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str()).collect()
    };
    let (main, first) = (names("containers"), names("initContainers"));
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    match (asked, &main[..]) {
        ("", [only]) if first.is_empty() => Ok((*only).to_owned()),
        ("", _) => {
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
            if !first.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", first.join(" ")));
            }
            Err(Failure::bad_request(message))
        }
        (asked, _) if main.contains(&asked) || first.contains(&asked) => Ok(asked.to_owned()),
        (asked, _) => Err(Failure::bad_request(format!("container {asked} is not valid for pod {name}"))),
    }
}

/// Why there is no such run.
fn absent(pod: &Value, request: &LogRequest) -> Failure {
    let (container, name) = (&request.container, &request.pod);
    if request.previous {
        let message = format!("previous terminated container {container:?} in pod {name:?} not found");
        return Failure::bad_request(message);
    }
    let statuses = ["containerStatuses", "initContainerStatuses"]
        .into_iter()
        .flat_map(|field| pod["status"][field].as_array().into_iter().flatten());
    let reason = statuses
        .filter(|status| status["name"] == **container)
        .find_map(|status| status["state"]["waiting"]["reason"].as_str())
        .unwrap_or("ContainerCreating");
    Failure::bad_request(format!("container {container:?} in pod {name:?} is waiting to start: {reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Kept(Vec<LogLine>);

    impl ContainerLogs for Kept {
        fn open(&self, request: &LogRequest) -> Option<BoxStream<'static, LogLine>> {
            (!request.previous).then(|| futures::stream::iter(self.0.clone()).boxed())
        }
    }

    async fn log(query: &str) -> Result<String, Failure> {
        let line = |second: i64, text: &'static str| LogLine {
            time: Timestamp::from_second(1_000 + second).unwrap(),
            text: Bytes::from_static(text.as_bytes()),
        };
        let logs = Kept(vec![line(0, "one\n"), line(1, "two\n"), line(9, "three")]);
        let pod = json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "u"},
            "spec": {"nodeName": "here", "containers": [{"name": "main"}]},
        });
        let text = read(&logs, &pod, query, Timestamp::from_second(1_010).unwrap()).await?;
        Ok(String::from_utf8(text.collect::<Vec<_>>().await.concat()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_is_cut_as_asked() {
        assert_eq!(log("").await.unwrap(), "one\ntwo\nthree");
        assert_eq!(log("container=main&tailLines=2").await.unwrap(), "two\nthree");
        assert_eq!(log("tailLines=0").await.unwrap(), "");
        assert_eq!(log("sinceSeconds=5").await.unwrap(), "three");
        assert_eq!(log("sinceTime=1970-01-01T00:16:41Z").await.unwrap(), "two\nthree");
        assert_eq!(log("limitBytes=6").await.unwrap(), "one\ntw");
        assert_eq!(log("timestamps=true&tailLines=1").await.unwrap(), "1970-01-01T00:16:49.000000000Z three");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_log_is_said() {
        let said = |failure: Failure| failure.status()["message"].as_str().unwrap().to_owned();
        assert_eq!(said(log("container=x").await.unwrap_err()), "container x is not valid for pod web");
        let previous = said(log("previous=true").await.unwrap_err());
        assert_eq!(previous, "previous terminated container \"main\" in pod \"web\" not found");
        assert_eq!(log("tailLines=-1").await.unwrap_err().code(), 422);
        assert_eq!(log("sinceSeconds=x").await.unwrap_err().code(), 400);
    }
}
