//! The streams by which a scaler tells something unasked. Each connects, and after a break connects again, by itself.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, ready};
use futures::stream::{self, BoxStream, PollNext, Stream, StreamExt as _};
use futures::{FutureExt as _, TryStreamExt as _};
use prost::Message;
use tidemark_trigger::{Door, Push};

use super::contract::{GetMetricSpecResponse, IsActiveResponse, STREAM_IS_ACTIVE, STREAM_METRIC_SPEC};
use super::grpc::Failure;
use super::scaler::Scaler;

/// The wait before a stream is opened again: the first one, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The messages of one opened stream, until it ends or breaks.
type Messages<M> = BoxStream<'static, Result<M, Failure>>;
/// A stream that is being opened.
type Opening<'a, M> = BoxFuture<'a, Result<Messages<M>, Failure>>;

/// How long to wait before the next attempt.
#[derive(Debug)]
struct BackOff(Duration);

impl BackOff {
    /// What was tried has worked: the next wait is the first one again.
    fn worked(&mut self) {
        self.0 = FIRST_PAUSE;
    }

    /// The wait after another attempt: doubled each time.
    fn pause(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// Where messages come from.
trait Source: Send + 'static {
    type Message: Send + 'static;

    /// Opens the stream.
    fn open(&self) -> Opening<'_, Self::Message>;

    /// The stream broke; it is opened again after the pause. `first` since it last worked.
    fn broke(&self, failure: Failure, first: bool, pause: Duration);

    /// Called when the server has no such stream. False: it is asked again like after any other failure.
    fn give_up(&self) -> bool;
}

/// All messages of a source, of one opened stream after the other.
fn follow<S: Source>(source: S) -> impl Stream<Item = S::Message> {
    let start = Follower { source, stream: None, back_off: BackOff(FIRST_PAUSE), failing: false };
    stream::unfold(start, |mut follower| async move {
        let message = follower.next().await?;
        Some((message, follower))
    })
}

struct Follower<S: Source> {
    source: S,
    stream: Option<Opened<S::Message>>,
    back_off: BackOff,
    /// A failure was told of, and nothing has worked since.
    failing: bool,
}

struct Opened<M> {
    messages: Messages<M>,
    /// Something has come.
    used: bool,
}

impl<S: Source> Follower<S> {
    /// The next message; none when nothing more will come.
    async fn next(&mut self) -> Option<S::Message> {
        loop {
            let received = self.receive().await;
            match &received {
                Ok(_) => {
                    self.back_off.worked();
                    self.failing = false;
                }
                Err(failure) => {
                    let unused = self.stream.as_ref().is_none_or(|stream| !stream.used);
                    if unused && failure.is_unimplemented() && self.source.give_up() {
                        return None;
                    }
                }
            }
            let failure = match received {
                Ok(Some(message)) => return Some(message),
                Ok(None) => None,
                Err(failure) => Some(failure),
            };
            self.stream = None;
            let pause = self.back_off.pause();
            if let Some(failure) = failure {
                self.source.broke(failure, !std::mem::replace(&mut self.failing, true), pause);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn receive(&mut self) -> Result<Option<S::Message>, Failure> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let messages = self.source.open().await?;
                self.stream.insert(Opened { messages, used: false })
            }
        };
        let message = stream.messages.try_next().await?;
        stream.used |= message.is_some();
        Ok(message)
    }
}

/// A stream of the contract.
struct Call {
    scaler: Arc<Scaler>,
    door: Door,
    path: &'static str,
}

impl Call {
    fn open<M: Message + Default + 'static>(&self) -> Opening<'_, M> {
        async move {
            let client = self.scaler.client(&self.door).await?;
            client.stream(self.path, self.scaler.reference()).await
        }
        .boxed()
    }

    fn broke(&self, failure: Failure, first: bool, pause: Duration) {
        let error = self.scaler.error(failure, self.path);
        let Scaler { namespace, object, index, .. } = &*self.scaler;
        let seconds = pause.as_secs();
        if first {
            tracing::warn!(%namespace, name = %object, trigger = index, %error, seconds, "a scaler's stream broke");
        } else {
            tracing::debug!(%namespace, name = %object, trigger = index, %error, seconds, "a scaler's stream broke");
        }
    }
}

/// `StreamIsActive`.
struct Activity(Call);

impl Source for Activity {
    type Message = IsActiveResponse;

    fn open(&self) -> Opening<'_, IsActiveResponse> {
        self.0.open()
    }

    fn broke(&self, failure: Failure, first: bool, pause: Duration) {
        self.0.broke(failure, first, pause);
    }

    fn give_up(&self) -> bool {
        false
    }
}

/// `StreamMetricSpec`, which a scaler may lack.
struct Specs(Call);

impl Source for Specs {
    type Message = GetMetricSpecResponse;

    fn open(&self) -> Opening<'_, GetMetricSpecResponse> {
        self.0.open()
    }

    fn broke(&self, failure: Failure, first: bool, pause: Duration) {
        self.0.broke(failure, first, pause);
    }

    fn give_up(&self) -> bool {
        // A scaler that had the stream may have been replaced by an older one.
        self.0.scaler.forget_streamed();
        true
    }
}

