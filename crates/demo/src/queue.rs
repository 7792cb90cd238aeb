//! A job queue over HTTP.
//!
//! `POST /jobs?count=N&work=MS` adds jobs, `POST /take?worker=NAME` leases one (204: there is none), `POST /done/ID`
//! ends it (410: nobody has it on lease), `GET /stats` counts. A job whose worker says nothing for the length of its
//! lease goes back into the queue.

mod jobs;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::output::say;
use jobs::Jobs;
pub(crate) use jobs::{Job, Stats};

/// How long open requests may take when the queue is told to stop.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// Arguments of the queue.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
}

type Shared = Arc<Mutex<Jobs>>;

pub(crate) async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen at {}: is another queue running?", args.listen))?;
    say(format_args!("queue listens at http://{}", listener.local_addr()?));
    serve(listener, stop).await
}

pub(crate) async fn serve(listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    let server = axum::serve(listener, router()).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        biased;
        outcome = server.into_future() => outcome.context("the queue stopped"),
        () = async { stop.cancelled().await; tokio::time::sleep(LAST_REQUESTS).await } => Ok(()),
    }
}

fn router() -> Router {
    Router::new()
        .route("/jobs", post(add))
        .route("/take", post(take))
        .route("/done/{id}", post(done))
        .route("/stats", get(stats))
        .with_state(Shared::default())
}

#[derive(Deserialize)]
struct New {
    #[serde(default = "one")]
    count: u32,
    #[serde(default = "a_second")]
    work: u64,
}

fn one() -> u32 {
    1
}

fn a_second() -> u64 {
    1000
}

async fn add(State(jobs): State<Shared>, Query(new): Query<New>) -> (StatusCode, &'static str) {
    match locked(&jobs).add(new.count, new.work) {
        Ok(()) => (StatusCode::ACCEPTED, ""),
        Err(jobs::Full) => (StatusCode::TOO_MANY_REQUESTS, "the queue is full\n"),
    }
}

#[derive(Deserialize)]
struct Worker {
    #[serde(default)]
    worker: String,
}

async fn take(State(jobs): State<Shared>, Query(Worker { worker }): Query<Worker>) -> Result<Json<Job>, StatusCode> {
    locked(&jobs).take(worker, Instant::now()).map(Json).ok_or(StatusCode::NO_CONTENT)
}

async fn done(State(jobs): State<Shared>, Path(id): Path<u64>) -> StatusCode {
    if locked(&jobs).finish(id, Instant::now()) { StatusCode::OK } else { StatusCode::GONE }
}

async fn stats(State(jobs): State<Shared>) -> Json<Stats> {
    Json(locked(&jobs).stats(Instant::now()))
}

fn locked(jobs: &Shared) -> MutexGuard<'_, Jobs> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}
