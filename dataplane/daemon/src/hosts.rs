//! Speaking to hosts, this one included, and serving what they ask.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nova_buf::{DmaBuf, Pool, SharedBuf};
use nova_device::sync::join_all;
use nova_device::{Handler, Incoming, PeerError, Peers, Reply, Request, Served, Shard};
use nova_ring::snapshot::HostMap;
use nova_shard::RealShard;
use nova_units::{BootId, GroupId, NodeId, Priority};
use novabulk_link::Link;
use novafs_member::Service;
use novafs_replica::{Answer, Configuration, Message, Pulse};

use crate::devices::Devices;
use crate::map::confirmed_devices;
use crate::neighbours::{Given, Neighbours, Packed, Question, Unanswered};
use crate::roster::Roster;
use crate::signposts::{self, FIRST, Signposts};
use crate::switchboard::Switchboard;

/// How long a shard may take for what another host asked of it; no host waits that long for an answer.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// How long an answer about several groups waits for the part of one shard: it lends leases, and every 100 ms of their
/// length count.
const PART_WITHIN: Duration = Duration::from_millis(150);
/// The same for a shard that did not answer the last one in time: the other shards shall not be late with it.
const LATE_PART_WITHIN: Duration = Duration::from_millis(20);
/// When to ask again after this host had no room.
const BUSY_RETRY_MS: u32 = 10;

/// The way to every host: over NovaBulk, or straight to this host's own members.
#[derive(Clone)]
pub(crate) struct Hosts {
    link: Link<RealShard>,
    here: Rc<Here>,
    signposts: Rc<Signposts>,
}

impl std::fmt::Debug for Hosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosts").field("here", &self.here.node.get()).finish_non_exhaustive()
    }
}

/// What this host serves, as one of its shards sees it. Others name a host and a group; which shard and which of its
/// devices holds it is known here.
pub(crate) struct Here {
    node: Cell<NodeId>,
    boot: BootId,
    shard: RealShard,
    switchboard: Arc<Switchboard>,
    roster: RefCell<Arc<Roster>>,
    devices: Rc<Devices>,
    neighbours: Rc<Neighbours>,
    /// The shard of each group, by the newest map.
    routes: RefCell<BTreeMap<GroupId, usize>>,
}

/// What a [`Here`] is made of.
pub(crate) struct Parts {
    pub(crate) boot: BootId,
    pub(crate) shard: RealShard,
    pub(crate) switchboard: Arc<Switchboard>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) devices: Rc<Devices>,
    pub(crate) neighbours: Rc<Neighbours>,
}

impl Here {
    pub(crate) fn new(parts: Parts) -> Rc<Self> {
        let Parts { boot, shard, switchboard, roster, devices, neighbours } = parts;
        let (node, routes, roster) = (Cell::default(), RefCell::default(), RefCell::new(roster));
        Rc::new(Self { node, boot, shard, switchboard, roster, devices, neighbours, routes })
    }

    /// Which host this is; none before the first map.
    pub(crate) fn node(&self) -> NodeId {
        self.node.get()
    }

    /// Which host this is.
    pub(crate) fn set_node(&self, node: NodeId) {
        self.node.set(node);
    }

