//! Tests of the catalogue as its users see it.

mod catalogue;
mod conformance;
mod cron;
mod deviations;
mod external;
mod guide;
mod mutated;
mod postgresql;
mod prometheus;
mod rabbitmq;
mod redis;
mod reference;
mod source;
mod tls_front;
