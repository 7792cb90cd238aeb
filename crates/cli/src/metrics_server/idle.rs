//! Flags of KEDA's adapter that mean nothing here: they are accepted, and a warning says which.

use clap::builder::NonEmptyStringValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// Flags with a value.
const WITH_VALUE: &[&str] = &[
    "msg",
    "profiling-bind-address",
    "lister-kubeconfig",
    "discovery-interval",
    "client-qps",
    "client-burst",
    "tls-sni-cert-key",
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

/// Flags that are booleans: their value, if any, follows a `=`.
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
        let flag = |name: &'static str| Arg::new(name).long(name).hide(true).action(ArgAction::Append);
        let with_value = WITH_VALUE.iter().map(|name| flag(name).allow_hyphen_values(true).num_args(1));
        let booleans = BOOLEANS.iter().map(|name| {
            let flag = flag(name).num_args(0..=1).require_equals(true).default_missing_value("true");
            flag.value_parser(NonEmptyStringValueParser::new())
        });
        command.args(with_value).args(booleans)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Idle {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
        Ok(Self(WITH_VALUE.iter().chain(BOOLEANS).copied().filter(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
