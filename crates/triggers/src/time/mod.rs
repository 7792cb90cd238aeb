//! Triggers that follow the clock.

pub mod cron;
