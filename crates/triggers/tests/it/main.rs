//! Tests of the catalogue as its users see it.

mod catalogue;
mod conformance;
mod cron;
mod deviations;
mod rabbitmq;
mod reference;