    /// The devices of this host.
    pub(crate) fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.borrow())
    }

    /// A device was opened or closed.
    pub(crate) fn set_roster(&self, roster: Arc<Roster>) {
        self.roster.replace(roster);
    }

    /// Learns from a map which shard holds what.
    pub(crate) fn configure(&self, map: &HostMap, configuration: &Configuration) {
        let confirmed = confirmed_devices(map);
        let roster = self.roster();
        let shard_of = |life| {
            let mut serving = roster.serving.iter();
            serving.find(|(_, device)| confirmed.get(&device.id) == Some(&life)).map(|(shard, _)| *shard)
        };
        let me = configuration.self_node;
        let route = |(group, view): (&GroupId, &novafs_replica::GroupView)| {
            Some((*group, shard_of(view.member(me)?.incarnation)?))
        };
        self.routes.replace(configuration.groups.iter().filter_map(route).collect());
    }

    /// The shard with the device that holds `group`: as the map says, or else where its data still lie.
    pub(crate) fn shard_of(&self, group: GroupId) -> Option<usize> {
        if let Some(shard) = self.routes.borrow().get(&group) {
            return Some(*shard);
        }
        match self.devices.member_of(group) {
            Some(_) => Some(self.neighbours.own()),
            None => self.switchboard.holder_of(group),
        }
    }

    /// Serves a request with the devices of this shard alone.
    pub(crate) async fn serve_here(&self, from: NodeId, request: Incoming) -> Served {
        let Some(group) = Message::group_of(&request.head) else {
            let Some(several) = Several::decode(&request.head) else { return only(&Answer::Damaged) };
            return only(&self.answer_here(from, several, request.priority, request.hop).await);
        };
        match self.devices.member_of(group) {
            Some(member) => Service(member).serve(from, request).await,
            None => only(&Answer::NotMember),
        }
    }

    /// Serves a request with whatever shard can, and says which did.
    async fn serve_anywhere(&self, from: NodeId, request: Incoming) -> (Served, usize) {
        let own = self.neighbours.own();
        let Some(group) = Message::group_of(&request.head) else {
            return (self.serve_several(from, request).await, own);
        };
        match self.shard_of(group) {
            Some(other) if other != own => {
                let asked = self.ask(other, Question::of(from, request), ASK_WITHIN).await;
                let served = match asked {
                    Ok((head, body)) => Served { head, body: body.map(DmaBuf::freeze) },
                    // One that did not answer in time has let its requester wait in vain already.
                    Err(_) => only(&Answer::Busy { retry_after_ms: BUSY_RETRY_MS }),
                };
                (served, other)
            }
            _ => (self.serve_here(from, request).await, own),
        }
    }

    async fn ask(
        &self,
        other: usize,
        question: Question,
        within: Duration,
    ) -> Result<(Vec<u8>, Option<DmaBuf>), Unanswered> {
        let Given { head, body, .. } = self.neighbours.ask(&self.shard, other, question, within).await?;
        Ok((head, unpacked(body, self.shard.pool()).await))
    }

    /// Serves what is about several groups: each shard is asked about its own, all at once, and the answers become one. A
    /// shard that does not answer agrees to nothing; the others do.
    async fn serve_several(&self, from: NodeId, request: Incoming) -> Served {
        let Some(several) = Several::decode(&request.head) else { return only(&Answer::Damaged) };
        let (priority, hop) = (request.priority, request.hop);
        let parts = several.split(|group| self.shard_of(group));
        let answers = join_all(parts.into_iter().map(async |(shard, part)| {
            if shard == self.neighbours.own() {
                return Some(self.answer_here(from, part, priority, hop).await);
            }
            let late = self.neighbours.is_late(shard);
            let within = if late { LATE_PART_WITHIN } else { PART_WITHIN };
            let question = Question { from, head: part.encode(), body: None, priority, hop };
            let (head, _) = self.ask(shard, question, within).await.ok()?;
            Answer::decode(&head).ok()
        }))
        .await;
        only(&several.joined(self.boot, self.roster.borrow().serving.len(), answers.into_iter().flatten()))
    }

    /// The answer of the devices of this shard: each is asked about its own groups.
    async fn answer_here(&self, from: NodeId, several: Several, priority: Priority, hop: u8) -> Answer {
        let device = |group| self.devices.member_of(group).map(|it| it.identity().incarnation);
        let mut answers = Vec::new();
        for part in several.split(device).into_values() {
            let Some(member) = self.devices.member_of(part.groups[0].group) else { continue };
            let request = Incoming { head: part.encode(), body: None, priority, hop };
            let served = Service(member).serve(from, request).await;
            answers.extend(Answer::decode(&served.head));
        }
        several.joined(self.boot, self.devices.members().count(), answers)
    }
}

/// A ping, or a round of commits: it names groups of several devices.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Several {
    /// The sender's start, in a ping.
    ping: Option<BootId>,
    groups: Vec<Pulse>,
}

