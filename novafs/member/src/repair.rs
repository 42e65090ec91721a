//! A bad copy is written anew from another member's.

use std::rc::Rc;
use std::time::Duration;

use nova_buf::SharedBuf;
use nova_device::{Peers, Shard};
use nova_units::{BlockId, GroupId, NodeId, TaskClass, UnitIndex};
use novafs_format::{SealedUnit, UnitRecord};
use novafs_replica::{Answer, Message, Report};
use novafs_store::StoreError;

use crate::Member;

/// How long another member may take to send its copy.
const COPY_DEADLINE: Duration = Duration::from_millis(2_000);

impl<S: Shard, P: Peers> Member<S, P> {
    /// Repairs a unit beside whatever else goes on. Only so many at once: what is left out is found again.
    pub(crate) fn repair_later(self: &Rc<Self>, group: GroupId, block: BlockId, unit: UnitIndex) {
        let key = (group, block, unit);
        let mut repairing = self.repairing.borrow_mut();
        if repairing.len() >= self.options.repairs_max || !repairing.insert(key) {
            return;
        }
        drop(repairing);
        let member = Rc::clone(self);
        self.shard.spawn(TaskClass::Repair, async move {
            if member.repair(group, block, unit).await {
                member.count(|counters| counters.units_repaired += 1);
                member.queue_report(Report::PageRepaired { group, block, unit });
            }
            member.repairing.borrow_mut().remove(&key);
        });
    }

    async fn repair(self: &Rc<Self>, group: GroupId, block: BlockId, unit: UnitIndex) -> bool {
        let Ok(records) = self.records(group, block, unit, 1).await else { return false };
        let Some(record) = records.first() else { return false };
        for peer in self.holders(group) {
            if self.repair_from(peer, group, record).await {
                return true;
            }
        }
        false
    }

    async fn repair_from(&self, peer: NodeId, group: GroupId, record: &UnitRecord) -> bool {
        let sealed = record.sealed;
        let Some(body) = self.copy_from(peer, group, &sealed).await else { return false };
        match self.store.repair(group, sealed, record.commit, body).await {
            Ok(repaired) => repaired,
            Err(StoreError::Full { .. }) => {
                self.reclaim([sealed.stored_bytes]);
                false
            }
            Err(_) => false,
        }
    }

    /// The stored bytes of a version that is known here, from another host.
    async fn copy_from(&self, peer: NodeId, group: GroupId, sealed: &SealedUnit) -> Option<SharedBuf> {
        let message = Message::Copy {
            group,
            block: sealed.block,
            unit: sealed.unit,
            generation: sealed.generation,
            counter: sealed.counter,
        };
        let Some((Answer::Units { units }, Some(body))) = self.ask(peer, &message, None, COPY_DEADLINE).await
        else {
            return None;
        };
        // The record here says what the bytes must be; the peer's word is not needed.
        let right = units.len() == 1
            && units[0].sealed == *sealed
            && sealed.check_pages(&body).is_ok()
            && sealed.compute_digest(&body) == sealed.digest;
        right.then_some(body)
    }

    /// The stored bytes of a version that is known here, from whoever has them.
    pub(crate) async fn copy_of(&self, group: GroupId, sealed: &SealedUnit) -> Option<SharedBuf> {
        for peer in self.holders(group) {
            if let Some(body) = self.copy_from(peer, group, sealed).await {
                return Some(body);
            }
        }
        None
    }

    /// The other members of a group, in sync ones first.
    pub(crate) fn other_members(&self, group: GroupId) -> Vec<NodeId> {
        let drive = self.drive.borrow();
        let me = drive.host.identity().node;
        let Some(view) = drive.configuration.group(group) else { return Vec::new() };
        view.in_sync().chain(view.joining()).filter(|node| *node != me).collect()
    }

    /// Whoever may hold a copy of what this host knows: the other members, then hosts that were members. What these hold
    /// may be old, so it is only taken where the index here says what it must be.
    fn holders(&self, group: GroupId) -> Vec<NodeId> {
        let mut holders = self.other_members(group);
        let drive = self.drive.borrow();
        let me = drive.host.identity().node;
        if let Some(view) = drive.configuration.group(group) {
            let former =
                view.former.iter().copied().filter(|node| *node != me && view.member(*node).is_none());
            holders.extend(former);
        }
        holders
    }
}
