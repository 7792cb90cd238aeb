//! What the process uses of the machine.

use std::path::Path;

/// What the process uses; none of what the system does not tell. Only Linux tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Seconds on processors, in user and system mode together.
    pub cpu_seconds: Option<f64>,
    /// When the process began, in seconds since 1970.
    pub start_seconds: Option<f64>,
    pub resident_bytes: Option<f64>,
    pub virtual_bytes: Option<f64>,
    /// File descriptors that are open.
    pub open_files: Option<f64>,
    /// File descriptors that may be open.
    pub most_files: Option<f64>,
    /// Address space that may be reserved: as much as fits into 64 bits where there is no limit.
    pub most_virtual_bytes: Option<f64>,
    /// Bytes that came over the network of the process, which is that of its whole pod.
    pub received_bytes: Option<f64>,
    /// Bytes that went over it.
    pub sent_bytes: Option<f64>,
}

impl Usage {
    /// As it is now. A handful of small reads of `/proc`.
    pub fn now() -> Self {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (stat, system) = (read("/proc/self/stat"), read("/proc/stat"));
        let boot = system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        let stat = Stat::of(&stat);
        let (limits, network) = (read("/proc/self/limits"), read("/proc/self/net/netstat"));
        Self {
            cpu_seconds: stat.as_ref().map(|stat| stat.processor_ticks / ticks),
            start_seconds: stat.as_ref().zip(boot).map(|(stat, boot)| boot + stat.start_ticks / ticks),
            resident_bytes: stat.as_ref().map(|stat| stat.resident_pages * rustix::param::page_size() as f64),
            virtual_bytes: stat.as_ref().map(|stat| stat.virtual_bytes),
            open_files: open_files(),
            most_files: limit(&limits, "Max open files"),
            most_virtual_bytes: limit(&limits, "Max address space").map(|limit| limit.min(u64::MAX as f64)),
            received_bytes: octets(&network, "InOctets"),
            sent_bytes: octets(&network, "OutOctets"),
        }
    }
}

/// Fields of `/proc/PID/stat`, as proc(5) numbers them.
struct Stat {
    processor_ticks: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    fn of(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        Some(Self {
            processor_ticks: number(14)? + number(15)?,
            start_ticks: number(22)?,
            virtual_bytes: number(23)?,
            resident_pages: number(24)?,
        })
    }
}

fn open_files() -> Option<f64> {
    // One of them is that of the folder which is being read.
    let count = std::fs::read_dir(Path::new("/proc/self/fd")).ok()?.count();
    Some(count.saturating_sub(1) as f64)
}

/// A soft limit; endless where there is none.
fn limit(limits: &str, name: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}

/// A number of the extended statistics of IP, which stand in a line of names and in one of numbers.
fn octets(statistics: &str, name: &str) -> Option<f64> {
    let mut lines = statistics.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let place = names.split_whitespace().position(|found| found == name)?;
    numbers.split_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_moves_no_field() {
        let text = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 12345 4096000 300 1844";
        let stat = Stat::of(text).unwrap();
        assert_eq!((stat.processor_ticks, stat.start_ticks), (300.0, 12345.0));
        assert_eq!((stat.virtual_bytes, stat.resident_pages), (4_096_000.0, 300.0));
        assert!(Stat::of("").is_none());
    }

    #[test]
    fn a_limit_may_be_none() {
        let limits =
            |soft: &str| format!("Limit  Soft Limit  Hard Limit  Units\nMax open files            {soft}  4  files\n");
        assert_eq!(limit(&limits("1024"), "Max open files"), Some(1024.0));
        assert_eq!(limit(&limits("unlimited"), "Max open files"), Some(f64::INFINITY));
        assert_eq!(limit("", "Max open files"), None);
    }

    #[test]
    fn what_came_and_went_over_the_network_is_found_by_name() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 160 136\n";
        assert_eq!((octets(text, "InOctets"), octets(text, "OutOctets")), (Some(160.0), Some(136.0)));
        assert_eq!((octets(text, "A"), octets("", "InOctets")), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_runs_and_has_files_open() {
        let usage = Usage::now();
        assert!(usage.resident_bytes.unwrap() > 100_000.0 && usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.open_files.unwrap() >= 1.0 && usage.most_files >= usage.open_files);
        let now = tidemark_clock::Clock::system().now().as_second() as f64;
        let age = now - usage.start_seconds.unwrap();
        assert!((-2.0..3600.0).contains(&age), "{age}");
        assert!(usage.cpu_seconds.unwrap() >= 0.0);
        assert!(usage.most_virtual_bytes >= usage.virtual_bytes);
        assert!(usage.received_bytes.is_some() && usage.sent_bytes.is_some());
    }
}
