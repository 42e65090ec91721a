//! The way out: ask the nearest member, check every byte, go to the next one when anything is wrong.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use nova_buf::DmaBuf;
use nova_device::{Clock, Peers, Shard};
use nova_units::{
    BLOCK_BYTES_MAX, BlockId, DeviceId, Epoch, GroupId, NodeId, PAGE_BYTES, TaskClass, UNIT_LOG2_MAX,
    UNIT_LOG2_MIN, UnitIndex,
};
use novafs_format::seal::BlockKey;
use novafs_format::{Codec, ENTRY_UNITS_MAX, PAGE, SealedUnit};
use novafs_replica::message::UNITS_MAX;
use novafs_replica::{Answer, GroupView, LocatedUnit, Message, Versioned};

use crate::error::{MOVED_ON, answer_reason, peer_reason};
use crate::gather::GATHER_BYTES_MAX;
use crate::write::{narrow, wide};
use crate::{Edge, EdgeError, HeldKey};

/// Pause before the members are asked again, once all have failed.
const ROUND_PAUSE: Duration = Duration::from_millis(20);
/// Looks at further members under way at once, each of one run; what is left out is found when it is read.
const LOOKS_MAX: usize = 4;
/// Units opened before other tasks get their turn.
const OPENS_PER_TURN: usize = 8;

/// A range of a block, with what its file's metadata says of it.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Group of the block.
    pub group: GroupId,
    /// The block.
    pub block: BlockId,
    /// Domain and version of the key.
    pub key: (u32, u32),
    /// Unit size, 12 to 16.
    pub unit_log2: u8,
    /// Plaintext length of the whole block.
    pub block_bytes: u64,
    /// First byte wanted.
    pub offset: u64,
    /// How many bytes are wanted, at least 1; the range ends within the block.
    pub bytes: u64,
    /// What was never written is zeros: units there are not, and what a unit lacks. What a unit has beyond the block's
    /// length is not shown. Otherwise every unit must be there, as long as the block's length says.
    pub sparse: bool,
}

/// Where one member keeps the units that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The member's host.
    pub node: NodeId,
    /// Its device and the cells, or why it says nothing.
    pub cells: Result<(DeviceId, Vec<LocatedUnit>), &'static str>,
}

impl ReadRequest {
    fn check(&self) -> Result<(), EdgeError> {
        if !(UNIT_LOG2_MIN..=UNIT_LOG2_MAX).contains(&self.unit_log2) {
            return Err(EdgeError::Invalid("unit_log2 is 12 to 16"));
        }
        let end = self.offset.checked_add(self.bytes);
        if self.bytes == 0
            || self.block_bytes > BLOCK_BYTES_MAX
            || end.is_none_or(|end| end > self.block_bytes)
        {
            return Err(EdgeError::Invalid("the range is empty or ends past the block"));
        }
        Ok(())
    }

    /// The units that the range touches.
    fn units(&self) -> Range<u32> {
        let end = (self.offset + self.bytes).div_ceil(1 << self.unit_log2);
        narrow(self.offset >> self.unit_log2)..narrow(end)
    }

    fn asks_for(&self, run: Range<u32>) -> Units {
        Units {
            group: self.group,
            block: self.block,
            key: self.key,
            unit_log2: self.unit_log2,
            run,
            dense_bytes: (!self.sparse).then_some(self.block_bytes),
        }
    }
}

/// A run of whole units: at most what one message holds.
#[derive(Clone, Debug)]
pub(crate) struct Units {
    pub(crate) group: GroupId,
    pub(crate) block: BlockId,
    /// Domain and version of the key.
    pub(crate) key: (u32, u32),
    pub(crate) unit_log2: u8,
    pub(crate) run: Range<u32>,
    /// Plaintext length of a block all of whose units must be there; `None` for one that may have holes.
    pub(crate) dense_bytes: Option<u64>,
}

