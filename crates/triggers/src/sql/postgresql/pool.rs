//! The sessions that triggers with the same connection settings share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared, join_all};
use tidemark_trigger::{Door, ErrorKind, SourceError};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::failure::{Fault, asked};
use super::number;
use super::session::{Cancel, Session};
use super::settings::Settings;

/// Sessions open at a time. Each costs the server a process.
const SESSIONS: usize = 4;
/// Upper bound of one read: its wait for a session, connecting included. The caller's deadline is usually shorter.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

type Reply = Result<f64, SourceError>;

/// Sessions of one login, and the queries under way.
pub(super) struct Pool {
    settings: Arc<Settings>,
    /// The one used last comes last.
    idle: Mutex<Vec<(Session, Instant)>>,
    permits: Semaphore,
    /// Queries that were given up, which the server may still be at.
    abandoned: Mutex<Vec<Cancel>>,
    in_flight: Mutex<BTreeMap<Arc<str>, WeakShared<BoxFuture<'static, Reply>>>>,
}

impl Pool {
    /// A pool with one open session.
    pub async fn open(settings: Arc<Settings>, door: &Door) -> Result<Self, SourceError> {
        let session = timeout(READ_TIMEOUT, Session::open(&settings, door)).await.unwrap_or_else(|_| {
            let hosts: Vec<_> = settings.hosts.iter().map(|host| host.endpoint()).collect();
            let message = format!("no PostgreSQL connection to {} within {READ_TIMEOUT:?}", hosts.join(" or "));
            Err(SourceError::new(ErrorKind::TimedOut, message))
        })?;
        Ok(Self {
            settings,
            idle: Mutex::new(vec![(session, Instant::now())]),
            permits: Semaphore::new(SESSIONS),
            abandoned: Mutex::default(),
            in_flight: Mutex::default(),
        })
    }

    /// The number that a query gives. Equal queries under way share one answer.
    pub async fn number(self: &Arc<Self>, door: &Door, query: &Arc<str>) -> Reply {
        self.asked(door, query).await
    }

    fn asked(self: &Arc<Self>, door: &Door, query: &Arc<str>) -> Shared<BoxFuture<'static, Reply>> {
        let mut in_flight = lock(&self.in_flight);
        let running = in_flight.get(query).and_then(WeakShared::upgrade);
        if let Some(running) = running.filter(|running| running.peek().is_none()) {
            return running;
        }
        let done = Done { pool: Arc::clone(self), query: Arc::clone(query) };
        let door = door.clone();
        let reply = async move {
            let Done { pool, query } = &done;
            let limited = timeout(READ_TIMEOUT, pool.ask(&door, query)).await;
            limited.unwrap_or_else(|_| {
                let endpoint = pool.settings.hosts[0].endpoint();
                Err(Fault::TimedOut(READ_TIMEOUT).of_query(&endpoint, &pool.settings.database))
            })
        };
        let reply = reply.boxed().shared();
        if let Some(weak) = reply.downgrade() {
            in_flight.insert(Arc::clone(query), weak);
        }
        reply
    }

    async fn ask(&self, door: &Door, query: &str) -> Reply {
        // The semaphore is never closed, so this is always a permit; held to the end either way.
        let _permit = self.permits.acquire().await;
        self.cancel_abandoned(door).await;
        let mut session = match self.take_idle(door).await {
            Some(session) => session,
            None => Session::open(&self.settings, door).await?,
        };
        let mut running = Running { pool: self, cancel: Some(session.cancel().clone()) };
        let answer = session.query(query).await;
        running.cancel = None;
        let endpoint = Arc::clone(session.endpoint());
        if session.at_rest() {
            lock(&self.idle).push((session, Instant::now()));
        } else if matches!(answer, Err(Fault::Lost(_))) {
            // The others were opened to the same server, and may not have noticed yet.
            lock(&self.idle).clear();
        }
        let database = &self.settings.database;
        let answer = answer.map_err(|fault| fault.of_query(&endpoint, database))?;
        number::of(&answer)
            .map_err(|cause| SourceError::new(ErrorKind::BadReply, format!("{} {cause}", asked(&endpoint, database))))
    }

    /// Cancels what earlier reads gave up: the server would go on, and a query that takes longer than its trigger waits
    /// would run once more with each poll.
    async fn cancel_abandoned(&self, door: &Door) {
        let abandoned = std::mem::take(&mut *lock(&self.abandoned));
        join_all(abandoned.iter().map(|cancel| cancel.send(&self.settings, door))).await;
    }

    /// A session that still works. Those that were not needed for long are ended.
    async fn take_idle(&self, door: &Door) -> Option<Session> {
        let keep = door.settings().connection_idle;
        let superfluous: Vec<_> = {
            let mut idle = lock(&self.idle);
            let last = idle.len().saturating_sub(1);
            let end = idle[..last].iter().take_while(|(_, used)| used.elapsed() >= keep).count();
            idle.drain(..end).collect()
        };
        join_all(superfluous.into_iter().map(|(session, _)| session.end())).await;
        loop {
            let (session, _) = lock(&self.idle).pop()?;
            if session.works() {
                return Some(session);
            }
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A query that the server is at. Dropped before its answer has come, it is to be cancelled.
struct Running<'a> {
    pool: &'a Pool,
    cancel: Option<Cancel>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            lock(&self.pool.abandoned).push(cancel);
        }
    }
}

/// Takes a query from the table when it is over or was given up.
struct Done {
    pool: Arc<Pool>,
    query: Arc<str>,
}

impl Drop for Done {
    fn drop(&mut self) {
        lock(&self.pool.in_flight).remove(&self.query);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
