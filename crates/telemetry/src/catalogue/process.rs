//! What every process tells of itself, under the names that programs for Kubernetes have for it.

use super::{Instrument, Metric, Source, What, label};

/// Whether this process leads.
pub static LEADER: Metric = Metric::counted(
    "leader_election_master_status",
    Instrument::Gauge,
    &[label(What::At(0), "name")],
    &[],
    "Whether this process holds the Lease of this name: 1 if so, else 0.",
);

/// Requests to the API server.
pub static REST_CLIENT_REQUESTS: Metric = Metric::counted(
    "rest_client_requests_total",
    Instrument::Counter,
    &[label(What::At(0), "code"), label(What::At(1), "method"), label(What::At(2), "host")],
    &[],
    "Requests to the API server by status code, method and host; `<error>` where no reply came.",
);

/// The end of the process' certificate.
pub static CERTIFICATE_EXPIRY: Metric = Metric::counted(
    "tidemark_certificate_expiry_timestamp_seconds",
    Instrument::Gauge,
    &[],
    &[],
    "When the certificate that this process shows expires, in seconds since 1970.",
);

/// Time on processors.
pub static CPU_SECONDS: Metric = usage(
    "process_cpu_seconds_total",
    Instrument::Counter,
    "Seconds that the process has spent on processors, in user and system mode together.",
    Source::Usage(|usage| usage.cpu_seconds),
);

/// When the process began.
pub static START_TIME: Metric = usage(
    "process_start_time_seconds",
    Instrument::Gauge,
    "When the process began, in seconds since 1970.",
    Source::Usage(|usage| usage.start_seconds),
);

/// Memory in use.
pub static RESIDENT_MEMORY: Metric = usage(
    "process_resident_memory_bytes",
    Instrument::Gauge,
    "Bytes of memory that the process occupies.",
    Source::Usage(|usage| usage.resident_bytes),
);

/// Address space in use.
pub static VIRTUAL_MEMORY: Metric = usage(
    "process_virtual_memory_bytes",
    Instrument::Gauge,
    "Bytes of address space that the process has reserved.",
    Source::Usage(|usage| usage.virtual_bytes),
);

/// Address space that may be in use.
pub static MAX_VIRTUAL_MEMORY: Metric = usage(
    "process_virtual_memory_max_bytes",
    Instrument::Gauge,
    "Bytes of address space that the process may reserve.",
    Source::Usage(|usage| usage.most_virtual_bytes),
);

/// Bytes from the network.
pub static RECEIVED: Metric = usage(
    "process_network_receive_bytes_total",
    Instrument::Counter,
    "Bytes that came over the network of the process, which is that of its whole pod.",
    Source::Usage(|usage| usage.received_bytes),
);

/// Bytes to the network.
pub static SENT: Metric = usage(
    "process_network_transmit_bytes_total",
    Instrument::Counter,
    "Bytes that went over the network of the process, which is that of its whole pod.",
    Source::Usage(|usage| usage.sent_bytes),
);

/// Files and connections that are open.
pub static OPEN_FDS: Metric = usage(
    "process_open_fds",
    Instrument::Gauge,
    "File descriptors that the process has open.",
    Source::Usage(|usage| usage.open_files),
);

/// Files and connections that may be open.
pub static MAX_FDS: Metric = usage(
    "process_max_fds",
    Instrument::Gauge,
    "File descriptors that the process may have open.",
    Source::Usage(|usage| usage.most_files),
);

const fn usage(name: &'static str, instrument: Instrument, help: &'static str, source: Source) -> Metric {
    Metric { prometheus: Some(name), otlp: &[], instrument, integer: false, help, labels: &[], bounds: &[], source }
}