/// What a scaler tells by both streams; new metrics first.
pub fn pushes(scaler: &Arc<Scaler>, door: &Door) -> BoxStream<'static, Push> {
    let call = |path| Call { scaler: scaler.clone(), door: door.clone(), path };
    let told = scaler.clone();
    let metrics = follow(Specs(call(STREAM_METRIC_SPEC))).filter_map(move |reply| ready(adopted(&told, &reply)));
    // That it is quiet says nothing: polling and the cooldown decide about that.
    let active = follow(Activity(call(STREAM_IS_ACTIVE))).filter(|state| ready(state.result)).map(|_| Push::Active);
    stream::select_with_strategy(metrics, active, |(): &mut ()| PollNext::Left).boxed()
}

fn adopted(scaler: &Scaler, reply: &GetMetricSpecResponse) -> Option<Push> {
    let Scaler { namespace, object, index, .. } = scaler;
    match scaler.adopt(reply) {
        Ok(metrics) => metrics.map(Push::Metrics),
        Err(error) => {
            tracing::warn!(%namespace, name = %object, trigger = index, %error, "a scaler's new metrics are ignored");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use tidemark_trigger::{ErrorKind, SourceError};
    use tokio::time::Instant;
    use tonic::Code;

    use super::*;

    type Script = VecDeque<Result<Vec<Result<u32, Failure>>, Failure>>;

    /// Streams as a script has them: each as its messages, each followed by an end. After the script it is silent.
    #[derive(Clone)]
    struct Scripted {
        script: Arc<Mutex<Script>>,
        opened: Arc<Mutex<Vec<u64>>>,
        told: Arc<Mutex<Vec<(bool, u64)>>>,
        start: Instant,
        optional: bool,
    }

    impl Scripted {
        fn new<const N: usize>(script: [Result<Vec<Result<u32, Failure>>, Failure>; N], optional: bool) -> Self {
            let script = Arc::new(Mutex::new(script.into()));
            Self { script, opened: Arc::default(), told: Arc::default(), start: Instant::now(), optional }
        }

        fn opened(&self) -> Vec<u64> {
            self.opened.lock().unwrap().clone()
        }
    }

    impl Source for Scripted {
        type Message = u32;

        fn open(&self) -> Opening<'_, u32> {
            self.opened.lock().unwrap().push(self.start.elapsed().as_secs());
            let next = self.script.lock().unwrap().pop_front();
            async move {
                match next {
                    Some(outcome) => outcome.map(|messages| stream::iter(messages).boxed()),
                    None => Ok(stream::pending().boxed()),
                }
            }
            .boxed()
        }

        fn broke(&self, _: Failure, first: bool, pause: Duration) {
            self.told.lock().unwrap().push((first, pause.as_secs()));
        }

        fn give_up(&self) -> bool {
            self.optional
        }
    }

    fn down() -> Failure {
        SourceError::new(ErrorKind::Unreachable, "down").into()
    }

    fn unimplemented() -> Failure {
        Failure::Status(Code::Unimplemented, String::new())
    }

    #[test]
    fn the_wait_doubles_from_two_seconds_to_a_minute_and_starts_anew_after_success() {
        let mut back_off = BackOff(FIRST_PAUSE);
        let mut waits = |times| (0..times).map(|_| back_off.pause().as_secs()).collect::<Vec<_>>();
        assert_eq!(waits(7), [2, 4, 8, 16, 32, 60, 60]);
        back_off.worked();
        assert_eq!(back_off.pause(), FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_breaks_is_opened_again_and_again() {
        let script =
            [Err(down()), Err(down()), Err(down()), Ok(vec![Ok(1), Err(down())]), Err(down()), Ok(vec![Ok(2)])];
        let source = Scripted::new(script, false);
        let mut messages = Box::pin(follow(source.clone()));
        assert_eq!(messages.next().await, Some(1));
        assert_eq!(source.opened(), [0, 2, 6, 14]);
        // It worked for a while: the wait is short again, although it broke with an error.
        assert_eq!(messages.next().await, Some(2));
        assert_eq!(source.opened(), [0, 2, 6, 14, 16, 20]);
        // After its normal end too.
        assert!(tokio::time::timeout(Duration::from_secs(3600), messages.next()).await.is_err());
        assert_eq!(source.opened(), [0, 2, 6, 14, 16, 20, 22]);
        // Each outage is told of once as news.
        assert_eq!(*source.told.lock().unwrap(), [(true, 2), (false, 4), (false, 8), (true, 2), (false, 4)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_ends_at_once_without_error_is_opened_every_two_seconds() {
        let source = Scripted::new([const { Ok(Vec::new()) }; 4], false);
        let messages = follow(source.clone());
        assert!(tokio::time::timeout(Duration::from_secs(60), std::pin::pin!(messages).next()).await.is_err());
        assert_eq!(source.opened(), [0, 2, 4, 6, 8]);
        assert!(source.told.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_the_server_does_not_have_is_given_up_in_silence() {
        for script in [Err(unimplemented()), Ok(vec![Err(unimplemented())])] {
            let source = Scripted::new([script], true);
            assert_eq!(std::pin::pin!(follow(source.clone())).next().await, None);
            assert_eq!((source.opened(), source.told.lock().unwrap().len()), (vec![0], 0));
        }
        // A stream that every server must have is asked for again, and one that has worked is there.
        for (script, optional) in [(Err(unimplemented()), false), (Ok(vec![Ok(1), Err(unimplemented())]), true)] {
            let source = Scripted::new([script, Ok(vec![Ok(2)])], optional);
            let messages = follow(source.clone()).filter(|message| ready(*message == 2));
            assert_eq!(std::pin::pin!(messages).next().await, Some(2));
            assert_eq!(source.told.lock().unwrap().len(), 1);
        }
    }
}
