//! Fields of a head, one after another.

use nova_units::{BlockId, BootId, CommitPoint, Epoch, Generation, GroupId, NodeId, Seq, UnitIndex};
use novafs_format::{Cut, LogEntry, SealedUnit};

use crate::compare::{FenceMark, Held, UnitMark, UnitPlace};

use super::{
    BlockFence, Grant, HEAD_BYTES_MAX, HEAD_VERSION, HeadError, PULSES_MAX, Pulse, Route, UNITS_MAX,
    Versioned,
};

/// Writes the fields of a head.
#[derive(Debug)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(kind: u8) -> Self {
        Self(vec![HEAD_VERSION, kind])
    }

    pub(super) fn finish(self) -> Vec<u8> {
        debug_assert!(self.0.len() <= HEAD_BYTES_MAX, "head of {} bytes", self.0.len());
        self.0
    }

    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn short(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn word(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn long(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn wide(&mut self, value: u128) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn point(&mut self, at: CommitPoint) {
        self.long(at.epoch.0);
        self.long(at.seq.0);
    }

    pub(super) fn grant(&mut self, grant: Grant) {
        self.long(grant.boot.0);
        self.long(grant.number);
    }

    pub(super) fn route(&mut self, route: Route) {
        match route {
            Route::Direct => self.byte(0),
            Route::Chain { next, grant } => {
                self.byte(1);
                self.long(next.0);
                self.grant(grant);
            }
            Route::PassedOn => self.byte(2),
        }
    }

    pub(super) fn fence(&mut self, fence: &BlockFence) {
        self.long(fence.block.0);
        self.word(fence.generation.0);
        self.word(fence.cut.generation.0);
        self.long(fence.cut.counter);
        self.0.extend_from_slice(&fence.cut.salt);
    }

    /// A count, then nothing: the items follow.
    pub(super) fn count(&mut self, count: usize) {
        self.short(u16::try_from(count).expect("lists of a head are bounded by their senders"));
    }

    pub(super) fn pulses(&mut self, pulses: &[Pulse]) {
        self.count(pulses.len());
        for pulse in pulses {
            self.word(pulse.group.0);
            self.long(pulse.epoch.0);
            self.long(pulse.commit.0);
        }
    }

    pub(super) fn versions(&mut self, units: &[Versioned]) {
        self.count(units.len());
        for unit in units {
            self.point(unit.commit);
            self.0.extend_from_slice(&unit.sealed.encode());
        }
    }

    pub(super) fn place(&mut self, (block, unit): UnitPlace) {
        self.long(block.0);
        self.short(unit.0);
    }

    pub(super) fn sum(&mut self, sum: &[u8; 32]) {
        self.0.extend_from_slice(sum);
    }

    pub(super) fn held(&mut self, held: &Held) {
        self.long(held.commit.0);
        self.count(held.units.len());
        for unit in &held.units {
            self.place(unit.place);
            self.word(unit.generation.0);
            self.long(unit.counter);
            self.point(unit.commit);
            self.sum(&unit.digest);
        }
        self.count(held.fences.len());
        for fence in &held.fences {
            self.long(fence.block.0);
            self.word(fence.fence.0);
            self.byte(u8::from(fence.deleted));
            self.long(fence.at.0);
        }
    }

    /// The rest of the head.
    pub(super) fn entry(&mut self, entry: &LogEntry) {
        entry.encode(&mut self.0);
    }
}

/// Reads the fields of a head.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The kind and a reader of what follows it.
    pub(super) fn new(head: &'a [u8]) -> Result<(u8, Self), HeadError> {
        if head.len() > HEAD_BYTES_MAX {
            return Err(HeadError::TooLong);
        }
        let mut reader = Self(head);
        match reader.byte()? {
            HEAD_VERSION => Ok((reader.byte()?, reader)),
            version => Err(HeadError::Version(version)),
        }
    }

    pub(super) fn finish(self) -> Result<(), HeadError> {
        if self.0.is_empty() { Ok(()) } else { Err(HeadError::TooLong) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HeadError> {
        let (front, rest) = self.0.split_first_chunk::<N>().ok_or(HeadError::Truncated)?;
        self.0 = rest;
        Ok(*front)
    }

    pub(super) fn byte(&mut self) -> Result<u8, HeadError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn flag(&mut self) -> Result<bool, HeadError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(HeadError::Field("flag")),
        }
    }

    pub(super) fn short(&mut self) -> Result<u16, HeadError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn word(&mut self) -> Result<u32, HeadError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn long(&mut self) -> Result<u64, HeadError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn wide(&mut self) -> Result<u128, HeadError> {
        self.array().map(u128::from_le_bytes)
    }

    pub(super) fn group(&mut self) -> Result<GroupId, HeadError> {
        self.word().map(GroupId)
    }

    pub(super) fn epoch(&mut self) -> Result<Epoch, HeadError> {
        self.long().map(Epoch)
    }

    pub(super) fn seq(&mut self) -> Result<Seq, HeadError> {
        self.long().map(Seq)
    }

    pub(super) fn block(&mut self) -> Result<BlockId, HeadError> {
        self.long().map(BlockId)
    }

    pub(super) fn unit(&mut self) -> Result<UnitIndex, HeadError> {
        self.short().map(UnitIndex)
    }

    pub(super) fn generation(&mut self) -> Result<Generation, HeadError> {
        self.word().map(Generation)
    }

    /// How many units are asked for.
    pub(super) fn run(&mut self) -> Result<u16, HeadError> {
        let count = self.short()?;
        if count == 0 || usize::from(count) > UNITS_MAX {
            Err(HeadError::Field("unit count"))
        } else {
            Ok(count)
        }
    }

    pub(super) fn point(&mut self) -> Result<CommitPoint, HeadError> {
        Ok(CommitPoint { epoch: self.epoch()?, seq: self.seq()? })
    }

    pub(super) fn grant(&mut self) -> Result<Grant, HeadError> {
        Ok(Grant { boot: BootId(self.long()?), number: self.long()? })
    }

    pub(super) fn route(&mut self) -> Result<Route, HeadError> {
        match self.byte()? {
            0 => Ok(Route::Direct),
            1 => Ok(Route::Chain { next: NodeId(self.long()?), grant: self.grant()? }),
            2 => Ok(Route::PassedOn),
            _ => Err(HeadError::Field("route")),
        }
    }

    pub(super) fn fence(&mut self) -> Result<BlockFence, HeadError> {
        let (block, generation) = (self.block()?, self.generation()?);
        let cut = Cut { generation: self.generation()?, counter: self.long()?, salt: self.array()? };
        Ok(BlockFence { block, generation, cut })
    }

    pub(super) fn count(&mut self, max: usize) -> Result<usize, HeadError> {
        let count = usize::from(self.short()?);
        if count > max { Err(HeadError::Field("list too long")) } else { Ok(count) }
    }

    pub(super) fn pulses(&mut self) -> Result<Vec<Pulse>, HeadError> {
        let count = self.count(PULSES_MAX)?;
        (0..count)
            .map(|_| Ok(Pulse { group: self.group()?, epoch: self.epoch()?, commit: self.seq()? }))
            .collect()
    }

    pub(super) fn versions(&mut self) -> Result<Vec<Versioned>, HeadError> {
        let count = self.count(UNITS_MAX)?;
        (0..count)
            .map(|_| {
                let commit = self.point()?;
                let sealed = self.array::<{ SealedUnit::ENCODED_BYTES }>()?;
                let sealed = SealedUnit::decode(&sealed).map_err(|_| HeadError::Field("sealed unit"))?;
                Ok(Versioned { sealed, commit })
            })
            .collect()
    }

    pub(super) fn place(&mut self) -> Result<UnitPlace, HeadError> {
        Ok((self.block()?, self.unit()?))
    }

    pub(super) fn sum(&mut self) -> Result<[u8; 32], HeadError> {
        self.array()
    }

    pub(super) fn held(&mut self) -> Result<Held, HeadError> {
        let commit = self.seq()?;
        let count = self.count(UNITS_MAX)?;
        let unit = |r: &mut Self| {
            Ok(UnitMark {
                place: r.place()?,
                generation: r.generation()?,
                counter: r.long()?,
                commit: r.point()?,
                digest: r.sum()?,
            })
        };
        let units = (0..count).map(|_| unit(self)).collect::<Result<_, HeadError>>()?;
        let count = self.count(UNITS_MAX)?;
        let fence = |r: &mut Self| {
            Ok(FenceMark { block: r.block()?, fence: r.generation()?, deleted: r.flag()?, at: r.seq()? })
        };
        let fences = (0..count).map(|_| fence(self)).collect::<Result<_, HeadError>>()?;
        Ok(Held { commit, units, fences })
    }

    /// The rest of the head.
    pub(super) fn entry(&mut self) -> Result<LogEntry, HeadError> {
        LogEntry::decode(core::mem::take(&mut self.0)).map_err(|_| HeadError::Field("log entry"))
    }
}
