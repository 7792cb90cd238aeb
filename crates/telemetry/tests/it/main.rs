//! Telemetry as receivers and scrapers see it.

mod push;
mod receiver;
