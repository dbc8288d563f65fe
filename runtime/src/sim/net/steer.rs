//! Listeners that share a port, in their positions, and the table that chooses among them by CPU.
//!
//! Owns [`Sharing`]: as Linux has it, `listen(2)` appends and the last one moves into the place of one that
//! leaves. The CPU that a connection arrives on is made up of the client's port.

use std::net::SocketAddr;

use super::listener::Listener;
use super::socket::Phase;
use super::{HostId, SockId};
use crate::sim::state::State;

/// CPUs on which connections arrive.
const CPUS: usize = 16;

/// The listeners of one address.
#[derive(Default)]
pub(super) struct Sharing {
    order: Vec<SockId>,
    table: Vec<(usize, u32)>,
}

impl State {
    pub(super) fn join_sharing(&mut self, id: SockId) {
        let Some(key) = self.sharing_of(id) else { return };
        self.net.shared.entry(key).or_default().order.push(id);
    }

    /// To be called while it still has its address.
    pub(super) fn leave_sharing(&mut self, id: SockId) {
        let Some(key) = self.sharing_of(id) else { return };
        let Some(sharing) = self.net.shared.get_mut(&key) else { return };
        if let Some(position) = sharing.order.iter().position(|other| *other == id) {
            sharing.order.swap_remove(position);
        }
        if sharing.order.is_empty() {
            self.net.shared.remove(&key);
        }
    }

    /// SO_ATTACH_REUSEPORT_CBPF with such a table, or without one SO_DETACH_REUSEPORT_BPF: 0 or an errno.
    pub(in crate::sim) fn steer(&mut self, id: SockId, table: &[(usize, u32)]) -> i32 {
        let sharing = self.sharing_of(id).and_then(|key| self.net.shared.get_mut(&key));
        match sharing {
            Some(sharing) if sharing.order.contains(&id) => {
                sharing.table = table.to_vec();
                0
            }
            _ => libc::EINVAL,
        }
    }

    /// Which of these, which listen on one address, the table chooses; none without one, or if it names
    /// nobody.
    pub(super) fn steered(&self, among: &[SockId], from: Option<SocketAddr>) -> Option<SockId> {
        let sharing = self.net.shared.get(&self.sharing_of(*among.first()?)?)?;
        let cpu = usize::from(from?.port()) % CPUS;
        let others = || sharing.table.get(cpu.checked_rem(sharing.table.len())?);
        let named = sharing.table.iter().find(|(named, _)| *named == cpu).or_else(others);
        let position = usize::try_from(named?.1).ok()?;
        sharing.order.get(position).copied().filter(|id| among.contains(id))
    }

    fn sharing_of(&self, id: SockId) -> Option<(HostId, SocketAddr)> {
        let socket = self.net.socks.get(&id)?;
        let listens = matches!(socket.phase, Phase::Listening(Listener { .. }));
        (listens && socket.reuse_port).then_some((socket.host, socket.local?))
    }
}
