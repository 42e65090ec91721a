//! What the controllers decided: which groups exist, who is in them, and who may serve.

use std::collections::BTreeMap;
use std::time::Duration;

use nova_units::{BootId, Epoch, GroupId, Incarnation, NodeId, PeerAddr, Replicas};

/// Fewest in-sync members that may acknowledge a write (design: NovaFS protocol 3, step 5).
pub const IN_SYNC_MIN: usize = Replicas::MIN.count();

/// One version of the controllers' decisions, as a storage host or an edge sees them.
///
/// A daemon makes it from the snapshot in its ring. Older versions than the one in use are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Grows with every change.
    pub version: u64,
    /// The host this copy was made for.
    pub self_node: NodeId,
    /// Every host that is a member of some group here.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// The groups, by id.
    pub groups: BTreeMap<GroupId, GroupView>,
    /// The incarnation under which the controllers know this host's device; `None` until they answered its registration.
    /// A host serves nothing before it has been confirmed.
    pub confirmed: Option<Incarnation>,
    /// Until when, on this host's clock since boot, a lone survivor may serve reads (design: control 2.9).
    pub node_lease_until: Duration,
}

/// What is known about a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// The start of its daemon that is registered, if any is.
    pub boot: Option<BootId>,
    /// Where its shard listens, if it does.
    pub addr: Option<PeerAddr>,
}

/// A replica group in one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Raised by every change of the members, their roles or the primary.
    pub epoch: Epoch,
    /// The member that orders writes.
    pub primary: NodeId,
    /// How many members it has when it is whole.
    pub replicas: Replicas,
    /// In-sync and joining members.
    pub members: Vec<MemberView>,
    /// True while too few members are in sync to acknowledge a write.
    pub frozen: bool,
    /// Hosts that are no members now and may hold what members held. Nothing is believed of them but bytes of a version
    /// whose digest is known here.
    pub former: Vec<NodeId>,
}

/// A member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Its host.
    pub node: NodeId,
    /// The life of the device it was given the role with; another life of the same host is not this member.
    pub incarnation: Incarnation,
    /// What it may do.
    pub role: Role,
}

/// What a member of a group may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Holds everything committed; acknowledges and serves reads.
    InSync,
    /// Is being filled; neither counts nor serves.
    Joining,
}

impl Configuration {
    /// The group, when it is known.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&GroupView> {
        self.groups.get(&group)
    }

    /// Where a host listens, when that is known.
    #[must_use]
    pub fn addr(&self, node: NodeId) -> Option<PeerAddr> {
        self.nodes.get(&node).and_then(|view| view.addr)
    }
}

impl GroupView {
    /// The member on this host, if there is one.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&MemberView> {
        self.members.iter().find(|member| member.node == node)
    }

    /// Hosts whose members are in sync.
    pub fn in_sync(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.with_role(Role::InSync)
    }

    /// Hosts whose members are being filled.
    pub fn joining(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.with_role(Role::Joining)
    }

    /// Whether a write can be acknowledged in this epoch.
    #[must_use]
    pub fn writable(&self) -> bool {
        !self.frozen && self.in_sync().count() >= IN_SYNC_MIN
    }

    fn with_role(&self, role: Role) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(move |member| member.role == role).map(|member| member.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(roles: &[Role], frozen: bool) -> GroupView {
        let members = (1..).zip(roles).map(|(node, &role)| MemberView {
            node: NodeId(node),
            incarnation: Incarnation(1),
            role,
        });
        GroupView {
            epoch: Epoch(3),
            primary: NodeId(1),
            replicas: Replicas::DEFAULT,
            members: members.collect(),
            frozen,
            former: Vec::new(),
        }
    }

    #[test]
    fn a_lone_survivor_with_a_joiner_is_not_writable() {
        assert!(!view(&[Role::InSync, Role::Joining], false).writable());
        assert!(view(&[Role::InSync, Role::InSync], false).writable());
        assert!(!view(&[Role::InSync, Role::InSync], true).writable(), "the controllers have the last word");
    }
}
