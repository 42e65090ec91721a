//! The controllers: the real slice [`nova_groups`], asked once for every state of the group and every command.
//!
//! [`Control`] is what of the slice can make a difference here. The slice that a command is applied to is made of
//! nothing else, so what it does is a function of it, and is remembered. Left out are
//!
//! - the clock, waits after repeated drops, and since when a group is short: only the plan looks at them, and the model
//!   tries every command at every moment;
//! - homes: they say which members leave when a group has too many, which it never has without a move, and whom the
//!   plan lets join, and here any host may;
//! - members of the last writable epoch whose device has another life since: no command brings them back, and a device
//!   never gets an old life again;
//! - the numbers of lives, starts and mounts: they are compared with the newest of the same host only.
//!
//! The slice prefers the lowest node when it needs a primary. Here hosts have no order: every outcome that it has in some
//! order of the nodes may happen. That is more than can happen in any one region, so nothing is missed, and it
//! makes all hosts alike.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::rc::Rc;

use nova_groups::{
    AddJoining, Admit, Command, ConfirmGroup, CreateGroups, Device, DeviceState, Drop, DropMembers, Group,
    Groups, Joining, Member, Mount, MovePrimary, NewGroup, Op, Outcome, Reinstate, ReinstateGroup, Restart,
    Role,
};
use nova_units::{BootId, DeviceId, Epoch, GroupId, Incarnation, MountNonce, NodeId, Replicas};

use crate::fingerprint::Mix;
use crate::host_set::{HOSTS, HostSet};

/// The one group.
const GROUP: GroupId = GroupId(1);
/// The counter of the mount that the controllers know, of every device. Here a later one is always above it, as if an image
/// had started again and again: only the trail tells.
const COUNTER: u64 = 10;
/// That mount, and two others.
const MOUNT: u64 = 100;
const OTHER_MOUNT: u64 = 101;
const NEWEST_MOUNT: u64 = 102;
/// The start that they know, of every host.
const BOOT: u64 = 1;

/// The group as the controllers have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Control {
    pub(crate) epoch: u8,
    pub(crate) primary: u8,
    pub(crate) in_sync: HostSet,
    pub(crate) joining: HostSet,
    /// Members whose device has another life since.
    pub(crate) over: HostSet,
    /// In-sync members of the last epoch that took writes, with the life that they have now.
    pub(crate) writable: HostSet,
}

impl Control {
    pub(crate) fn members(self) -> HostSet {
        self.in_sync.with(self.joining)
    }
}

/// What the controllers may decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Decision {
    /// Take the mounts of these hosts, and confirm some of them.
    Take {
        hosts: HostSet,
        claims: Claims,
        confirm: HostSet,
    },
    Drop(usize),
    Lead(usize),
    Join(usize),
    Admit(usize),
    BringBack(HostSet),
}

/// What hosts say of their devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Claims {
    /// The trail names the mount that they know.
    pub(crate) traced: HostSet,
    /// The life is not the one that they know.
    pub(crate) past: HostSet,
}

/// What came of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Decided {
    pub(crate) control: Control,
    pub(crate) accepted: bool,
    /// Devices that begin another life.
    pub(crate) reborn: HostSet,
}

/// Which node each host is.
pub(crate) type Order = [u8; HOSTS];

/// Every order of the hosts.
pub(crate) fn orders() -> Vec<Order> {
    let mut orders = Vec::new();
    for code in 0..=u8::MAX {
        let order = [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6];
        if order.iter().fold(0u8, |seen, node| seen | 1 << node) == 0xf {
            orders.push(order);
        }
    }
    orders.sort_unstable();
    orders
}

/// Everything that may come of each decision, as far as it was asked.
type Known = HashMap<(Control, Decision), Rc<[Decided]>, BuildHasherDefault<Mix>>;

/// The slice, and what it is known to decide.
#[derive(Debug)]
pub(crate) struct Controllers {
    replicas: u8,
    orders: Vec<Order>,
    known: RefCell<Known>,
}

impl Controllers {
    /// Of a group of so many; `alike` when every order of nodes is tried.
    pub(crate) fn new(replicas: u8, alike: bool) -> Self {
        let mut orders = orders();
        if !alike {
            orders.truncate(1);
        }
        Self { replicas, orders, known: RefCell::default() }
    }

    /// The group when it was just made: of the first hosts, and the first of all is its primary.
    pub(crate) fn first(&self) -> Control {
        project(&self.made(), self.orders[0])
    }

