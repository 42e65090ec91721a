//! Writer sessions and the block ids they are given.

use core::time::Duration;
use std::sync::Arc;

use imbl::OrdMap;
use nova_units::{BlockId, GroupId, SessionId, Timestamp};

use crate::answer::{Answer, BlocksReserved, Code, Done, Failure, Reply, SessionOpened};
use crate::command::{Collected, EndSession, OpenSession, ReserveBlocks};
use crate::limits::{
    BLOCKS_PER_RESERVATION_MAX, BLOCKS_PER_SESSION_MAX, GROUPS_PER_RESERVATION_MAX, SESSION_LEASE_DEFAULT,
    SESSION_LEASE_MAX, SESSION_LEASE_MIN, SESSIONS_MAX,
};
use crate::model::{Namespace, Orphan, Reservation, Session};

/// Refuses a session that has ended or never was.
pub(super) fn fenced() -> Failure {
    Failure::new(Code::Fenced, "", "the writer session has ended; open another and write again")
}

impl Namespace {
    pub(super) fn open_session(&mut self, client: u64, open: &OpenSession) -> Result<Answer, Failure> {
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(Failure::new(Code::Full, "", "too many writer sessions are open; close some"));
        }
        let lease = match open.lease_ms {
            0 => SESSION_LEASE_DEFAULT,
            ms => Duration::from_millis(ms.into()).clamp(SESSION_LEASE_MIN, SESSION_LEASE_MAX),
        };
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let session = Session {
            client,
            lease,
            opened: self.clock,
            reserved: OrdMap::new(),
            outstanding: 0,
            writing: OrdMap::new(),
        };
        self.sessions.insert(id, session);
        let lease_ms = u32::try_from(lease.as_millis()).expect("the longest lease is 600,000 ms");
        Ok(Reply::SessionOpened(SessionOpened { session: id.0, lease_ms, era: self.era.into() }).into())
    }

    /// What the session reserved and never published may lie in the groups: it becomes orphans. It is no file's writer
    /// any more.
    pub(super) fn end_session(&mut self, end: &EndSession) -> Result<Answer, Failure> {
        let session = self.sessions.remove(&SessionId(end.session)).ok_or_else(fenced)?;
        for file in session.writing.keys() {
            self.writers.remove(file);
            self.leave_untrimmed(*file);
        }
        for (first, reservation) in session.reserved {
            let orphan = Orphan { count: reservation.count, groups: reservation.groups, since: self.clock };
            self.orphans.insert(first, orphan);
        }
        Ok(Done {}.into())
    }

    pub(super) fn reserve_blocks(&mut self, reserve: &ReserveBlocks) -> Result<Answer, Failure> {
        let invalid = |message: &str| Err(Failure::new(Code::Invalid, "", message));
        if reserve.count == 0 || reserve.count > BLOCKS_PER_RESERVATION_MAX {
            return invalid("a reservation is of 1 to 16,384 blocks");
        }
        if reserve.groups.len() > GROUPS_PER_RESERVATION_MAX {
            return invalid("a reservation is over at most 1,024 groups");
        }
        let session = self.sessions.get_mut(&SessionId(reserve.session)).ok_or_else(fenced)?;
        if reserve.groups.is_empty() {
            return Err(Failure::new(Code::NoGroups, "", "no replica group can take blocks now; try again"));
        }
        if session.outstanding + reserve.count > BLOCKS_PER_SESSION_MAX {
            return Err(Failure::new(
                Code::Full,
                "",
                "the session holds 65,536 blocks that it has not published; publish or close it",
            ));
        }
        if self.next_block + u64::from(reserve.count) > BlockId::COUNTER_MAX {
            return Err(Failure::new(Code::Full, "", "the block ids of this era are used up; raise the era"));
        }
        let first = BlockId::new(self.era, self.next_block);
        self.next_block += u64::from(reserve.count);
        let groups: Arc<[GroupId]> = reserve.groups.iter().copied().map(GroupId).collect();
        session.outstanding += reserve.count;
        session.reserved.insert(first, Reservation { count: reserve.count, groups });
        Ok(Reply::BlocksReserved(BlocksReserved {
            first_block: first.0,
            count: reserve.count,
            groups: reserve.groups.clone(),
        })
        .into())
    }

    pub(super) fn collected(&mut self, collected: &Collected) -> Answer {
        for first in &collected.first_blocks {
            self.orphans.remove(&BlockId(*first));
        }
        let sum = &mut self.collection;
        sum.blocks = sum.blocks.saturating_add(collected.blocks);
        sum.bytes = sum.bytes.saturating_add(collected.bytes);
        sum.full_pass = sum.full_pass.max(Timestamp(collected.full_pass_ms));
        self.purge_early(collected.purge_bytes);
        Done {}.into()
    }
}

impl Session {
    /// The run that `block` lies in.
    pub(super) fn reservation_of(&self, block: BlockId) -> Option<(BlockId, &Reservation)> {
        let (first, reservation) = self.reserved.get_prev(&block)?;
        (block.0 - first.0 < u64::from(reservation.count)).then_some((*first, reservation))
    }

    /// Takes `block` out of its run: it is published, and never again.
    ///
    /// # Panics
    /// When it is in none; the caller has looked.
    pub(super) fn consume(&mut self, block: BlockId) {
        let (first, reservation) = self.reservation_of(block).expect("the caller found it reserved");
        let reservation = reservation.clone();
        let before = u32::try_from(block.0 - first.0).expect("an offset in a run is below its count");
        let after = reservation.count - before - 1;
        self.reserved.remove(&first);
        if before > 0 {
            self.reserved
                .insert(first, Reservation { count: before, groups: Arc::clone(&reservation.groups) });
        }
        if after > 0 {
            self.reserved
                .insert(BlockId(block.0 + 1), Reservation { count: after, groups: reservation.groups });
        }
        self.outstanding -= 1;
    }
}
