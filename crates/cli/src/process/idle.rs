//! Flags of KEDA's programs that mean nothing here: they are accepted, so that manifests and charts need no change.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::go_bool;

/// Flags by their names.
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    /// Those with a value.
    pub with_value: &'static [&'static str],
    /// Those that are booleans: their value, if any, follows a `=`.
    pub booleans: &'static [&'static str],
}

impl Flags {
    /// Makes them flags of the command, hidden from its help.
    pub fn add_to(self, command: Command) -> Command {
        let flag = |name: &'static str| Arg::new(name).long(name).hide(true).action(ArgAction::Append);
        let with_value = self.with_value.iter().map(|name| flag(name).allow_hyphen_values(true).num_args(1));
        let booleans = self.booleans.iter().map(|name| {
            let flag = flag(name).num_args(0..=1).require_equals(true).default_missing_value("true");
            flag.value_parser(go_bool)
        });
        command.args(with_value).args(booleans)
    }

    /// Those that were given, without their values.
    pub fn given(self, matches: &ArgMatches) -> Vec<&'static str> {
        let given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
        self.with_value.iter().chain(self.booleans).copied().filter(given).collect()
    }
}

/// The flags of klog, the log of Kubernetes' own libraries. Charts pass some of them always, so no warning tells of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Klog;

const KLOG: Flags = Flags {
    with_value: &[
        "stderrthreshold",
        "alsologtostderrthreshold",
        "vmodule",
        "log_backtrace_at",
        "log_dir",
        "log_file",
        "log_file_max_size",
    ],
    booleans: &[
        "logtostderr",
        "alsologtostderr",
        "add_dir_header",
        "legacy_stderr_threshold_behavior",
        "one_output",
        "skip_headers",
        "skip_log_headers",
    ],
};

impl Args for Klog {
    fn augment_args(command: Command) -> Command {
        let level = Arg::new("v").short('v').long("v").hide(true).allow_negative_numbers(true);
        KLOG.add_to(command).arg(level.value_parser(clap::value_parser!(i32)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Klog {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn klogs_flags_are_taken_in_every_way_in_which_go_programs_take_them() {
        let parse =
            |flags: &[&str]| Klog::augment_args(Command::new("x")).try_get_matches_from([&["x"], flags].concat());
        for flags in [&["--v=-1", "--logtostderr"][..], &["-v", "4", "--logtostderr=false"], &["--log_dir", "/tmp"]] {
            assert!(parse(flags).is_ok(), "{flags:?}");
        }
        for flags in [&["--logtostderr=perhaps"][..], &["--v=high"], &["--log-directory=/tmp"]] {
            assert_eq!(parse(flags).unwrap_err().exit_code(), 2, "{flags:?}");
        }
    }
}
