//! What a storage host tells the controllers.

use nova_units::{BlockId, BootId, Epoch, GroupId, Incarnation, NodeId, UnitIndex};

/// Something the controllers decide on. Repeated every 100 ms until the configuration has answered it, except
/// [`Report::PageRepaired`], which is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A peer did not answer for a second, or answered without keeping up for three. Or the reporter's own device has
    /// answered nothing for three.
    Silence {
        /// The silent host; the reporter itself when it speaks of its own device.
        peer: NodeId,
        /// Its start that is silent, as far as it is known.
        boot: Option<BootId>,
        /// The life of the device that does not keep up, when the host itself answers and its other devices may well
        /// keep up.
        device: Option<Incarnation>,
        /// Groups shared with it, in the reporter's epochs.
        groups: Vec<(GroupId, Epoch)>,
        /// Hosts that the reporter does hear: its links.
        hears: Vec<NodeId>,
    },
    /// A joiner holds everything, durably. From here on the reporter, its primary, commits nothing without it.
    JoinReady {
        /// Group.
        group: GroupId,
        /// Epoch in which it joined.
        epoch: Epoch,
        /// Host of the joiner.
        node: NodeId,
    },
    /// The reporter's device failed: drop it from every group.
    DeviceFailed,
    /// A bad copy was found by a read and written anew from a peer's.
    PageRepaired {
        /// Group.
        group: GroupId,
        /// Block.
        block: BlockId,
        /// Unit.
        unit: UnitIndex,
    },
}
