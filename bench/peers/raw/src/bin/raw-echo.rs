//! `raw-echo`: the io_uring echo server.

use std::io;

use clap::Parser;
use raw_peers::multishot::Multishot;
use raw_peers::net;
use raw_peers::options::{FormName, RingServerOptions};
use raw_peers::own::Own;
use raw_peers::select::Select;
use raw_peers::serve::serve;
use raw_peers::signals::Signals;

fn main() -> io::Result<()> {
    let options = RingServerOptions::parse();
    let server = &options.server;
    net::pin(server.core)?;
    let signals = Signals::open(server.seconds)?;
    let listener = net::listen(server.addr, &server.congestion)?;
    net::announce(&listener)?;
    match options.form {
        FormName::Select => serve::<Select>(&options, &listener, &signals),
        FormName::Own => serve::<Own>(&options, &listener, &signals),
        FormName::Multishot => serve::<Multishot>(&options, &listener, &signals),
    }
}
