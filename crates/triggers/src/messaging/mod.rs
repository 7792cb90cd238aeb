//! Trigger types that read message brokers.

pub mod rabbitmq;
