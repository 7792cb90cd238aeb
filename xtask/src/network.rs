//! Loopback ports for the servers that tests start.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below what Linux hands out for outgoing connections and for listeners that leave the choice to it (from 32768 on,
/// unless an administrator said otherwise), so that nothing else takes such a port before the caller's server does.
const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;
/// How far apart two processes begin whose numbers follow each other.
const STRIDE: u32 = 127;

/// `N` different loopback TCP ports that nobody listens on at the moment of the call, and that no other call of this
/// process gets for a long time.
///
/// # Errors
/// Every port is taken.
pub fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    static USED: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(STRIDE);
    let mut ports = [0; N];
    for port in &mut ports {
        *port = (0..COUNT)
            .map(|_| FIRST + start.wrapping_add(USED.fetch_add(1, Ordering::Relaxed)) % COUNT)
            .map(|port| u16::try_from(port).expect("the range ends below 65536"))
            .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
            .ok_or(io::ErrorKind::AddrInUse)?;
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_from_each_other() {
        let mut ports = [free_ports::<8>().unwrap(), free_ports::<8>().unwrap()].concat();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 16);
    }

    #[test]
    fn no_port_is_one_that_the_system_hands_out() {
        let Ok(range) = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range") else { return };
        let first: u32 = range.split_whitespace().next().unwrap().parse().unwrap();
        assert!(first < 32_768 || FIRST + COUNT <= first, "{range}");
    }

    #[test]
    fn a_port_in_use_is_not_given() {
        let [port] = free_ports().unwrap();
        let next = TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1));
        assert!(next.is_err() || free_ports::<1>().unwrap() != [port + 1]);
    }
}