    fn made(&self) -> Groups {
        let mut groups = Groups::default();
        let order = self.orders[0];
        let mount = |host: usize| Mount {
            node: node(order, host).0,
            boot: BOOT,
            device: device(host).0.to_be_bytes().to_vec(),
            mount_counter: 1,
            incarnation: 0,
            bytes_total: 1,
            trail: vec![MOUNT],
        };
        let mounts = (0..HOSTS).map(mount).collect();
        groups.apply(&command(Op::Restart(Restart { mounts, confirm: Vec::new() })));
        let members = (0..self.replicas.into()).map(|host| node(order, host).0).collect();
        let group = NewGroup { nodes: members, primary: node(order, 0).0 };
        let create = CreateGroups { namespace: String::new(), groups: vec![group] };
        assert!(groups.apply(&command(Op::CreateGroups(create))).accepted(), "a group of hosts that serve");
        groups
    }

    /// Everything that may come of a decision.
    pub(crate) fn decide(&self, control: Control, decision: Decision) -> Rc<[Decided]> {
        if let Some(known) = self.known.borrow().get(&(control, decision)) {
            return Rc::clone(known);
        }
        let mut all: Vec<Decided> =
            self.orders.iter().map(|order| self.decide_in(*order, control, decision)).collect();
        all.sort_unstable();
        all.dedup();
        let all: Rc<[Decided]> = all.into();
        self.known.borrow_mut().insert((control, decision), Rc::clone(&all));
        all
    }

    fn decide_in(&self, order: Order, control: Control, decision: Decision) -> Decided {
        let mut groups = self.slice(order, control);
        let answer = groups.apply(&command(op(order, control, decision)));
        let wiped = answer.incarnated.iter().filter(|taken| taken.wipe);
        Decided {
            control: project(&groups, order),
            accepted: answer.refused.is_none()
                && answer.groups.iter().all(|(_, outcome)| matches!(outcome, Outcome::Changed(_))),
            reborn: wiped.map(|taken| host_of(order, taken.node)).collect(),
        }
    }

    /// The slice in which exactly this is so.
    fn slice(&self, order: Order, control: Control) -> Groups {
        let devices = (0..HOSTS).map(|host| {
            let known = Device {
                node: node(order, host),
                mount_counter: COUNTER,
                mount: MountNonce(MOUNT),
                incarnation: life(host, false),
                bytes_total: 1,
                state: DeviceState::Mounted { boot: BootId(BOOT) },
                slow: None,
            };
            (device(host), known)
        });
        let replica = |host: usize| (node(order, host), life(host, control.over.contains(host)));
        let member = |host: usize, role| Member { node: replica(host).0, incarnation: replica(host).1, role };
        let mut members: Vec<Member> = control
            .in_sync
            .iter()
            .map(|host| member(host, Role::InSync))
            .chain(control.joining.iter().map(|host| member(host, Role::Joining)))
            .collect();
        members.sort_by_key(|member| member.node);
        let mut last_writable: Vec<_> =
            control.writable.iter().map(|host| (node(order, host), life(host, false))).collect();
        last_writable.sort();
        let group = Group {
            namespace: String::new(),
            replicas: Replicas::new(self.replicas.into()).expect("bounds have two to four"),
            epoch: Epoch(control.epoch.into()),
            primary: node(order, control.primary.into()),
            homes: members.iter().map(|member| (member.node, member.incarnation)).collect(),
            members,
            last_writable,
            short_since: None,
        };
        Groups::at_rest(devices, [(GROUP, group)])
    }
}

fn command(op: Op) -> Command {
    Command { at_ms: 0, op: Some(op) }
}

fn op(order: Order, control: Control, decision: Decision) -> Op {
    let (group, epoch) = (GROUP.0, u64::from(control.epoch));
    let nodes = |hosts: HostSet| hosts.iter().map(|host| node(order, host).0).collect::<Vec<_>>();
    let joining = |host: usize| Joining { group, epoch, node: node(order, host).0, replaces: 0 };
    match decision {
        Decision::Take { hosts, claims, confirm } => {
            let confirm = ConfirmGroup { group, epoch, nodes: nodes(confirm) };
            let mounts = hosts.iter().map(|host| mount(order, host, claims)).collect();
            Op::Restart(Restart {
                mounts,
                confirm: if confirm.nodes.is_empty() { Vec::new() } else { vec![confirm] },
            })
        }
        Decision::Drop(host) => {
            let drop = DropMembers { group, epoch, nodes: nodes(HostSet::of(host)) };
            Op::Drop(Drop { groups: vec![drop], rebuilt: false })
        }
        Decision::Lead(host) => Op::MovePrimary(MovePrimary { groups: vec![joining(host)] }),
        Decision::Join(host) => Op::AddJoining(AddJoining { groups: vec![joining(host)] }),
        Decision::Admit(host) => Op::Admit(Admit { groups: vec![joining(host)] }),
        Decision::BringBack(hosts) => {
            let back = ReinstateGroup { group, epoch, nodes: nodes(hosts) };
            Op::Reinstate(Reinstate { groups: vec![back] })
        }
    }
}

