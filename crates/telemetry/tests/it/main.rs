//! Telemetry as receivers and scrapers see it.

mod batches;
mod push;
mod receiver;
