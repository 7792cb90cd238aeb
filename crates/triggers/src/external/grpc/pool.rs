//! The channels to the servers behind one address, used in turn.
//!
//! `tonic` can balance too, but not with a connector of ours (TLS of the door, proxies), it picks at random, and it goes on
//! giving calls to servers that are down.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::Uri;
use tidemark_trigger::SourceError;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

use super::connect::{Route, Way};

/// How often the servers behind a name that is in use are looked up.
const LOOK_UP_EVERY: Duration = Duration::from_secs(30);
/// How long a look-up may hold up a call while there are servers that work.
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(1);
/// How long one of several servers is left alone after it failed: doubled with each failure.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(120);
/// The most streams on one connection. Servers that limit them allow 100 at least, as a rule, and calls need room too:
/// those beyond the limit would wait until a stream ends, which may be never.
const STREAMS: usize = 90;

/// The channels. All close when it is dropped.
pub struct Pool {
    pub route: Arc<Route>,
    origin: Uri,
    ring: Mutex<Ring>,
    looking_up: tokio::sync::Mutex<()>,
    /// A server has answered once: it speaks gRPC.
    pub answered: AtomicBool,
}

#[derive(Default)]
struct Ring {
    lanes: Vec<Arc<Lane>>,
    /// Whose turn it is.
    next: usize,
    /// Lanes for streams that have no place elsewhere; the streams keep them.
    spare: Vec<Weak<Lane>>,
    looked_up: Option<Instant>,
}

/// One connection.
struct Lane {
    way: Way,
    channel: Channel,
    /// Each stream holds a share.
    streams: Arc<()>,
    /// Failures of the server, one after another.
    failures: AtomicU32,
    rests_until: Instant,
}

/// A place on a connection.
pub struct Seat {
    lane: Arc<Lane>,
    /// There to be counted.
    _stream: Option<Arc<()>>,
}

impl Seat {
    pub fn channel(&self) -> Channel {
        self.lane.channel.clone()
    }

    pub fn way(&self) -> &Way {
        &self.lane.way
    }
}

impl Pool {
    /// No connection is made yet. `origin` is what requests call the server.
    pub fn new(route: Route, origin: Uri) -> Self {
        let route = Arc::new(route);
        Self { route, origin, ring: Mutex::default(), looking_up: Default::default(), answered: AtomicBool::new(false) }
    }

    /// A place on the next connection. A stream is a request without a deadline.
    ///
    /// # Errors
    /// There is no server.
    pub async fn seat(&self, stream: bool) -> Result<Seat, SourceError> {
        if self.is_due() {
            self.look_up().await?;
        }
        let mut ring = self.ring();
        let (now, number, next) = (Instant::now(), ring.lanes.len(), ring.next);
        let turns = (0..number).map(|i| (next + i) % number);
        let awake = turns.clone().find(|at| ring.lanes[*at].rests_until <= now);
        // When all rest, each may be tried: there is nothing to lose. A look-up leaves one lane at least.
        let at = awake.or(turns.clone().next()).unwrap_or_default();
        ring.next = at + 1;
        let lane = ring.lanes[at].clone();
        if !stream {
            return Ok(Seat { lane, _stream: None });
        }
        let lane = if lane.is_full() { self.spare(&mut ring, &lane.way) } else { lane };
        let share = lane.streams.clone();
        Ok(Seat { lane, _stream: Some(share) })
    }

    /// The server answered.
    pub fn worked(&self, seat: &Seat) {
        self.answered.store(true, Ordering::Relaxed);
        seat.lane.failures.store(0, Ordering::Relaxed);
    }

    /// The server failed, or sends its clients away: the next request gets a new connection. What is under way on the old
    /// one goes on. Gives whether there are servers that work, as far as is known.
    pub fn failed(&self, seat: &Seat, rest: bool) -> bool {
        let (old, now) = (&seat.lane, Instant::now());
        let failures = if rest { old.failures.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        let mut ring = self.ring();
        ring.looked_up = None;
        ring.spare.retain(|lane| lane.as_ptr() != Arc::as_ptr(old));
        if let Some(at) = ring.lanes.iter().position(|lane| Arc::ptr_eq(lane, old)) {
            ring.lanes[at] = self.lane(&old.way, failures);
        }
        ring.lanes.iter().any(|lane| lane.rests_until <= now)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self) -> bool {
        self.ring().looked_up.is_none_or(|at| at.elapsed() >= LOOK_UP_EVERY)
    }

    async fn look_up(&self) -> Result<(), SourceError> {
        let works = {
            let (mut ring, now) = (self.ring(), Instant::now());
            let works = ring.lanes.iter().any(|lane| lane.rests_until <= now);
            if works {
                // The others need not wait.
                ring.looked_up = Some(now);
            }
            works
        };
        if works {
            // As long as a server works, a name server that does not is no reason to give it up.
            if let Ok(Ok(ways)) = timeout(LOOK_UP_PATIENCE, self.route.ways()).await {
                self.update(&ways);
            }
            return Ok(());
        }
        let _turn = self.looking_up.lock().await;
        if self.is_due() {
            let ways = self.route.ways().await?;
            self.update(&ways);
        }
        Ok(())
    }

    /// Takes over what a look-up found. Connections to servers that are still there stay.
    fn update(&self, ways: &[Way]) {
        let mut ring = self.ring();
        let lane = |way: &Way| match ring.lanes.iter().find(|lane| lane.way == *way) {
            Some(lane) => lane.clone(),
            None => self.lane(way, 0),
        };
        ring.lanes = ways.iter().map(lane).collect();
        ring.looked_up = Some(Instant::now());
    }

    fn lane(&self, way: &Way, failures: u32) -> Arc<Lane> {
        let rest = match failures {
            0 => Duration::ZERO,
            _ => (FIRST_REST * 2u32.saturating_pow((failures - 1).min(10))).min(LONGEST_REST),
        };
        Arc::new(Lane {
            way: way.clone(),
            channel: self.route.channel(way, self.origin.clone()),
            streams: Arc::default(),
            failures: failures.into(),
            rests_until: Instant::now() + rest,
        })
    }

    fn spare(&self, ring: &mut Ring, way: &Way) -> Arc<Lane> {
        let mut spare = ring.spare.iter().filter_map(Weak::upgrade);
        if let Some(lane) = spare.find(|lane| lane.way == *way && !lane.is_full()) {
            return lane;
        }
        let lane = self.lane(way, 0);
        ring.spare.retain(|lane| lane.strong_count() > 0);
        ring.spare.push(Arc::downgrade(&lane));
        lane
    }
}

impl Lane {
    fn is_full(&self) -> bool {
        // One share is the lane's own.
        Arc::strong_count(&self.streams) > STREAMS
    }
}
