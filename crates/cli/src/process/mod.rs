//! What the processes of an installation have in common: flags and environment variables under KEDA's names, logs,
//! health, the way to the cluster, the way to an end.

pub mod bind;
pub mod cluster;
pub mod environment;
pub mod health;
pub mod idle;
pub mod logging;
pub mod metrics;
pub mod otlp;
pub mod run;

/// A boolean of a flag, in all the ways in which Go programs take one.
///
/// # Errors
/// It is none.
pub fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false is wanted".to_owned()),
    }
}