/// A mount under a start that the controllers do not know.
fn mount(order: Order, host: usize, claims: Claims) -> Mount {
    Mount {
        node: node(order, host).0,
        boot: BOOT + 1,
        device: device(host).0.to_be_bytes().to_vec(),
        mount_counter: COUNTER + 1,
        incarnation: life(host, claims.past.contains(host)).0,
        bytes_total: 1,
        trail: vec![if claims.traced.contains(host) { MOUNT } else { OTHER_MOUNT }, NEWEST_MOUNT],
    }
}

/// What of the slice can make a difference.
fn project(groups: &Groups, order: Order) -> Control {
    let group = groups.group(GROUP).expect("it is never removed");
    let with = |role: Role| group.members.iter().filter(move |member| member.role == role);
    let host = |member: &Member| host_of(order, member.node);
    let serves = |node: NodeId, life: Incarnation| groups.device(node, life).is_some();
    let over = group.members.iter().filter(|member| !serves(member.node, member.incarnation));
    let writable = group.last_writable.iter().filter(|(node, life)| serves(*node, *life));
    Control {
        epoch: u8::try_from(group.epoch.0).expect("bounds have few epochs"),
        primary: u8::try_from(host_of(order, group.primary)).expect("one of four hosts"),
        in_sync: with(Role::InSync).map(host).collect(),
        joining: with(Role::Joining).map(host).collect(),
        over: over.map(host).collect(),
        writable: writable.map(|(node, _)| host_of(order, *node)).collect(),
    }
}

fn node(order: Order, host: usize) -> NodeId {
    NodeId(u64::from(order[host]) + 1)
}

fn host_of(order: Order, node: NodeId) -> usize {
    order.iter().position(|it| u64::from(*it) + 1 == node.0).expect("one of four hosts")
}

fn device(host: usize) -> DeviceId {
    DeviceId(host as u128 + 1)
}

/// The life that the controllers know of a device, or one before it.
fn life(host: usize, past: bool) -> Incarnation {
    Incarnation(10 * (host as u64 + 1) - u64::from(past))
}

/// A slice that is never made anew: what [`Controllers`] must decide like.
#[cfg(test)]
pub(crate) struct Lived(Groups);

#[cfg(test)]
impl Controllers {
    pub(crate) fn lived(&self) -> Lived {
        Lived(self.made())
    }
}

#[cfg(test)]
impl Lived {
    const NAMES: Order = [0, 1, 2, 3];

    pub(crate) fn control(&self) -> Control {
        project(&self.0, Self::NAMES)
    }

    /// The device, as it knows it.
    pub(crate) fn device(&self, host: usize) -> &Device {
        let known = self.0.devices().find(|(id, _)| *id == device(host));
        known.map(|(_, known)| known).expect("it was mounted")
    }

    /// A mount of it, of which everything else is to be said.
    pub(crate) fn mount(host: usize) -> Mount {
        mount(Self::NAMES, host, Claims::default())
    }

    pub(crate) fn decide(&mut self, control: Control, decision: Decision) {
        self.0.apply(&command(op(Self::NAMES, control, decision)));
    }

    /// Takes mounts; answers whose devices begin another life.
    pub(crate) fn restart(&mut self, control: Control, mounts: Vec<Mount>, confirm: HostSet) -> HostSet {
        let take = Decision::Take { hosts: HostSet::default(), claims: Claims::default(), confirm };
        let Op::Restart(mut restart) = op(Self::NAMES, control, take) else { unreachable!("a restart") };
        restart.mounts = mounts;
        let answer = self.0.apply(&command(Op::Restart(restart)));
        answer.incarnated.iter().filter(|it| it.wipe).map(|it| host_of(Self::NAMES, it.node)).collect()
    }
}
