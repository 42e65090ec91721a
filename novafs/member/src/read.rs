//! Reads: the machine says whether, the store says what.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use nova_buf::SharedBuf;
use nova_device::{Clock, Peers, Shard};
use nova_units::{BlockId, Epoch, Generation, GroupId, IoClass, Seq, UnitIndex};
use novafs_format::UnitRecord;
use novafs_replica::{Answer, LocatedUnit, ReadEnd, Versioned, options::RETRY_SOON_MS};
use novafs_store::{ReadError, StoreError};

use crate::{Member, drive};

/// How often a read is begun again after the primary told what is committed.
const ROUNDS_MAX: usize = 3;
/// How long the primary may take to tell.
const QUERY_DEADLINE: Duration = Duration::from_millis(400);

/// A run of units that an edge wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) group: GroupId,
    pub(crate) epoch: Epoch,
    pub(crate) block: BlockId,
    pub(crate) first: UnitIndex,
    pub(crate) count: u16,
}

impl Wanted {
    fn range(&self) -> Range<u16> {
        self.first.0..self.first.0.saturating_add(self.count)
    }
}

impl<S: Shard, P: Peers> Member<S, P> {
    pub(crate) async fn serve_read(self: &Rc<Self>, wanted: Wanted) -> (Answer, Option<SharedBuf>) {
        match self.read(wanted).await {
            Ok((units, body)) => {
                self.count(|counters| {
                    counters.reads += 1;
                    counters.units_read += units.len() as u64;
                    counters.bytes_read += body.as_ref().map_or(0, |body| body.len() as u64);
                });
                (Answer::Units { units }, body)
            }
            Err(refusal) => (refusal, None),
        }
    }

    async fn read(self: &Rc<Self>, wanted: Wanted) -> Result<(Vec<Versioned>, Option<SharedBuf>), Answer> {
        let now = || self.shard.clock().now();
        let mut permit = self.drive.borrow().host.begin_read(now(), wanted.group, wanted.epoch)?;
        for _ in 0..ROUNDS_MAX {
            let read = self.store.read_run(wanted.group, wanted.block, wanted.range(), IoClass::Client).await;
            let run = match read {
                Ok(run) => run,
                Err(error) => return Err(self.bad_read(wanted.group, &error)),
            };
            if run.next.is_some() {
                // More than a message holds: leaving units out would read as holes.
                return Err(Answer::Damaged);
            }
            let end = self.drive.borrow().host.end_read(now(), &permit, run.newer_prepared);
            match end {
                ReadEnd::Serve => {
                    let units = run.records.iter().map(versioned).collect();
                    let body = Some(run.body.freeze()).filter(|body| !body.is_empty());
                    return Ok((units, body));
                }
                ReadEnd::Refuse(refusal) => return Err(refusal),
                ReadEnd::Ask { primary, message } => {
                    let reply = self.ask(primary, &message, None, QUERY_DEADLINE).await;
                    let answer = reply.map(|(answer, _)| answer);
                    let mut effects = Vec::new();
                    let settled =
                        self.drive.borrow_mut().host.settle_read(&mut permit, answer.as_ref(), &mut effects);
                    for effect in effects {
                        self.carry_out(effect);
                    }
                    settled?;
                }
            }
        }
        Err(Answer::Unsettled)
    }

    /// What to answer when the store could not read; a bad copy is repaired beside.
    fn bad_read(self: &Rc<Self>, group: GroupId, error: &ReadError) -> Answer {
        match *error {
            ReadError::Corrupt { block, unit, .. } | ReadError::Unreadable { block, unit, .. } => {
                self.count(|counters| counters.corrupt_found += 1);
                self.repair_later(group, block, unit);
                Answer::Corrupt { unit }
            }
            _ => match drive::read_fault(error) {
                novafs_replica::StoreFault::DeviceFailed => Answer::DeviceFailed,
                _ => Answer::Busy { retry_after_ms: RETRY_SOON_MS },
            },
        }
    }

