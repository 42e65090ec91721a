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
pub(crate) struct Admission {
    admitted: RefCell<Admitted>,
    /// The newest reason why somebody was not let in, or not believed.
    refusal: RefCell<Option<String>>,
}

impl Default for Admission {
    fn default() -> Self {
        let nobody = Admitted::Named { service: "", hosts: BTreeMap::new() };
        Self { admitted: RefCell::new(nobody), refusal: RefCell::default() }
    }
}

impl Admission {
    pub(crate) fn replace(&self, admitted: Admitted) {
        self.admitted.replace(admitted);
    }

    pub(crate) fn note_refusal(&self, refusal: String) {
        self.refusal.replace(Some(refusal));
    }

    pub(crate) fn take_refusal(&self) -> Option<String> {
        self.refusal.take()
    }

    /// Whether the holder of this certificate may call itself `node`.
    pub(crate) fn admits(&self, node: NodeId, peer: &PeerName) -> bool {
        match &*self.admitted.borrow() {
            Admitted::Named { service, hosts } => {
                peer.service() == *service && hosts.get(&node).is_some_and(|name| name == peer.node())
            }
            Admitted::Anyone => true,
        }
    }
}
