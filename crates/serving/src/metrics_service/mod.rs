//! The gRPC link between the operator and the metrics server: package `api` with its services `MetricsService` and
//! `RawMetricsService`, over mutual TLS.
//!
//! Both ends are here: [`serve`] for the operator, [`client`] for the metrics server. In one process neither is needed:
//! the operator's source is the API's.

mod calls;
mod client;
mod link;
pub mod messages;
mod raw;
mod reasons;
mod server;

pub use calls::{Counter, Method, Turn};
pub use client::{Address, BadAddress, GrpcMetrics, client};
pub use raw::{RawMetrics, RawReading};
pub use server::{MetricsService, serve};
