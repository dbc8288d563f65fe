//! The command line of the echo servers.

use std::net::SocketAddr;

use clap::{Args, Parser, ValueEnum};

/// What every echo server here takes.
#[derive(Args, Clone, Debug)]
pub struct ServerOptions {
    /// Where to listen; port 0 picks a free one, told on stderr.
    #[arg(long, default_value = "127.0.0.1:7001")]
    pub addr: SocketAddr,
    /// The core that the only thread is pinned to.
    #[arg(long, default_value_t = 0)]
    pub core: usize,
    /// Bytes that one receive can bring.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub buffer_size: u32,
    /// Connections beyond this are closed as soon as they are accepted.
    #[arg(long, default_value_t = 16384)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_connections: u32,
    /// TCP congestion control; BBR, some machines' default, paces and so measures its own timers.
    #[arg(long, default_value = "reno")]
    pub congestion: String,
    /// Exit by itself after so many seconds.
    #[arg(long)]
    pub seconds: Option<u32>,
}

/// How bytes come in and go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormName {
    /// Single-shot receives from a few shared buffers; the reference.
    Select,
    /// Single-shot receives into a buffer per connection.
    Own,
    /// Multishot receives from shared buffers.
    Multishot,
}

/// The command line of `raw-echo`.
#[derive(Parser, Clone, Debug)]
#[command(version, about = "Hand-written io_uring echo server")]
pub struct RingServerOptions {
    /// What every server takes.
    #[command(flatten)]
    pub server: ServerOptions,
    /// How bytes come in and go out.
    #[arg(long, value_enum, default_value_t = FormName::Select)]
    pub form: FormName,
    /// Shared buffers (`select` and `multishot`).
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=32768))]
    pub buffers: u16,
    /// Bytes between one buffer's end and the next one's start, so that buffers whose size is a
    /// power of two don't all begin in the same cache set.
    #[arg(long, default_value_t = 0)]
    pub stride_pad: u32,
    /// Put the buffers on huge pages.
    #[arg(long)]
    pub huge: bool,
    /// Registered files instead of descriptors.
    #[arg(long)]
    pub direct: bool,
    /// Don't count the wait as waiting for I/O.
    #[arg(long)]
    pub no_iowait: bool,
    /// Submission queue entries.
    #[arg(long, default_value_t = 1024)]
    pub ring_entries: u32,
    /// Completion queue entries.
    #[arg(long, default_value_t = 4096)]
    pub cq_entries: u32,
}
