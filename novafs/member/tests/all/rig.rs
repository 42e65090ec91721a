//! Three storage hosts of one group, and somebody who asks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::{HostOptions, MemDisk, MemShard, World};
use nova_device::sync::oneshot;
use nova_device::{Handler, Incoming, PeerError, Peers, Reply, Request, Shard};
use nova_units::{
    BlockId, BootId, DeviceId, DiskIndex, Epoch, Generation, GroupId, Incarnation, NodeId, Priority,
    Replicas, TaskClass, UnitIndex,
};
use novafs_format::seal::{BlockKey, DomainKey};
use novafs_format::{LogEntry, PAGE, SealedUnit};
use novafs_member::{Member, MemberOptions, ScrubOptions, Service};
use novafs_replica::{Answer, Configuration, GroupView, MemberView, Message, NodeView, Role};
use novafs_store::{FormatOptions, OpenOptions, Store};

pub(crate) const GROUP: GroupId = GroupId(1);
pub(crate) const BLOCK: BlockId = BlockId::new(0, 5);
pub(crate) const EPOCH: Epoch = Epoch(1);
const DISK: DiskIndex = DiskIndex(0);
const DISK_BYTES: u64 = 32 << 20;
const EDGE: NodeId = NodeId(9);

type Hosts = Rc<RefCell<BTreeMap<NodeId, (MemShard, Service<MemShard, Wires>)>>>;

/// Calls that arrive at once and whole.
#[derive(Clone, Debug)]
pub(crate) struct Wires {
    hosts: Hosts,
    me: NodeId,
    shard: MemShard,
    /// Of bodies that this host sends: bytes like the first ones, from there on, leave with a bit flipped, as those of a
    /// buffer in which one flipped do at every try.
    flip: Rc<RefCell<Option<Vec<u8>>>>,
}

impl Wires {
    /// What leaves when this should be sent.
    fn body_of(&self, body: &[u8]) -> Vec<u8> {
        let mut bytes = body.to_vec();
        if self.flip.borrow().as_ref().is_some_and(|begin| bytes.starts_with(begin)) {
            bytes[100] ^= 1;
        }
        bytes
    }
}

impl Peers for Wires {
    async fn call(&self, to: NodeId, request: Request) -> Result<Reply, PeerError> {
        let target = self.hosts.borrow().get(&to).cloned();
        let (shard, service) = target.ok_or(PeerError::Unreachable)?;
        let (done, served) = oneshot::channel();
        let (from, head, bytes) = (self.me, request.head, request.body.map(|body| self.body_of(&body)));
        let (priority, hop) = (request.priority, request.hop);
        shard.clone().spawn(TaskClass::Client, async move {
            let body = bytes.map(|bytes| {
                let mut body = shard.pool().try_take(bytes.len()).unwrap();
                body.copy_from_slice(&bytes);
                body
            });
            let served = service.serve(from, Incoming { head, body, priority, hop }).await;
            let _ = done.send((served.head, served.body.map(|body| body.to_vec())));
        });
        let (head, bytes) = served.await.map_err(|_| PeerError::Closed)?;
        let body = bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| {
            let mut body = self.shard.pool().try_take(bytes.len()).unwrap();
            body.copy_from_slice(&bytes);
            body
        });
        Ok(Reply { head, body })
    }
}

pub(crate) struct Rig {
    pub(crate) world: World,
    hosts: Hosts,
    pub(crate) members: BTreeMap<NodeId, Rc<Member<MemShard, Wires>>>,
    pub(crate) disks: BTreeMap<NodeId, MemDisk>,
    edge: Wires,
    flips: BTreeMap<NodeId, Rc<RefCell<Option<Vec<u8>>>>>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Hosts know each other through the wires: part them.
        self.hosts.borrow_mut().clear();
    }
}

