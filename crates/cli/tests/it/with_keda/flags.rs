//! Every flag of KEDA's programs and every variable that they read, against ours: whoever swaps the image keeps the
//! arguments and the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use clap::{CommandFactory, Parser};
use tidemark_cli::args::Cli;

use super::processes::programs;

/// The programs of KEDA's, and our commands in their place.
const PROGRAMS: [(&str, &str); 3] =
    [("keda", "operator"), ("keda-adapter", "metrics-server"), ("keda-admission-webhooks", "webhooks")];

/// Flags of KEDA's that ours does not take.
const NOT_TAKEN: &[(&str, &str)] =
    &[("ginkgo.", "flags of a test framework that is linked in by accident: nothing reads them outside of tests")];

/// Values by default that differ: program, flag, ours, why. Of flags without effect nothing is said.
const OTHER_DEFAULTS: &[(&str, &str, &str, &str)] = &[
    ("keda", "cert-dir", "", "/certs too, but only where there is such a folder"),
    ("keda-adapter", "cert-dir", "/certs", "KEDA's manifests say so; its own default is a folder of API servers' own"),
    ("keda-adapter", "secure-port", "6443", "KEDA's images say so; its own default needs rights that they lack"),
    ("keda-adapter", "metrics-service-address", "", "the same, with the pod's namespace in it"),
    ("keda", "zap-log-level", "info", "the same: KEDA's help does not tell"),
    ("keda", "zap-time-encoding", "rfc3339", "the same: KEDA's help tells another one than it has"),
    ("keda-adapter", "zap-log-level", "info", "the same: KEDA's help does not tell"),
    ("keda-adapter", "zap-time-encoding", "rfc3339", "the same: KEDA's help tells another one than it has"),
    ("keda-admission-webhooks", "zap-log-level", "info", "the same: KEDA's help does not tell"),
    ("keda-admission-webhooks", "zap-time-encoding", "rfc3339", "the same: KEDA's help tells another one than it has"),
];

/// Variables that begin as KEDA's own do.
const VARIABLES: &[&str] = &[
    "KEDA_BOUND_SERVICE_ACCOUNT_TOKEN_EXPIRY",
    "KEDA_CLUSTER_OBJECT_NAMESPACE",
    "KEDA_HTTP_DEFAULT_TIMEOUT",
    "KEDA_HTTP_DISABLE_KEEP_ALIVE",
    "KEDA_HTTP_MIN_TLS_VERSION",
    "KEDA_HTTP_TLS_CIPHER_LIST",
    "KEDA_KUBERNETES_API_TIMEOUT",
    "KEDA_OPERATOR_LEADER_ELECTION_LEASE_DURATION",
    "KEDA_OPERATOR_LEADER_ELECTION_RENEW_DEADLINE",
    "KEDA_OPERATOR_LEADER_ELECTION_RETRY_PERIOD",
    "KEDA_OUTBOUND_FILTER",
    "KEDA_RESTRICT_SECRET_ACCESS",
    "KEDA_SCALEDJOB_CTRL_MAX_RECONCILES",
    "KEDA_SCALEDOBJECT_CTRL_MAX_RECONCILES",
    "KEDA_SERVICE_ACCOUNT_TOKEN_AUDIENCES",
    "KEDA_SERVICE_MIN_TLS_VERSION",
    "KEDA_SERVICE_TLS_CIPHER_LIST",
    "POD_NAMESPACE",
    "RAW_METRICS_GRPC_PROTOCOL",
    "RAW_METRICS_MODE",
    "WATCH_LABEL_SELECTOR",
    "WATCH_LABEL_SELECTOR_FOR_TRIGGERAUTH",
    "WATCH_NAMESPACE",
];

/// Variables that nothing of ours reads.
const UNREAD: &[(&str, &str)] = &[
    ("KEDA_CHECK_UNEXPECTED_SCALERS_PARAMS", "unknown parameters are always told"),
    ("WATCH_DECODE_ERROR", "no variable, but a word of Kubernetes' libraries"),
];

/// A flag as a program's help describes it.
#[derive(Debug)]
struct Flag {
    /// Of its value; empty for booleans.
    kind: String,
    /// None where it is empty, zero or false.
    default: Option<String>,
}

fn flags(program: &Path) -> BTreeMap<String, Flag> {
    let output = Command::new(program).arg("--help").output().unwrap();
    let help = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    help.lines().filter_map(flag).collect()
}

