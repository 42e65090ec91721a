//! The way out: ask the nearest member, check every byte, go to the next one when anything is wrong.

use std::rc::Rc;
use std::time::Duration;

use nova_buf::DmaBuf;
use nova_device::{Clock, Peers, Shard};
use nova_units::{
    BLOCK_BYTES_MAX, BlockId, DeviceId, Generation, GroupId, NodeId, PAGE_BYTES, UNIT_LOG2_MAX,
    UNIT_LOG2_MIN, UnitIndex,
};
use novafs_format::ENTRY_UNITS_MAX;
use novafs_format::seal::BlockKey;
use novafs_replica::{Answer, GroupView, LocatedUnit, Message, Versioned};

use crate::error::{answer_reason, peer_reason};
use crate::gather::GATHER_BYTES_MAX;
use crate::{Edge, EdgeError};

/// Pause before the members are asked again, once all have failed.
const ROUND_PAUSE: Duration = Duration::from_millis(20);
/// Units opened before other tasks get their turn.
const OPENS_PER_TURN: usize = 8;

/// A range of a block, with what its file's metadata says of how it was sealed.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Group of the block.
    pub group: GroupId,
    /// The block.
    pub block: BlockId,
    /// Generation that sealed it.
    pub generation: Generation,
    /// Salt of the writer session that sealed it.
    pub salt: [u8; 16],
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
    fn units(&self) -> std::ops::Range<u32> {
        let end = (self.offset + self.bytes).div_ceil(1 << self.unit_log2);
        let of = |unit: u64| u32::try_from(unit).expect("a block has at most 32,768 units");
        of(self.offset >> self.unit_log2)..of(end)
    }

    /// Plaintext length of a unit: all are full but the block's last.
    fn unit_bytes(&self, unit: u32) -> u64 {
        let start = u64::from(unit) << self.unit_log2;
        (self.block_bytes - start).min(1 << self.unit_log2)
    }
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

impl<S: Shard, P: Peers> Edge<S, P> {
    /// Reads a range of a block and hands it over in pieces, in order: `give(offset in the range, bytes)`.
    ///
    /// Every piece has passed its page sums and its tag. A piece may be handed over twice, with the same bytes, when a
    /// member fails half-way.
    ///
    /// # Errors
    /// See [`EdgeError`].
    ///
    /// # Cancel safety
    /// Safe: nothing is changed by a read.
    pub async fn read(
        self: &Rc<Self>,
        request: &ReadRequest,
        mut give: impl FnMut(u64, &[u8]),
    ) -> Result<(), EdgeError> {
        request.check()?;
        let domain = self.keys.find(request.key.0, request.key.1)?;
        let key = BlockKey::derive(domain, &request.salt, request.block, request.generation)
            .with_unit_log2(request.unit_log2);
        let per_run = (GATHER_BYTES_MAX >> request.unit_log2).min(ENTRY_UNITS_MAX);
        let per_run = u32::try_from(per_run).expect("at most 256");
        let units = request.units();
        let mut first = units.start;
        while first < units.end {
            let run = first..units.end.min(first + per_run);
            first = run.end;
            self.read_run(request, &key, run, &mut give).await?;
        }
        self.count(|counters| counters.bytes_read += request.bytes);
        Ok(())
    }

    /// Asks members, nearest first, until one gives the whole run.
    async fn read_run(
        &self,
        request: &ReadRequest,
        key: &BlockKey,
        run: std::ops::Range<u32>,
        give: &mut impl FnMut(u64, &[u8]),
    ) -> Result<(), EdgeError> {
        let begun = self.shard.clock().now();
        let mut last = "no map of the cluster yet";
        loop {
            let (mut bad, mut missing, mut asked) = (0, None, 0);
            let map = self.map();
            if let Some(view) = map.group(request.group) {
                let mut hosts: Vec<NodeId> = view.in_sync().collect();
                self.nearest.sort(&mut hosts, self.shard.random());
                for host in hosts {
                    asked += 1;
                    match self.read_from(host, view, request, key, &run, give).await {
                        Attempt::Done => return Ok(()),
                        Attempt::Elsewhere(why) => last = why,
                        Attempt::Bad => bad += 1,
                        Attempt::Missing(unit) => missing = Some(unit),
                    }
                    self.count(|counters| counters.retries += 1);
                }
            } else if map.version > 0 {
                last = "the group is not in the map";
            }
            let unit = UnitIndex(u16::try_from(run.start).expect("a block has at most 32,768 units"));
            if asked > 0 && bad == asked {
                return Err(EdgeError::Corrupt { block: request.block, unit });
            }
            // A member in sync under its lease holds everything committed: its word that there is nothing is final.
            if let Some(unit) = missing {
                return Err(EdgeError::Missing { block: request.block, unit });
            }
            let waited = self.shard.clock().now().saturating_sub(begun);
            if waited >= self.options.deadline {
                return Err(EdgeError::Unavailable { group: request.group, waited, last });
            }
            self.wait_for_map(ROUND_PAUSE).await;
        }
    }

