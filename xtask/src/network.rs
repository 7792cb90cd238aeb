//! Loopback ports for the servers that tests start.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// `N` different loopback TCP ports that nobody listens on at the moment of the call.
///
/// Nothing reserves them: a caller whose server fails to bind asks again.
///
/// # Errors
/// When the system has no free port left.
pub fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    #[test]
    fn free_ports_differ_from_each_other() {
        let mut ports = super::free_ports::<8>().unwrap().to_vec();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
    }
}