impl Units {
    /// Plaintext length of a unit in a block without holes: all are full but the last.
    fn dense_unit_bytes(&self, unit: u32) -> Option<u64> {
        let start = u64::from(unit) << self.unit_log2;
        self.dense_bytes.map(|bytes| bytes.saturating_sub(start).min(1 << self.unit_log2))
    }

    fn reply_bytes_max(&self) -> u32 {
        let full = 1_u64 << self.unit_log2;
        let bytes =
            |unit| self.dense_unit_bytes(unit).map_or(full, |bytes| bytes.next_multiple_of(PAGE_BYTES));
        u32::try_from(self.run.clone().map(bytes).sum::<u64>()).expect("a run is at most 1 MiB")
    }

    fn message(&self, epoch: Epoch) -> Message {
        Message::Read {
            group: self.group,
            epoch,
            block: self.block,
            first: index(self.run.start),
            count: index(self.run.end - self.run.start).0,
        }
    }

    /// Whether what a member sent can be the answer: units of the run in order, and their bytes without one more or
    /// less. Else what is left out would read as holes.
    fn fits(&self, units: &[Versioned], body: &[u8]) -> bool {
        let ascending = units.windows(2).all(|pair| pair[0].sealed.unit < pair[1].sealed.unit);
        let inside = units.iter().all(|unit| {
            let sealed = &unit.sealed;
            sealed.block == self.block && self.run.contains(&u32::from(sealed.unit.0))
        });
        let bytes: usize = units.iter().map(|unit| unit.sealed.padded_bytes()).sum();
        ascending && inside && bytes == body.len()
    }
}

fn index(unit: u32) -> UnitIndex {
    UnitIndex(u16::try_from(unit).expect("a block has at most 32,768 units"))
}

/// What an attempt at one member came to.
enum Attempt {
    /// Every byte was right and has been handed over.
    Done,
    /// Not from this member, or not now.
    Elsewhere(&'static str),
    /// The member has a bad page, or sent bytes that do not check.
    Bad,
    /// The member holds no such unit.
    Missing(UnitIndex),
}

/// The block keys of one read: most blocks have units of one session only.
struct Keys<'k> {
    domain: &'k HeldKey,
    unit_log2: u8,
    newest: Option<Rc<BlockKey>>,
}

impl Keys<'_> {
    fn of(&mut self, sealed: &SealedUnit) -> &BlockKey {
        if !self.newest.as_ref().is_some_and(|key| key.is_of(sealed)) {
            self.newest = Some(self.domain.block_key(sealed, self.unit_log2));
        }
        self.newest.as_ref().expect("just set")
    }
}

impl<S: Shard, P: Peers> Edge<S, P> {
    /// Reads a range of a block and hands it over in pieces, in order: `give(offset in the range, bytes)`.
    ///
    /// Every piece has passed its page sums and its tag, or is a hole. A piece may be handed over twice when a member
    /// fails half-way; what was handed over last counts, and only after `Ok`.
    ///
    /// # Errors
    /// See [`EdgeError`].
    ///
    /// # Cancel safety
    /// Safe: nothing is changed by a read.
    pub async fn read(
        self: &Rc<Self>,
        request: &ReadRequest,
        give: impl FnMut(u64, &[u8]),
    ) -> Result<(), EdgeError> {
        request.check()?;
        self.read_range(request, give).await?;
        self.count(|counters| counters.bytes_read += request.bytes);
        Ok(())
    }