impl Rig {
    /// Hosts 1 to 3, in sync, past the time in which they acknowledge nothing.
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_all(seed, HostOptions::default().pool_bytes, MemberOptions::default())
    }

    /// The same, with pools of `pool_bytes` on the hosts.
    pub(crate) fn with_pools(seed: u64, pool_bytes: u64) -> Self {
        Self::with_all(seed, pool_bytes, MemberOptions::default())
    }

    /// The same, with these options.
    pub(crate) fn with(seed: u64, options: MemberOptions) -> Self {
        Self::with_all(seed, HostOptions::default().pool_bytes, options)
    }

    /// The same, with a scrub that goes over the devices every two seconds.
    pub(crate) fn scrubbing(seed: u64) -> Self {
        let scrub = ScrubOptions {
            percent_a_day: 2,
            idle_bytes_a_second: 16 << 20,
            idle_after: Duration::ZERO,
            pass_every: Duration::from_secs(2),
        };
        Self::with(seed, MemberOptions { scrub: Some(scrub), ..MemberOptions::default() })
    }

    fn with_all(seed: u64, pool_bytes: u64, options: MemberOptions) -> Self {
        let world = World::new(seed);
        let hosts = Hosts::default();
        let bare = |node: u8, disks, pool_bytes| {
            let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, node));
            world.add_host(HostOptions { address, disks, pool_bytes, ..HostOptions::default() })
        };
        let edge_shard = bare(9, Vec::new(), HostOptions::default().pool_bytes);
        let edge = Wires { hosts: Rc::clone(&hosts), me: EDGE, shard: edge_shard, flip: Rc::default() };
        let (mut members, mut disks, mut flips) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for number in 1..=3_u8 {
            let node = NodeId(number.into());
            let disk = MemDisk::new(&world, DISK_BYTES);
            let shard = bare(number, vec![disk.clone()], pool_bytes);
            let opening = shard.clone();
            let opened = world.run(&shard, async move {
                let options = FormatOptions::new(DeviceId(number.into()));
                Store::format(&opening, DISK, options).await.unwrap();
                let opened = Store::open(opening, DISK, OpenOptions::default()).await.unwrap();
                opened.store.set_incarnation(Incarnation(1)).await.unwrap();
                opened
            });
            let opened = novafs_store::Opened { incarnation: Incarnation(1), ..opened };
            let flip = Rc::default();
            flips.insert(node, Rc::clone(&flip));
            let wires = Wires { hosts: Rc::clone(&hosts), me: node, shard: shard.clone(), flip };
            let boot = BootId(number.into());
            let member = Member::start(shard.clone(), wires, opened, node, boot, options);
            hosts.borrow_mut().insert(node, (shard, Service(Rc::clone(&member))));
            members.insert(node, member);
            disks.insert(node, disk);
        }
        let rig = Self { world, hosts, members, disks, edge, flips };
        rig.configure(whole);
        rig.world.run_for(Duration::from_millis(900));
        rig
    }

    /// Gives every host its configuration.
    pub(crate) fn configure(&self, of: impl Fn(NodeId) -> Configuration) {
        for (node, member) in &self.members {
            member.configure(&of(*node));
        }
    }

    pub(crate) fn ask(&self, node: u64, message: Message, body: Option<Vec<u8>>) -> (Answer, Vec<u8>) {
        let edge = self.edge.clone();
        self.world.run(&self.edge.shard, async move {
            let body = body.map(|bytes| {
                let mut body = edge.shard.pool().try_take(bytes.len()).unwrap();
                body.copy_from_slice(&bytes);
                body.freeze()
            });
            let request = Request {
                priority: Priority::P1,
                hop: 0,
                head: message.encode(),
                body,
                reply_bytes_max: 1 << 20,
                deadline: Duration::from_secs(1),
                control: false,
            };
            let reply = edge.call(NodeId(node), request).await.unwrap();
            let body = reply.body.map(|body| body.to_vec()).unwrap_or_default();
            (Answer::decode(&reply.head).unwrap(), body)
        })
    }

    /// From now on the memory of a host spoils every body that begins so, until `None`.
    pub(crate) fn spoil(&self, node: u64, begin: Option<&[u8]>) {
        self.flips[&NodeId(node)].replace(begin.map(<[u8]>::to_vec));
    }

    /// Sends a request and does not wait for the answer.
    pub(crate) fn tell(&self, node: u64, message: &Message, body: &[u8]) {
        let edge = self.edge.clone();
        let mut buffer = edge.shard.pool().try_take(body.len()).unwrap();
        buffer.copy_from_slice(body);
        let request = Request {
            priority: Priority::P1,
            hop: 0,
            head: message.encode(),
            body: Some(buffer.freeze()),
            reply_bytes_max: 0,
            deadline: Duration::from_secs(1),
            control: false,
        };
        self.edge.shard.spawn(TaskClass::Client, async move {
            let _ = edge.call(NodeId(node), request).await;
        });
    }

    pub(crate) fn edge_shard(&self) -> MemShard {
        self.edge.shard.clone()
    }

    pub(crate) fn read(&self, node: u64, first: u16, count: u16) -> (Answer, Vec<u8>) {
        let first = UnitIndex(first);
        self.ask(node, Message::Read { group: GROUP, epoch: EPOCH, block: BLOCK, first, count }, None)
    }
}

/// The first one: all three are in sync.
pub(crate) fn whole(node: NodeId) -> Configuration {
    configuration(node, 1, &[(1, false), (2, false), (3, false)])
}

/// Version and epoch `version`, with these members; the flag says which are joining.
pub(crate) fn configuration(node: NodeId, version: u64, members: &[(u64, bool)]) -> Configuration {
    let member = |(node, joining): &(u64, bool)| MemberView {
        node: NodeId(*node),
        incarnation: Incarnation(1),
        role: if *joining { Role::Joining } else { Role::InSync },
    };
    let members = members.iter().map(member).collect();
    let boots = (1..=3).map(|node| (NodeId(node), NodeView { boot: Some(BootId(node)), addr: None }));
    let view = GroupView {
        epoch: Epoch(version),
        primary: NodeId(1),
        replicas: Replicas::DEFAULT,
        members,
        frozen: false,
        former: Vec::new(),
    };
    Configuration {
        version,
        self_node: node,
        nodes: boots.collect(),
        groups: [(GROUP, view)].into(),
        confirmed: Some(Incarnation(1)),
        node_lease_until: Duration::ZERO,
    }
}

/// Sealed units from `first` on, one for each plaintext, and their bytes.
pub(crate) fn seal(first: u16, counter: u64, plains: &[&[u8]]) -> (LogEntry, Vec<u8>) {
    let key = BlockKey::derive(&DomainKey::new(1, 1, [1; 32]), &[2; 16], BLOCK, Generation(1));
    let mut stored = Vec::new();
    let units: Vec<SealedUnit> = (first..)
        .zip(counter..)
        .zip(plains)
        .map(|((unit, counter), plain)| {
            let mut out = vec![0; plain.len().next_multiple_of(PAGE)];
            let sealed = key.seal(UnitIndex(unit), counter, plain, &mut out);
            stored.extend_from_slice(&out);
            sealed
        })
        .collect();
    (LogEntry::Units(units), stored)
}