impl Several {
    fn decode(head: &[u8]) -> Option<Self> {
        match Message::decode(head) {
            Ok(Message::Ping { boot, groups }) => Some(Self { ping: Some(boot), groups }),
            Ok(Message::Commits { groups }) => Some(Self { ping: None, groups }),
            _ => None,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let groups = self.groups.clone();
        match self.ping {
            Some(boot) => Message::Ping { boot, groups },
            None => Message::Commits { groups },
        }
        .encode()
    }

    /// A part for each holder, with its groups; what nobody holds is left out.
    fn split<H: Ord>(&self, holder: impl Fn(GroupId) -> Option<H>) -> BTreeMap<H, Self> {
        let mut parts = BTreeMap::new();
        for pulse in &self.groups {
            if let Some(holder) = holder(pulse.group) {
                let part =
                    parts.entry(holder).or_insert_with(|| Self { ping: self.ping, groups: Vec::new() });
                part.groups.push(*pulse);
            }
        }
        parts
    }

    /// One answer, of so many devices. One that failed agrees to nothing; as long as there are others it lives.
    fn joined(&self, boot: BootId, devices: usize, answers: impl IntoIterator<Item = Answer>) -> Answer {
        if self.ping.is_none() {
            return Answer::Noted;
        }
        if devices == 0 {
            return Answer::NotMember;
        }
        let mut agreed = Vec::new();
        for answer in answers {
            match answer {
                Answer::DeviceFailed if devices == 1 => return Answer::DeviceFailed,
                Answer::Pong { agreed: of_these, .. } => agreed.extend(of_these),
                _ => {}
            }
        }
        Answer::Pong { boot, agreed }
    }
}

fn only(answer: &Answer) -> Served {
    Served { head: answer.encode(), body: None }
}

/// Serves other hosts: their answers say which shard it was.
impl Handler for Here {
    async fn serve(&self, from: NodeId, request: Incoming) -> Served {
        let (mut served, shard) = self.serve_anywhere(from, request).await;
        signposts::mark(&mut served.head, u16::try_from(shard).expect("a host has at most 24 shards"));
        served
    }
}

impl Hosts {
    pub(crate) fn new(link: Link<RealShard>, here: Rc<Here>) -> Self {
        Self { link, here, signposts: Rc::default() }
    }

    /// Carries a request to this host's own members, without a socket.
    async fn call_here(&self, request: Request) -> Result<Reply, PeerError> {
        let (here, pool) = (Rc::clone(&self.here), self.here.shard.pool());
        let (from, own) = (here.node.get(), here.neighbours.own());
        let Request { head, body, priority, hop, deadline, .. } = request;
        let other = Message::group_of(&head).and_then(|group| here.shard_of(group)).filter(|it| *it != own);
        if let Some(other) = other {
            let question = Question { from, head, body, priority, hop };
            let (head, body) = here.ask(other, question, deadline).await?;
            return Ok(Reply { head, body });
        }
        let body = match body {
            Some(shared) => Some(owned(pool, shared).await),
            None => None,
        };
        let incoming = Incoming { head, body, priority, hop };
        // A member that is asked here may ask this host again: boxed and erased, or the future would contain itself.
        let serving: Pin<Box<dyn Future<Output = Served>>> = {
            let here = Rc::clone(&here);
            Box::pin(async move { here.serve_anywhere(from, incoming).await.0 })
        };
        let served = serving.await;
        let body = match served.body {
            Some(shared) => Some(owned(pool, shared).await),
            None => None,
        };
        Ok(Reply { head: served.head, body })
    }

    /// Carries a request to another host, to the shard that has its group when that is known.
    async fn call_there(&self, to: NodeId, request: Request) -> Result<Reply, PeerError> {
        let group = Message::group_of(&request.head);
        let shard = self.signposts.shard_of(to, group);
        if shard != FIRST {
            match self.link.call_shard(to, shard, request.clone()).await {
                // Nothing has left this host. That one may have fewer shards than it had.
                Err(PeerError::Unreachable) => self.signposts.forget(to, group),
                Err(error) => {
                    self.signposts.forget(to, group);
                    return Err(error);
                }
                Ok(reply) => return self.read(to, group, reply),
            }
        }
        let reply = self.link.call(to, request).await?;
        self.read(to, group, reply)
    }