    /// As [`Edge::read`], of a range that was checked.
    pub(crate) async fn read_range(
        self: &Rc<Self>,
        request: &ReadRequest,
        mut give: impl FnMut(u64, &[u8]),
    ) -> Result<(), EdgeError> {
        let size = 1_u64 << request.unit_log2;
        let per_run = (GATHER_BYTES_MAX >> request.unit_log2).min(ENTRY_UNITS_MAX);
        let per_run = u32::try_from(per_run).expect("at most 256");
        let zeros = vec![0; if request.sparse { wide(size) } else { 0 }];
        let units = request.units();
        let mut first = units.start;
        while first < units.end {
            let run = first..units.end.min(first + per_run);
            first = run.end;
            self.read_units(&request.asks_for(run), &mut |unit, plain| {
                let start = u64::from(unit) << request.unit_log2;
                // Only the part inside the range.
                let from = request.offset.saturating_sub(start);
                let to = size.min(request.offset + request.bytes - start);
                let at = start + from - request.offset;
                let plain = plain.unwrap_or_default();
                let there = (plain.len() as u64).clamp(from, to);
                if there > from {
                    give(at, &plain[wide(from)..wide(there)]);
                }
                if to > there {
                    give(at + there - from, &zeros[..wide(to - there)]);
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Asks members, nearest first, until one gives the whole run: `give(unit, its plaintext or None)` for each unit.
    pub(crate) async fn read_units(
        self: &Rc<Self>,
        units: &Units,
        give: &mut impl FnMut(u32, Option<&[u8]>),
    ) -> Result<(), EdgeError> {
        let domain = self.key(units.key.0, units.key.1).await?;
        let mut keys = Keys { domain: &domain, unit_log2: units.unit_log2, newest: None };
        let begun = self.shard.clock().now();
        let mut last = "no map of the cluster yet";
        loop {
            let (mut bad, mut missing, mut asked) = (0, None, 0);
            let map = self.map();
            if let Some(view) = map.group(units.group) {
                let mut hosts: Vec<NodeId> = view.in_sync().collect();
                self.nearest.sort(&mut hosts, map.self_node, self.shard.random());
                for index in 0..hosts.len() {
                    asked += 1;
                    match self.read_from(&mut hosts[index..], view, units, &mut keys, give).await {
                        Attempt::Done => {
                            if bad > 0 {
                                self.look_at_the_others(units, view.epoch, &hosts[index + 1..]);
                            }
                            return Ok(());
                        }
                        Attempt::Elsewhere(why) => last = why,
                        Attempt::Bad => bad += 1,
                        Attempt::Missing(unit) => missing = Some(unit),
                    }
                    self.count(|counters| counters.retries += 1);
                }
            } else if map.version > 0 {
                last = "the group is not in the map";
            }
            if asked > 0 && bad == asked {
                return Err(EdgeError::Corrupt { block: units.block, unit: index(units.run.start) });
            }
            // A member in sync under its lease holds everything committed: its word that there is nothing is final.
            if let Some(unit) = missing {
                return Err(EdgeError::Missing { block: units.block, unit });
            }
            let waited = self.shard.clock().now().saturating_sub(begun);
            if waited >= self.options.deadline {
                return Err(EdgeError::Unavailable { group: units.group, waited, last });
            }
            self.wait_for_map(ROUND_PAUSE).await;
        }
    }

    /// Reads the same units from members that were not asked, after one had a bad copy: where one is bad another may be,
    /// and a member repairs what it finds by reading. Nobody waits for it.
    fn look_at_the_others(self: &Rc<Self>, units: &Units, epoch: Epoch, others: &[NodeId]) {
        if others.is_empty() || self.looking.get() >= LOOKS_MAX {
            return;
        }
        self.looking.set(self.looking.get() + 1);
        let (edge, units, others) = (Rc::clone(self), units.clone(), others.to_vec());
        self.shard.spawn(TaskClass::Repair, async move {
            for host in others {
                // What it answers is not needed.
                let _ = edge.ask(host, &units.message(epoch), None, units.reply_bytes_max()).await;
                edge.count(|counters| counters.looks += 1);
            }
            edge.looking.set(edge.looking.get() - 1);
        });
    }

    /// One attempt at the first of `hosts`; the second takes its place when it was asked too, and answered.
    async fn read_from(
        &self,
        hosts: &mut [NodeId],
        view: &GroupView,
        units: &Units,
        keys: &mut Keys<'_>,
        give: &mut impl FnMut(u32, Option<&[u8]>),
    ) -> Attempt {
        let message = units.message(view.epoch);
        let asked = self.ask_nearest(hosts, &message, units.reply_bytes_max());
        let Some(asked) = self.within_epoch(units.group, view.epoch, asked).await else {
            return Attempt::Elsewhere(MOVED_ON);
        };
        let attempt = match asked {
            Ok((Answer::Units { units: found }, body)) => {
                self.open_run(units, keys, &found, body.as_ref(), give).await
            }
            Ok((Answer::Corrupt { .. }, _)) => Attempt::Bad,
            Ok((answer, _)) => Attempt::Elsewhere(answer_reason(&answer)),
            Err(error) => Attempt::Elsewhere(peer_reason(&error)),
        };
        if matches!(attempt, Attempt::Bad) {
            self.count(|counters| counters.bad_replies += 1);
        }
        attempt
    }

    /// Checks and opens what a member sent, unit by unit, and hands it over.
    async fn open_run(
        &self,
        units: &Units,
        keys: &mut Keys<'_>,
        found: &[Versioned],
        body: Option<&DmaBuf>,
        give: &mut impl FnMut(u32, Option<&[u8]>),
    ) -> Attempt {
        let sums = body.and_then(DmaBuf::page_sums);
        let body = body.map(|body| &body[..]).unwrap_or_default();
        if !units.fits(found, body) {
            return Attempt::Bad;
        }
        let mut plain = vec![0; 1 << units.unit_log2];
        let mut at = 0;
        let mut found = found.iter().map(|unit| &unit.sealed).peekable();
        for (opened, wanted) in units.run.clone().enumerate() {
            let dense = units.dense_unit_bytes(wanted);
            let Some(unit) = found.next_if(|unit| u32::from(unit.unit.0) == wanted) else {
                if dense.is_some() {
                    return Attempt::Missing(index(wanted));
                }
                give(wanted, None);
                continue;
            };
            let range = at..at + unit.padded_bytes();
            at = range.end;
            let stored = &body[range.clone()];
            // Who received the bytes went over them once; what they sum up to is compared here.
            let checked = match sums {
                Some(sums) => unit.check_page_sums(&sums[range.start / PAGE..range.end / PAGE]),
                None => unit.check_pages(stored),
            };
            let right_length = dense.is_none_or(|bytes| bytes == u64::from(unit.plain_bytes));
            let plain = &mut plain[..wide(u64::from(unit.stored_bytes).min(1 << units.unit_log2))];
            if !right_length
                || unit.codec != Codec::Raw
                || checked.is_err()
                || keys.of(unit).open(unit, stored, plain).is_err()
            {
                return Attempt::Bad;
            }
            self.count(|counters| counters.units_opened += 1);
            give(wanted, Some(plain));
            if (opened + 1).is_multiple_of(OPENS_PER_TURN) {
                futures_lite::future::yield_now().await;
            }
        }
        Attempt::Done
    }

    /// Asks every member of the group where it keeps units of a block.
    ///
    /// # Errors
    /// `Invalid` for no units or more than [`UNITS_MAX`]; `UnknownGroup` when the map does not name the group. A member that
    /// does not tell says why in [`Located::cells`].
    pub async fn locate(
        &self,
        group: GroupId,
        block: BlockId,
        first: UnitIndex,
        count: u16,
    ) -> Result<Vec<Located>, EdgeError> {
        if count == 0 || usize::from(count) > UNITS_MAX {
            return Err(EdgeError::Invalid("1 to 256 units are located at once"));
        }
        let map = self.map();
        let view = map.group(group).ok_or(EdgeError::UnknownGroup { group })?;
        let mut found = Vec::with_capacity(view.members.len());
        for member in &view.members {
            let message = Message::Locate { group, block, first, count };
            let cells = match self.ask(member.node, &message, None, 0).await {
                Ok((Answer::Located { device, cells, .. }, _)) => Ok((device, cells)),
                Ok((answer, _)) => Err(answer_reason(&answer)),
                Err(error) => Err(peer_reason(&error)),
            };
            found.push(Located { node: member.node, cells });
        }
        Ok(found)
    }
}