    async fn read_from(
        &self,
        host: NodeId,
        view: &GroupView,
        request: &ReadRequest,
        key: &BlockKey,
        run: &std::ops::Range<u32>,
        give: &mut impl FnMut(u64, &[u8]),
    ) -> Attempt {
        let unit = |unit: u32| u16::try_from(unit).expect("a block has at most 32,768 units");
        let bytes: u64 = run.clone().map(|unit| request.unit_bytes(unit).next_multiple_of(PAGE_BYTES)).sum();
        let message = Message::Read {
            group: request.group,
            epoch: view.epoch,
            block: request.block,
            first: UnitIndex(unit(run.start)),
            count: unit(run.end - run.start),
        };
        let reply_bytes_max = u32::try_from(bytes).expect("a run is at most 1 MiB");
        match self.ask(host, &message, None, reply_bytes_max).await {
            Ok((Answer::Units { units }, Some(body))) => {
                let attempt = self.open_run(request, key, run, &units, &body, give).await;
                if matches!(attempt, Attempt::Bad) {
                    self.count(|counters| counters.bad_replies += 1);
                }
                attempt
            }
            Ok((Answer::Units { .. }, None)) => Attempt::Missing(UnitIndex(unit(run.start))),
            Ok((Answer::Corrupt { .. }, _)) => {
                self.count(|counters| counters.bad_replies += 1);
                Attempt::Bad
            }
            Ok((answer, _)) => Attempt::Elsewhere(answer_reason(&answer)),
            Err(error) => Attempt::Elsewhere(peer_reason(&error)),
        }
    }

    /// Checks and opens what a member sent, unit by unit, and hands over the part that was asked for.
    async fn open_run(
        &self,
        request: &ReadRequest,
        key: &BlockKey,
        run: &std::ops::Range<u32>,
        units: &[Versioned],
        body: &DmaBuf,
        give: &mut impl FnMut(u64, &[u8]),
    ) -> Attempt {
        let mut plain = vec![0; 1 << request.unit_log2];
        let mut at = 0;
        let mut units = units.iter().map(|unit| &unit.sealed).peekable();
        for (opened, wanted) in run.clone().enumerate() {
            let Some(unit) = units.next_if(|unit| u32::from(unit.unit.0) == wanted) else {
                return Attempt::Missing(UnitIndex(u16::try_from(wanted).expect("a unit of the run")));
            };
            let padded = unit.padded_bytes();
            let Some(stored) = body.get(at..at + padded) else { return Attempt::Bad };
            at += padded;
            let unit_bytes = request.unit_bytes(wanted);
            let right_unit = unit.block == request.block && u64::from(unit.plain_bytes) == unit_bytes;
            if !right_unit || unit.check_pages(stored).is_err() || key.open(unit, stored, &mut plain).is_err()
            {
                return Attempt::Bad;
            }
            self.count(|counters| counters.units_opened += 1);
            // Only the part inside the range.
            let start = u64::from(wanted) << request.unit_log2;
            let from = request.offset.saturating_sub(start);
            let to = unit_bytes.min(request.offset + request.bytes - start);
            let slice = |byte: u64| usize::try_from(byte).expect("within a unit");
            give(start + from - request.offset, &plain[slice(from)..slice(to)]);
            if (opened + 1).is_multiple_of(OPENS_PER_TURN) {
                futures_lite::future::yield_now().await;
            }
        }
        Attempt::Done
    }

    /// Asks every member of the group where it keeps units of a block.
    ///
    /// # Errors
    /// `UnknownGroup` when the map does not name the group.
    pub async fn locate(
        &self,
        group: GroupId,
        block: BlockId,
        first: UnitIndex,
        count: u16,
    ) -> Result<Vec<Located>, EdgeError> {
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