    /// An answer of another host, without what it says for the way there.
    fn read(&self, to: NodeId, group: Option<GroupId>, mut reply: Reply) -> Result<Reply, PeerError> {
        let shard = signposts::take_mark(&mut reply.head).ok_or_else(|| PeerError::Refused {
            code: UNMARKED,
            reason: "its answer does not say which shard gave it: run one build on all hosts".into(),
        })?;
        self.signposts.learn(to, group, shard);
        Ok(reply)
    }
}

/// Code of [`PeerError::Refused`] for an answer without a mark.
const UNMARKED: u16 = 100;

async fn unpacked(body: Option<Packed>, pool: &Pool) -> Option<DmaBuf> {
    match body {
        Some(packed) => Some(packed.unpack(pool).await),
        None => None,
    }
}

/// The bytes as a buffer of one owner: the same memory when nobody else holds it, else a copy.
async fn owned(pool: &Pool, shared: SharedBuf) -> DmaBuf {
    match shared.try_thaw() {
        Ok(alone) => alone,
        Err(shared) => {
            let mut copy = pool.take(shared.len()).await;
            copy.copy_from_slice(&shared);
            if let Some(sums) = shared.page_sums() {
                copy.set_page_sums(sums.into());
            }
            copy
        }
    }
}

impl Peers for Hosts {
    async fn call(&self, to: NodeId, request: Request) -> Result<Reply, PeerError> {
        if to == self.here.node.get() {
            return self.call_here(request).await;
        }
        self.call_there(to, request).await
    }
}

#[cfg(test)]
mod tests {
    use nova_units::{Epoch, Seq};
    use novafs_replica::Agreed;

    use super::*;

    fn pong(groups: &[u32]) -> Answer {
        let agreed = |group: &u32| Agreed { group: GroupId(*group), bytes_free: u64::from(*group) << 20 };
        Answer::Pong { boot: BootId(7), agreed: groups.iter().map(agreed).collect() }
    }

    fn ping(groups: &[u32]) -> Several {
        let pulse = |group: &u32| Pulse { group: GroupId(*group), epoch: Epoch(1), commit: Seq(0) };
        Several { ping: Some(BootId(7)), groups: groups.iter().map(pulse).collect() }
    }

    #[test]
    fn a_host_answers_for_all_its_devices_and_agrees_to_nothing_of_one_that_failed() {
        let joined = |devices, answers: Vec<Answer>| ping(&[1, 2, 4]).joined(BootId(7), devices, answers);
        let answers = vec![pong(&[1, 4]), Answer::DeviceFailed, pong(&[2])];
        assert_eq!(joined(3, answers), pong(&[1, 4, 2]));
        assert_eq!(joined(2, vec![Answer::DeviceFailed]), pong(&[]), "the host lives");
        assert_eq!(joined(2, Vec::new()), pong(&[]), "it has none of these groups, and lives");
        assert_eq!(joined(1, vec![Answer::DeviceFailed]), Answer::DeviceFailed);
        assert_eq!(joined(0, Vec::new()), Answer::NotMember, "it stores nothing");
        let commits = Several { ping: None, groups: Vec::new() };
        assert_eq!(commits.joined(BootId(7), 0, Vec::new()), Answer::Noted);
    }

    #[test]
    fn answers_of_shards_join_like_those_of_devices() {
        let (asked, boot) = (ping(&[1, 2]), BootId(7));
        // One shard has one device, which failed; another has none of these groups; the third has two.
        let failed = asked.joined(boot, 1, vec![Answer::DeviceFailed]);
        let other = asked.joined(boot, 0, Vec::new());
        let third = asked.joined(boot, 2, vec![pong(&[2]), Answer::DeviceFailed]);
        let all = vec![failed.clone(), other.clone(), third];
        assert_eq!(asked.joined(boot, 3, all), pong(&[2]));
        assert_eq!(
            asked.joined(boot, 1, vec![failed, other]),
            Answer::DeviceFailed,
            "its only device failed"
        );
    }

    #[test]
    fn a_ping_is_split_by_who_holds_its_groups() {
        let parts = ping(&[1, 2, 3, 4]).split(|group| (group.0 != 3).then_some(group.0 % 2));
        assert_eq!(parts, BTreeMap::from([(0, ping(&[2, 4])), (1, ping(&[1]))]));
        let again = Several::decode(&parts[&0].encode());
        assert_eq!(again.as_ref(), Some(&parts[&0]));
    }
}