/// A line such as `  -v, --v Level    number for the log level (default 0)`.
fn flag(line: &str) -> Option<(String, Flag)> {
    let line = line.trim_start();
    let line = line.split_once(", ").filter(|(short, _)| short.len() == 2).map_or(line, |(_, long)| long);
    let (head, description) = line.strip_prefix("--")?.split_once("  ")?;
    let (name, kind) = head.split_once(' ').unwrap_or((head, ""));
    let default = description.rsplit_once("(default ").and_then(|(_, default)| default.strip_suffix(')'));
    let default = default.map(|default| default.trim_matches(['"', '[', ']']).to_owned());
    let default = default.filter(|default| !matches!(&**default, "" | "false" | "0" | "0s" | ":0" | "-1"));
    Some((name.to_owned(), Flag { kind: kind.to_owned(), default }))
}

/// Values of a kind that a manifest may hold.
fn samples<'a>(name: &str, flag: &'a Flag) -> Vec<&'a str> {
    match (name, &*flag.kind) {
        ("service-account-token-mode", _) => vec!["enforce-audience", "legacy"],
        ("zap-stacktrace-level", _) => vec!["info", "error", "panic"],
        ("metrics-service-address", _) => vec!["keda-operator.keda.svc.cluster.local:9666", "localhost:9666"],
        (name, "string") if name.ends_with("bind-address") => vec![":8082", "127.0.0.1:8082", "0.0.0.0:8082", "0"],
        (_, "") => vec!["true", "false", "1", "F"],
        (_, "int" | "uint" | "Level") => vec!["1", "7"],
        (_, "float32") => vec!["20", "7.5"],
        (_, "duration") => vec!["1m30s", "250ms"],
        (_, "ip") => vec!["0.0.0.0", "::"],
        (_, "severity") => vec!["ERROR", "2"],
        (_, "encoder") => vec!["json", "console"],
        (_, "level") => vec!["debug", "info", "error", "panic", "1", "5"],
        (_, "time-encoding") => vec!["epoch", "millis", "nano", "iso8601", "rfc3339", "rfc3339nano"],
        (_, "traceLocation") => vec!["main.go:1"],
        (_, "int32Slice") => vec!["29,23"],
        (_, "strings" | "stringArray") => vec!["a", "a,b"],
        (_, "namedCertKey" | "moduleSpec" | "string") => vec!["x", flag.default.as_deref().unwrap_or("y")],
        (_, other) => panic!("--{name} takes {other:?}, of which this test has no sample"),
    }
}

/// What is wrong with our command when it is given a flag in all the ways in which KEDA's program takes it.
fn refusals(command: &str, name: &str, flag: &Flag) -> Vec<String> {
    let mut ways: Vec<Vec<String>> = Vec::new();
    for value in samples(name, flag) {
        ways.push(vec![format!("--{name}={value}")]);
        if !flag.kind.is_empty() {
            ways.push(vec![format!("--{name}"), value.to_owned()]);
        }
    }
    if flag.kind.is_empty() {
        ways.push(vec![format!("--{name}")]);
    }
    // The last one counts.
    ways.push([ways[0].clone(), ways[0].clone()].concat());
    let partner = match name {
        "tls-cert-file" => Some("--tls-private-key-file=x"),
        "tls-private-key-file" => Some("--tls-cert-file=x"),
        _ => None,
    };
    ways.iter_mut().for_each(|way| way.extend(partner.map(str::to_owned)));
    let refusal = |way: &Vec<String>| {
        let arguments = ["tidemark", command].into_iter().chain(way.iter().map(String::as_str));
        let error = Cli::try_parse_from(arguments).err()?;
        Some(format!("{command} {}: {}", way.join(" "), error.to_string().lines().next().unwrap_or_default()))
    };
    ways.iter().filter_map(refusal).collect()
}

/// Ours by default.
fn our_default(command: &str, name: &str) -> String {
    let cli = Cli::command();
    let command = cli.find_subcommand(command).unwrap();
    let flag = command.get_arguments().find(|flag| flag.get_long() == Some(name)).unwrap();
    let values = flag.get_default_values().iter().map(|value| value.to_str().unwrap());
    values.collect::<Vec<_>>().join(",")
}

/// The same length of time, number or text.
fn same(keda: &str, ours: &str) -> bool {
    let length = |text: &str| tidemark_cli::process::environment::go_duration(text).ok();
    keda == ours || length(keda).is_some_and(|keda| Some(keda) == length(ours))
}

