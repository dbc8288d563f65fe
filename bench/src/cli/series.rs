//! Flags of whatever runs servers and generators in blocks: where, and in which order.

/// Where a series runs.
#[derive(clap::Args, Clone, Debug)]
pub struct SeriesArgs {
    /// Where the orders come from; default: a new one, which is told
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// CPU of the servers, and of work in process; default: the first one allowed
    #[arg(long, value_name = "CPU")]
    pub server_core: Option<usize>,
    /// CPU of the generator; default: the second one allowed
    #[arg(long, value_name = "CPU")]
    pub load_core: Option<usize>,
    /// Use the machine's own network, not a private one (which only root can make)
    #[arg(long)]
    pub no_namespace: bool,
}
