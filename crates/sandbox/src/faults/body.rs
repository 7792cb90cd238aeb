//! A watch that ends too soon or tells late.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyStream, StreamBody};
use tokio::time::Instant;
use tower::BoxError;

use super::draw::Draw;
use crate::ResponseBody;

/// What is wrong with a watch.
#[derive(Default)]
pub(super) struct Trouble {
    /// When it is cut.
    pub(super) end: Option<Instant>,
    pub(super) delays: Vec<Delays>,
}

/// Delays of a share of what a watch tells.
pub(super) struct Delays {
    pub(super) share: f64,
    pub(super) longest: Duration,
    /// What the span counts from.
    pub(super) start: Instant,
    pub(super) span: RangeInclusive<Duration>,
    pub(super) draw: Draw,
}

impl Trouble {
    pub(super) fn of(self, body: ResponseBody) -> ResponseBody {
        if self.end.is_none() && self.delays.is_empty() {
            return body;
        }
        let frames = BodyStream::new(body);
        let troubled = futures::stream::unfold((frames, self), |(mut frames, mut trouble)| async move {
            let end = trouble.end;
            let next = async {
                let frame: Result<Frame<Bytes>, BoxError> = frames.next().await?;
                let pause = trouble.pause();
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                Some(frame)
            };
            let frame = tokio::select! {
                biased;
                () = tokio::time::sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => None,
                frame = next => frame,
            };
            Some((frame?, (frames, trouble)))
        });
        UnsyncBoxBody::new(StreamBody::new(troubled))
    }

    /// How late the next piece comes.
    fn pause(&mut self) -> Duration {
        let now = |delays: &&mut Delays| delays.span.contains(&delays.start.elapsed());
        let pauses = self.delays.iter_mut().filter(now).map(|delays| {
            let struck = delays.draw.share() < delays.share;
            let pause = delays.draw.within(delays.longest);
            if struck { pause } else { Duration::ZERO }
        });
        pauses.max().unwrap_or_default()
    }
}
