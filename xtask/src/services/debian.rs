//! Installing a Debian package where the machine lacks a server.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};

/// Installs `package` with apt-get, as root on a Debian-like system.
///
/// # Errors
/// With what to do by hand when this user or system cannot install it, and when apt-get fails twice.
pub fn install(package: &str) -> Result<()> {
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let by_hand = format!("install the package {package} (Debian, Ubuntu: sudo apt-get install {package})");
    ensure!(Path::new("/usr/bin/apt-get").exists(), "it is not installed, and this is no Debian system: {by_hand}");
    ensure!(root, "it is not installed, and only root could do that: {by_hand}");
    eprintln!("installing {package} ...");
    // The lists on a new machine are empty or old, and a mirror may fail once.
    for _ in 0..2 {
        if apt_get(&["update", "-qq"])? && apt_get(&["install", "-qq", "-y", "--no-install-recommends", package])? {
            return Ok(());
        }
    }
    bail!("apt-get could not install {package}; its messages are above")
}

fn apt_get(arguments: &[&str]) -> Result<bool> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Without systemd this keeps the package from starting its system-wide service, which nobody here wants.
        .env("RUNLEVEL", "1")
        .stdin(Stdio::null())
        // What this process prints is the addresses of the services; a package's chatter belongs beside the errors.
        .stdout(std::io::stderr())
        .status()?;
    Ok(status.success())
}
