//! Flags of KEDA's adapter that mean nothing here: they are accepted, and a warning says which.

use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::process::idle::Flags;

const FLAGS: Flags = Flags { with_value: WITH_VALUE, booleans: BOOLEANS };

const WITH_VALUE: &[&str] = &[
    "msg",
    "profiling-bind-address",
    "lister-kubeconfig",
    "discovery-interval",
    "client-qps",
    "client-burst",
    "tls-sni-cert-key",
    "tls-curve-preferences",
    "http2-max-streams-per-connection",
    "debug-socket-path",
    "feature-gates",
    "audit-policy-file",
    "audit-log-path",
    "audit-log-maxage",
    "audit-log-maxbackup",
    "audit-log-maxsize",
    "audit-log-mode",
    "audit-log-format",
    "audit-log-version",
    "audit-log-batch-buffer-size",
    "audit-log-batch-max-size",
    "audit-log-batch-max-wait",
    "audit-log-batch-throttle-burst",
    "audit-log-batch-throttle-qps",
    "audit-log-truncate-max-batch-size",
    "audit-log-truncate-max-event-size",
    "audit-webhook-config-file",
    "audit-webhook-initial-backoff",
    "audit-webhook-mode",
    "audit-webhook-version",
    "audit-webhook-batch-buffer-size",
    "audit-webhook-batch-max-size",
    "audit-webhook-batch-max-wait",
    "audit-webhook-batch-throttle-burst",
    "audit-webhook-batch-throttle-qps",
    "audit-webhook-truncate-max-batch-size",
    "audit-webhook-truncate-max-event-size",
];

const BOOLEANS: &[&str] = &[
    "permit-address-sharing",
    "permit-port-sharing",
    "disable-http2-serving",
    "profiling",
    "contention-profiling",
    "enable-priority-and-fairness",
    "audit-log-compress",
    "audit-log-batch-throttle-enable",
    "audit-log-truncate-enabled",
    "audit-webhook-batch-throttle-enable",
    "audit-webhook-truncate-enabled",
];

/// The flags of these that were given, without their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Idle(pub Vec<&'static str>);

impl Args for Idle {
    fn augment_args(command: Command) -> Command {
        FLAGS.add_to(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Idle {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(FLAGS.given(matches)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
