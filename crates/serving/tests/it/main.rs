//! The link between operator and metrics server over real sockets, and against peers that are not ours.

mod link;
mod peers;
