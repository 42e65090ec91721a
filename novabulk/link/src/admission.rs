//! Who may call itself which host.

use core::cell::RefCell;
use std::collections::BTreeMap;

use nova_units::NodeId;
use novabulk_tls::PeerName;

/// Who is let in. That a certificate is of a CA of ours has been checked before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Hosts by the names in their certificates, all of one service: `novad` for data planes. Nobody else.
    Named {
        /// What must run there.
        service: &'static str,
        /// Names of the hosts.
        hosts: BTreeMap<NodeId, String>,
    },
    /// Whoever has a certificate; what number it gives itself says nothing.
    Anyone,
}

/// Shared by a link and its connections.
#[derive(Debug)]
pub(crate) struct Admission(RefCell<Admitted>);

impl Default for Admission {
    fn default() -> Self {
        Self(RefCell::new(Admitted::Named { service: "", hosts: BTreeMap::new() }))
    }
}

impl Admission {
    pub(crate) fn replace(&self, admitted: Admitted) {
        self.0.replace(admitted);
    }

    /// Whether the holder of this certificate may call itself `node`.
    pub(crate) fn admits(&self, node: NodeId, peer: &PeerName) -> bool {
        match &*self.0.borrow() {
            Admitted::Named { service, hosts } => {
                peer.service() == *service && hosts.get(&node).is_some_and(|name| name == peer.node())
            }
            Admitted::Anyone => true,
        }
    }
}
