//! Real servers for the tests of triggers, each on loopback ports and a scratch directory of its own.
//!
//! A new server is a module with a `start` function and one line in [`SERVICES`].

pub mod collector;
mod debian;
mod external_scaler;
mod go_program;
pub mod keda;
mod postgresql;
pub mod prometheus;
pub(crate) mod rabbitmq;
mod redis;

use std::time::Duration;
use std::{io, thread};

use anyhow::{Context, Result, bail};

use crate::process_group::ProcessGroup;

/// A server that tests need.
struct Service {
    name: &'static str,
    start: fn() -> Result<Running>,
    /// It is started only where it is asked for by its name.
    on_demand: bool,
}

const SERVICES: &[Service] = &[
    Service { name: "collector", start: collector::start, on_demand: true },
    Service { name: "external-scaler", start: external_scaler::start, on_demand: false },
    Service { name: "postgresql", start: postgresql::start, on_demand: false },
    Service { name: "prometheus", start: prometheus::start, on_demand: false },
    Service { name: "rabbitmq", start: rabbitmq::start, on_demand: false },
    Service { name: "redis", start: redis::start, on_demand: false },
];

/// A server that is up. It and everything it wrote are gone when this is dropped or this process ends.
pub struct Running {
    /// What tests read from their environment to find the server.
    pub variables: Vec<(&'static str, String)>,
    group: ProcessGroup,
}

impl Running {
    /// One of the variables.
    ///
    /// # Errors
    /// When the service has no such variable.
    pub fn variable(&self, name: &str) -> Result<&str> {
        let found = self.variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| &**value).with_context(|| format!("the service has no {name}"))
    }

    /// # Errors
    /// When one of the server's processes has ended by itself, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        fail_if_ended(&mut self.group)
    }
}

/// Starts every service but those on demand, or those named.
///
/// # Errors
/// When a name is unknown, or a server is neither installed nor installable, or does not come up.
pub fn start(names: &[String]) -> Result<Vec<Running>> {
    if let Some(unknown) = names.iter().find(|name| SERVICES.iter().all(|service| service.name != *name)) {
        let known: Vec<_> = SERVICES.iter().map(|service| service.name).collect();
        bail!("there is no service {unknown:?}; there are: {}", known.join(", "));
    }
    SERVICES
        .iter()
        .filter(|service| match names {
            [] => !service.on_demand,
            names => names.iter().any(|name| name == service.name),
        })
        .map(|service| (service.start)().with_context(|| format!("service {}", service.name)))
        .collect()
}

/// `cargo xtask services`: starts them, prints their addresses as shell exports and stays until it is interrupted.
///
/// # Errors
/// Those of [`start`], and when a server ends by itself.
pub fn run(names: &[String]) -> Result<()> {
    let mut running = start(names)?;
    for (name, value) in running.iter().flat_map(|service| &service.variables) {
        println!("export {name}='{value}'");
    }
    eprintln!("running until Ctrl-C");
    loop {
        // An interrupt simply ends this process: the groups' sweepers see the pipe close and clear everything away.
        thread::sleep(Duration::from_secs(1));
        for service in &mut running {
            service.check()?;
        }
    }
}

/// Polls `ready` until it says yes, at most `limit`.
fn wait_until_ready(group: &mut ProcessGroup, limit: Duration, ready: impl Fn() -> io::Result<bool>) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(100);
    let mut last = String::from("no answer");
    for _ in 0..limit.as_millis() / PAUSE.as_millis() {
        fail_if_ended(group)?;
        match ready() {
            Ok(true) => return Ok(()),
            Ok(false) => last = "it answers, but is not ready".into(),
            Err(error) => last = error.to_string(),
        }
        thread::sleep(PAUSE);
    }
    bail!("not ready within {} s: {last}", limit.as_secs())
}

fn fail_if_ended(group: &mut ProcessGroup) -> Result<()> {
    if let Some((name, status)) = group.ended()? {
        bail!("{name} ended ({status}). Its last lines:\n{}", group.log_tail(&name, 20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_unknown_service_is_refused_with_the_known_ones() {
        let Err(error) = super::start(&["rabbit".into()]) else { panic!("accepted") };
        let error = error.to_string();
        assert!(error.starts_with(r#"there is no service "rabbit"; there are: "#), "{error}");
        assert!(super::SERVICES.iter().all(|service| error.contains(service.name)), "{error}");
    }
}
