//! A bad copy is written anew from another member's.

use std::rc::Rc;
use std::time::Duration;

use nova_buf::SharedBuf;
use nova_device::{Clock, Peers, Shard};
use nova_units::{BlockId, GroupId, IoClass, NodeId, TaskClass, UnitIndex};
use novafs_format::{SealedUnit, UnitRecord};
use novafs_replica::{Answer, Message, Report};
use novafs_store::{Found, StoreError};

use crate::Member;

/// How long another member may take to send its copy.
const COPY_DEADLINE: Duration = Duration::from_millis(2_000);
/// When a repair that failed is tried again, by the scrub.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What another host said when it was asked for a copy.
enum Copied {
    /// The bytes.
    Body(SharedBuf),
    /// It does not have them, or its own are bad.
    Lacks,
    /// Nothing that says whether it has them.
    Silent,
}

impl<S: Shard, P: Peers> Member<S, P> {
    /// Repairs a unit beside whatever else goes on. Only so many at once: what is left out is found again.
    pub(crate) fn repair_later(self: &Rc<Self>, group: GroupId, block: BlockId, unit: UnitIndex) {
        let key = (group, block, unit);
        let mut repairing = self.repairing.borrow_mut();
        if repairing.len() >= self.options.repairs_max || !repairing.insert(key) {
            return;
        }
        drop(repairing);
        let at = self.shard.clock().now() + RETRY_AFTER;
        self.health.borrow_mut().note_bad(key, at);
        let member = Rc::clone(self);
        self.shard.spawn(TaskClass::Repair, async move {
            member.repair(group, block, unit).await;
            member.repairing.borrow_mut().remove(&key);
        });
    }

    /// Repairs a unit, unless that is under way already.
    pub(crate) async fn repair_now(self: &Rc<Self>, group: GroupId, block: BlockId, unit: UnitIndex) {
        let key = (group, block, unit);
        if self.repairing.borrow_mut().insert(key) {
            self.repair(group, block, unit).await;
            self.repairing.borrow_mut().remove(&key);
        }
    }

    /// Writes a bad copy anew. What cannot be repaired now stays noted.
    async fn repair(self: &Rc<Self>, group: GroupId, block: BlockId, unit: UnitIndex) {
        let Ok(records) = self.records(group, block, unit, 1).await else { return };
        let good = match records.first() {
            None => true,
            Some(record) => {
                // Perhaps another version is there by now.
                let found = self.store.read(group, block, unit, IoClass::Repair).await;
                let good =
                    |found: &Found| found.record.sealed.compute_digest(&found.body) == record.sealed.digest;
                matches!(&found, Ok(None))
                    || found.as_ref().is_ok_and(|found| found.as_ref().is_some_and(good))
            }
        };
        if good {
            return self.health.borrow_mut().note_good((group, block, unit));
        }
        let Some(record) = records.first() else { return };
        let mut all_lack = true;
        for peer in self.holders(group) {
            match self.copy_from(peer, group, &record.sealed).await {
                Copied::Body(body) => {
                    if self.write_anew(group, record, body).await {
                        self.count(|counters| counters.units_repaired += 1);
                        self.health.borrow_mut().note_repaired((group, block, unit));
                        self.queue_report(Report::PageRepaired { group, block, unit });
                        return;
                    }
                    all_lack = false;
                }
                Copied::Silent => all_lack = false,
                Copied::Lacks => {}
            }
        }
        let now = self.shard.clock().now();
        self.health.borrow_mut().note_tried((group, block, unit), now, all_lack);
    }

    /// Tries once more what is known to be bad of a group, at most `limit` units.
    pub(crate) async fn repair_known(self: &Rc<Self>, group: GroupId, limit: usize) {
        let bad = self.health.borrow().bad_of(group, limit);
        for (group, block, unit) in bad {
            self.repair_now(group, block, unit).await;
        }
    }

    async fn write_anew(&self, group: GroupId, record: &UnitRecord, body: SharedBuf) -> bool {
        let sealed = record.sealed;
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
    async fn copy_from(&self, peer: NodeId, group: GroupId, sealed: &SealedUnit) -> Copied {
        let message = Message::Copy {
            group,
            block: sealed.block,
            unit: sealed.unit,
            generation: sealed.generation,
            counter: sealed.counter,
        };
        let (units, body) = match self.ask(peer, &message, None, COPY_DEADLINE).await {
            Some((Answer::Units { units }, Some(body))) => (units, body),
            Some((Answer::Absent | Answer::Corrupt { .. }, _)) => return Copied::Lacks,
            _ => return Copied::Silent,
        };
        // The record here says what the bytes must be; the peer's word is not needed.
        let right = units.len() == 1
            && units[0].sealed == *sealed
            && sealed.check_pages(&body).is_ok()
            && sealed.compute_digest(&body) == sealed.digest;
        if right { Copied::Body(body) } else { Copied::Lacks }
    }

    /// The stored bytes of a version that is known here, from whoever has them.
    pub(crate) async fn copy_of(&self, group: GroupId, sealed: &SealedUnit) -> Option<SharedBuf> {
        for peer in self.holders(group) {
            if let Copied::Body(body) = self.copy_from(peer, group, sealed).await {
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