#[test]
fn every_flag_of_kedas_programs_is_taken_with_its_values_and_has_the_same_default() {
    let Some(folder) = programs() else { return };
    let (mut wrong, mut left_out, mut differing) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for (program, command) in PROGRAMS {
        let flags = flags(&folder.join(program));
        assert!(flags.len() > 20 && flags.contains_key("kubeconfig"), "{program}: {:?}", flags.keys());
        for (name, flag) in flags {
            if let Some((prefix, _)) = NOT_TAKEN.iter().find(|(prefix, _)| name.starts_with(prefix)) {
                left_out.insert(*prefix);
                continue;
            }
            let refusals = refusals(command, &name, &flag);
            let (taken, keda) = (refusals.is_empty(), flag.default.unwrap_or_default());
            wrong.extend(refusals);
            if !taken {
                continue;
            }
            let ours = our_default(command, &name);
            let known = OTHER_DEFAULTS.iter().find(|known| (known.0, known.1) == (program, &*name));
            match known {
                Some((program, name, default, _)) if ours == *default && ours != keda => {
                    differing.insert((*program, *name));
                }
                _ if same(&keda, &ours) || is_empty(&ours) && keda.is_empty() || has_no_effect(command, &name) => {}
                _ => wrong.push(format!("{command} --{name}: {ours:?} by default, and with KEDA {keda:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(left_out.len(), NOT_TAKEN.len(), "of these KEDA has none any more: {NOT_TAKEN:?}");
    let gone: Vec<_> = OTHER_DEFAULTS.iter().filter(|known| !differing.contains(&(known.0, known.1))).collect();
    assert!(gone.is_empty(), "these defaults no longer differ as listed: {gone:?}");
}

fn is_empty(ours: &str) -> bool {
    matches!(ours, "" | "false" | "0" | "0s" | "-1")
}

/// Whether ours accepts the flag for KEDA's sake alone, as its help does not show it: then the default is nothing.
fn has_no_effect(command: &str, name: &str) -> bool {
    let cli = Cli::command();
    let command = cli.find_subcommand(command).unwrap();
    command
        .get_arguments()
        .any(|flag| flag.get_long() == Some(name) && flag.is_hide_set() && flag.get_default_values().is_empty())
}

/// The variables whose names are in a program. Go puts its texts one behind the other, so that a name may be followed by
/// another one, or by the first letters of anything.
fn variables(program: &Path) -> BTreeSet<String> {
    let pattern = "(KEDA|WATCH|RAW_METRICS|POD_NAMESPACE)(_[A-Z0-9]+)*";
    let output = Command::new("grep").args(["-aoE", pattern]).arg(program).output().unwrap();
    let found = String::from_utf8(output.stdout).unwrap();
    let mut names = BTreeSet::new();
    for line in found.lines() {
        let mut rest = line;
        while let Some(at) = rest[1..].find("KEDA_") {
            names.insert(rest[..=at].to_owned());
            rest = &rest[at + 1..];
        }
        names.insert(rest.to_owned());
    }
    names.retain(|name| name.contains('_'));
    names
}

#[test]
fn every_variable_of_kedas_programs_is_read_or_told_to_be_without_effect() {
    let Some(folder) = programs() else { return };
    let found: BTreeSet<String> = PROGRAMS.iter().flat_map(|(program, _)| variables(&folder.join(program))).collect();
    let known = || VARIABLES.iter().copied().chain(UNREAD.iter().map(|(name, _)| *name));
    // Of two that begin alike the longer one is meant.
    let unknown: Vec<_> = found.iter().filter(|name| !known().any(|known| name.starts_with(known))).collect();
    assert!(unknown.is_empty(), "nobody knows these: {unknown:?}");
    let gone: Vec<_> = known().filter(|known| !found.iter().any(|name| name.starts_with(known))).collect();
    assert!(gone.is_empty(), "KEDA does not read these any more: {gone:?}");
    let sources = sources(Path::new("src"));
    for name in VARIABLES {
        // Those of the election differ in their last words alone.
        let written = name.strip_prefix("KEDA_OPERATOR_LEADER_ELECTION_").unwrap_or(name);
        assert!(sources.contains(&format!("\"{written}\"")), "nothing reads {name}");
    }
    for (name, _) in UNREAD {
        assert!(!sources.contains(&format!("\"{name}\"")), "{name} is read after all");
    }
}

fn sources(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: std::path::PathBuf| match path.is_dir() {
        true => sources(&path),
        false => std::fs::read_to_string(path).unwrap(),
    };
    entries.map(text).collect()
}
