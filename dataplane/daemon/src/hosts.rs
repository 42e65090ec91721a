//! Speaking to hosts, this one included, and serving what they ask.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;

use nova_buf::{DmaBuf, Pool, SharedBuf};
use nova_device::{Handler, Incoming, PeerError, Peers, Reply, Request, Served};
use nova_shard::RealShard;
use nova_units::{BootId, NodeId};
use novabulk_link::Link;
use novafs_member::Service;
use novafs_replica::{Answer, Message, Pulse};

use crate::devices::Devices;

/// The way to every host: over NovaBulk, or straight to this host's own members.
#[derive(Clone)]
pub(crate) struct Hosts {
    link: Link<RealShard>,
    here: Rc<Here>,
}

impl std::fmt::Debug for Hosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosts").field("here", &self.here.node.get()).finish_non_exhaustive()
    }
}

/// What this host serves. Others name a host and a group; which of the devices holds it is known here.
pub(crate) struct Here {
    node: Cell<NodeId>,
    boot: BootId,
    pool: Pool,
    devices: Rc<Devices>,
}

impl Here {
    pub(crate) fn new(node: NodeId, boot: BootId, pool: Pool, devices: Rc<Devices>) -> Rc<Self> {
        Rc::new(Self { node: Cell::new(node), boot, pool, devices })
    }

    /// Serves what is about several groups: each device is asked about its own, and the answers become one.
    async fn serve_several(&self, from: NodeId, request: Incoming) -> Served {
        let (ping, groups) = match Message::decode(&request.head) {
            Ok(Message::Ping { boot, groups }) => (Some(boot), groups),
            Ok(Message::Commits { groups }) => (None, groups),
            _ => return Served { head: Answer::Damaged.encode(), body: None },
        };
        let holder = |pulse: &Pulse| self.devices.member_of(pulse.group).map(|it| it.identity().incarnation);
        let mut parts: BTreeMap<_, Vec<Pulse>> = BTreeMap::new();
        for pulse in groups {
            if let Some(holder) = holder(&pulse) {
                parts.entry(holder).or_default().push(pulse);
            }
        }
        let mut answers = Vec::with_capacity(parts.len());
        for groups in parts.into_values() {
            let Some(member) = self.devices.member_of(groups[0].group) else { continue };
            let message = match ping {
                Some(boot) => Message::Ping { boot, groups },
                None => Message::Commits { groups },
            };
            let part = Incoming { head: message.encode(), body: None, ..request };
            let served = Service(member).serve(from, part).await;
            answers.extend(Answer::decode(&served.head));
        }
        let answer = match ping {
            Some(_) => joined(self.boot, self.devices.members().count(), answers),
            None => Answer::Noted,
        };
        Served { head: answer.encode(), body: None }
    }
}

/// One answer to a ping, for a host with so many devices. One that failed agrees to nothing; as long as the host has
/// others it lives.
fn joined(boot: BootId, devices: usize, answers: Vec<Answer>) -> Answer {
    if devices == 0 {
        return Answer::NotMember;
    }
    if devices == 1
        && let Some(alone @ Answer::DeviceFailed) = answers.first()
    {
        return alone.clone();
    }
    let agreed = answers.into_iter().flat_map(|answer| match answer {
        Answer::Pong { agreed, .. } => agreed,
        _ => Vec::new(),
    });
    Answer::Pong { boot, agreed: agreed.collect() }
}

impl Handler for Here {
    async fn serve(&self, from: NodeId, request: Incoming) -> Served {
        let Some(group) = Message::group_of(&request.head) else {
            return self.serve_several(from, request).await;
        };
        match self.devices.member_of(group) {
            Some(member) => Service(member).serve(from, request).await,
            None => Served { head: Answer::NotMember.encode(), body: None },
        }
    }
}

impl Hosts {
    pub(crate) fn new(link: Link<RealShard>, here: Rc<Here>) -> Self {
        Self { link, here }
    }

    /// Carries a request to this host's own members, without a socket.
    async fn call_here(&self, request: Request) -> Result<Reply, PeerError> {
        let body = match request.body {
            Some(shared) => Some(own(&self.here.pool, shared).await),
            None => None,
        };
        let incoming = Incoming { head: request.head, body, priority: request.priority, hop: request.hop };
        // A member that is asked here may ask this host again: boxed and erased, or the future would contain itself.
        let here = Rc::clone(&self.here);
        let serving: Pin<Box<dyn Future<Output = Served>>> =
            Box::pin(async move { here.serve(here.node.get(), incoming).await });
        let served = serving.await;
        let body = match served.body {
            Some(shared) => Some(own(&self.here.pool, shared).await),
            None => None,
        };
        Ok(Reply { head: served.head, body })
    }
}

/// The bytes as a buffer of one owner: the same memory when nobody else holds it, else a copy.
async fn own(pool: &Pool, shared: SharedBuf) -> DmaBuf {
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
        self.link.call(to, request).await
    }
}

#[cfg(test)]
mod tests {
    use nova_units::GroupId;
    use novafs_replica::Agreed;

    use super::*;

    #[test]
    fn a_host_answers_for_all_its_devices_and_agrees_to_nothing_of_one_that_failed() {
        let pong = |groups: &[u32]| Answer::Pong {
            boot: BootId(7),
            agreed: groups
                .iter()
                .map(|group| Agreed { group: GroupId(*group), bytes_free: u64::from(*group) << 20 })
                .collect(),
        };
        let answers = vec![pong(&[1, 4]), Answer::DeviceFailed, pong(&[2])];
        assert_eq!(joined(BootId(7), 3, answers), pong(&[1, 4, 2]));
        assert_eq!(joined(BootId(7), 2, vec![Answer::DeviceFailed]), pong(&[]), "the host lives");
        assert_eq!(joined(BootId(7), 2, Vec::new()), pong(&[]), "it has none of these groups, and lives");
        assert_eq!(joined(BootId(7), 1, vec![Answer::DeviceFailed]), Answer::DeviceFailed);
        assert_eq!(joined(BootId(7), 0, Vec::new()), Answer::NotMember, "it stores nothing");
    }
}