    /// The committed records of a run of units.
    ///
    /// # Errors
    /// Those of the store's scan.
    pub(crate) async fn records(
        &self,
        group: GroupId,
        block: BlockId,
        first: UnitIndex,
        count: usize,
    ) -> Result<Vec<UnitRecord>, StoreError> {
        let after = match first.0.checked_sub(1) {
            Some(before) => Some((block, UnitIndex(before))),
            None => block.0.checked_sub(1).map(|before| (BlockId(before), UnitIndex(u16::MAX))),
        };
        let mut records = self.store.scan(group, after, count).await?;
        let end = usize::from(first.0) + count;
        records.retain(|record| record.sealed.block == block && usize::from(record.sealed.unit.0) < end);
        Ok(records)
    }

    pub(crate) async fn serve_locate(
        &self,
        group: GroupId,
        block: BlockId,
        first: UnitIndex,
        count: u16,
    ) -> Answer {
        let Ok(records) = self.records(group, block, first, usize::from(count)).await else {
            return Answer::Busy { retry_after_ms: RETRY_SOON_MS };
        };
        // Whoever asks will look there.
        if self.store.settle(&records).await.is_err() {
            return Answer::Busy { retry_after_ms: RETRY_SOON_MS };
        }
        let cells = records
            .iter()
            .map(|record| LocatedUnit {
                unit: record.sealed.unit,
                position: record.cell.position,
                cell_bytes: u32::try_from(record.cell.class.bytes()).expect("a cell is 64 KiB at most"),
                stored_bytes: record.sealed.stored_bytes,
                plain_bytes: record.sealed.plain_bytes,
                generation: record.sealed.generation,
                counter: record.sealed.counter,
                digest: record.sealed.digest,
            })
            .collect();
        Answer::Located { node: self.identity().node, device: self.device, cells }
    }

    /// Exactly this version of a unit, for a member whose copy is bad. Whoever names a version has its digest, and
    /// learns nothing of what is committed: a prepared one is as good, and so is one on a host that is no member.
    pub(crate) async fn serve_copy(
        self: &Rc<Self>,
        group: GroupId,
        block: BlockId,
        unit: UnitIndex,
        generation: Generation,
        counter: u64,
    ) -> (Answer, Option<SharedBuf>) {
        match self.store.read(group, block, unit, IoClass::Repair).await {
            Ok(Some(found))
                if (found.record.sealed.generation, found.record.sealed.counter) == (generation, counter) =>
            {
                (Answer::Units { units: vec![versioned(&found.record)] }, Some(found.body.freeze()))
            }
            Ok(_) => self.copy_prepared(group, block, unit, (generation, counter)).await,
            Err(error) => (self.bad_read(group, &error), None),
        }
    }

    async fn copy_prepared(
        &self,
        group: GroupId,
        block: BlockId,
        unit: UnitIndex,
        version: (Generation, u64),
    ) -> (Answer, Option<SharedBuf>) {
        let commit = self.store.group(group).map_or(Seq(0), |held| held.commit_seq);
        let prepared = self.store.entries_after(group, commit, usize::MAX).unwrap_or_default();
        for (at, entry) in prepared {
            let mut start = 0;
            for sealed in entry.units() {
                let end = start + sealed.padded_bytes();
                let is_it = (sealed.block, sealed.unit) == (block, unit)
                    && (sealed.generation, sealed.counter) == version;
                if is_it {
                    let read = self.store.read_prepared(group, at, IoClass::Repair).await;
                    let Ok(Some(body)) = read else { return (Answer::Absent, None) };
                    let units = vec![Versioned { sealed: *sealed, commit: at }];
                    return (Answer::Units { units }, Some(body.freeze().slice(start..end)));
                }
                start = end;
            }
        }
        (Answer::Absent, None)
    }
}

pub(crate) fn versioned(record: &UnitRecord) -> Versioned {
    Versioned { sealed: record.sealed, commit: record.commit }
}
