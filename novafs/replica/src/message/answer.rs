//! Heads of answers.

use nova_units::{BootId, DeviceId, NodeId};

use super::wire::{Reader, Writer};
use super::{Agreed, Answer, HeadError, LocatedUnit, PULSES_MAX, UNITS_MAX};

mod kind {
    pub(super) const WRITTEN: u8 = 129;
    pub(super) const UNITS: u8 = 130;
    // 131 told places without versions.
    pub(super) const LOCATED: u8 = 178;
    pub(super) const STALE_EPOCH: u8 = 132;
    pub(super) const NOT_PRIMARY: u8 = 133;
    pub(super) const NOT_MEMBER: u8 = 134;
    pub(super) const NO_LEASE: u8 = 135;
    pub(super) const FENCED: u8 = 136;
    pub(super) const FULL: u8 = 137;
    pub(super) const UNSETTLED: u8 = 138;
    pub(super) const CORRUPT: u8 = 139;
    pub(super) const FROZEN: u8 = 140;
    pub(super) const BUSY: u8 = 141;
    pub(super) const CONFLICT: u8 = 142;
    pub(super) const DAMAGED: u8 = 143;
    pub(super) const DEVICE_FAILED: u8 = 144;
    pub(super) const PONG: u8 = 160;
    pub(super) const TAIL: u8 = 161;
    pub(super) const PREPARED: u8 = 162;
    pub(super) const NO_GRANT: u8 = 163;
    pub(super) const NOTED: u8 = 164;
    pub(super) const COMMIT_IS: u8 = 165;
    pub(super) const ENTRY: u8 = 166;
    pub(super) const ABSENT: u8 = 167;
    pub(super) const PASSED: u8 = 168;
    pub(super) const SAME: u8 = 176;
    pub(super) const HELD: u8 = 177;
}

pub(super) fn encode(answer: &Answer) -> Vec<u8> {
    let mut w;
    match answer {
        Answer::Written { epoch, seq } => {
            w = Writer::new(kind::WRITTEN);
            w.long(epoch.0);
            w.long(seq.0);
        }
        Answer::Units { units } => {
            w = Writer::new(kind::UNITS);
            w.versions(units);
        }
        Answer::Located { node, device, cells } => {
            w = Writer::new(kind::LOCATED);
            w.long(node.0);
            w.wide(device.0);
            w.count(cells.len());
            for cell in cells {
                w.short(cell.unit.0);
                w.long(cell.position);
                w.word(cell.cell_bytes);
                w.word(cell.stored_bytes);
                w.word(cell.plain_bytes);
                w.word(cell.generation.0);
                w.long(cell.counter);
                w.sum(&cell.digest);
            }
        }
        Answer::StaleEpoch { epoch } => {
            w = Writer::new(kind::STALE_EPOCH);
            w.long(epoch.0);
        }
        Answer::NotPrimary { primary } => {
            w = Writer::new(kind::NOT_PRIMARY);
            w.long(primary.0);
        }
        Answer::NotMember => w = Writer::new(kind::NOT_MEMBER),
        Answer::NoLease => w = Writer::new(kind::NO_LEASE),
        Answer::Fenced { generation } => {
            w = Writer::new(kind::FENCED);
            w.word(generation.0);
        }
        Answer::Full => w = Writer::new(kind::FULL),
        Answer::Unsettled => w = Writer::new(kind::UNSETTLED),
        Answer::Corrupt { unit } => {
            w = Writer::new(kind::CORRUPT);
            w.short(unit.0);
        }
        Answer::Frozen { retry_after_ms } => {
            w = Writer::new(kind::FROZEN);
            w.word(*retry_after_ms);
        }
        Answer::Busy { retry_after_ms } => {
            w = Writer::new(kind::BUSY);
            w.word(*retry_after_ms);
        }
        Answer::Conflict => w = Writer::new(kind::CONFLICT),
        Answer::Damaged => w = Writer::new(kind::DAMAGED),
        Answer::DeviceFailed => w = Writer::new(kind::DEVICE_FAILED),
        Answer::Pong { boot, agreed } => {
            w = Writer::new(kind::PONG);
            w.long(boot.0);
            w.count(agreed.len());
            for Agreed { group, bytes_free } in agreed {
                w.word(group.0);
                w.long(*bytes_free);
            }
        }
        Answer::Tail { grant, last, commit, complete, bytes_free } => {
            w = Writer::new(kind::TAIL);
            w.grant(*grant);
            w.point(*last);
            w.long(commit.0);
            w.byte(u8::from(*complete));
            w.long(*bytes_free);
        }
        Answer::Prepared { seq, bytes_free } => {
            w = Writer::new(kind::PREPARED);
            w.long(seq.0);
            w.long(*bytes_free);
        }
        Answer::Passed { seq, bytes_free, next } => {
            w = Writer::new(kind::PASSED);
            w.long(seq.0);
            w.long(*bytes_free);
            w.byte(u8::from(next.is_some()));
            if let Some((seq, bytes_free)) = next {
                w.long(seq.0);
                w.long(*bytes_free);
            }
        }
        Answer::NoGrant => w = Writer::new(kind::NO_GRANT),
        Answer::Noted => w = Writer::new(kind::NOTED),
        Answer::CommitIs { seq } => {
            w = Writer::new(kind::COMMIT_IS);
            w.long(seq.0);
        }
        Answer::Entry { at, entry } => {
            w = Writer::new(kind::ENTRY);
            w.point(*at);
            w.entry(entry);
        }
        Answer::Absent => w = Writer::new(kind::ABSENT),
        Answer::Same => w = Writer::new(kind::SAME),
        Answer::Held { held, next } => {
            w = Writer::new(kind::HELD);
            w.held(held);
            w.byte(u8::from(next.is_some()));
            if let Some(next) = next {
                w.place(*next);
            }
        }
    }
    w.finish()
}

pub(super) fn decode(head: &[u8]) -> Result<Answer, HeadError> {
    let (kind, mut r) = Reader::new(head)?;
    let answer = match kind {
        kind::WRITTEN => Answer::Written { epoch: r.epoch()?, seq: r.seq()? },
        kind::UNITS => Answer::Units { units: r.versions()? },
        kind::LOCATED => {
            let (node, device) = (NodeId(r.long()?), DeviceId(r.wide()?));
            let count = r.count(UNITS_MAX)?;
            let cells = (0..count).map(|_| located_unit(&mut r)).collect::<Result<_, HeadError>>()?;
            Answer::Located { node, device, cells }
        }
        kind::STALE_EPOCH => Answer::StaleEpoch { epoch: r.epoch()? },
        kind::NOT_PRIMARY => Answer::NotPrimary { primary: NodeId(r.long()?) },
        kind::NOT_MEMBER => Answer::NotMember,
        kind::NO_LEASE => Answer::NoLease,
        kind::FENCED => Answer::Fenced { generation: r.generation()? },
        kind::FULL => Answer::Full,
        kind::UNSETTLED => Answer::Unsettled,
        kind::CORRUPT => Answer::Corrupt { unit: r.unit()? },
        kind::FROZEN => Answer::Frozen { retry_after_ms: r.word()? },
        kind::BUSY => Answer::Busy { retry_after_ms: r.word()? },
        kind::CONFLICT => Answer::Conflict,
        kind::DAMAGED => Answer::Damaged,
        kind::DEVICE_FAILED => Answer::DeviceFailed,
        kind::PONG => {
            let boot = BootId(r.long()?);
            let count = r.count(PULSES_MAX)?;
            let agreed = (0..count)
                .map(|_| Ok(Agreed { group: r.group()?, bytes_free: r.long()? }))
                .collect::<Result<_, HeadError>>()?;
            Answer::Pong { boot, agreed }
        }
        kind::TAIL => Answer::Tail {
            grant: r.grant()?,
            last: r.point()?,
            commit: r.seq()?,
            complete: r.flag()?,
            bytes_free: r.long()?,
        },
        kind::PREPARED => Answer::Prepared { seq: r.seq()?, bytes_free: r.long()? },
        kind::PASSED => Answer::Passed {
            seq: r.seq()?,
            bytes_free: r.long()?,
            next: if r.flag()? { Some((r.seq()?, r.long()?)) } else { None },
        },
        kind::NO_GRANT => Answer::NoGrant,
        kind::NOTED => Answer::Noted,
        kind::COMMIT_IS => Answer::CommitIs { seq: r.seq()? },
        kind::ENTRY => Answer::Entry { at: r.point()?, entry: r.entry()? },
        kind::ABSENT => Answer::Absent,
        kind::SAME => Answer::Same,
        kind::HELD => Answer::Held { held: r.held()?, next: if r.flag()? { Some(r.place()?) } else { None } },
        unknown => return Err(HeadError::Kind(unknown)),
    };
    r.finish()?;
    Ok(answer)
}

fn located_unit(r: &mut Reader<'_>) -> Result<LocatedUnit, HeadError> {
    Ok(LocatedUnit {
        unit: r.unit()?,
        position: r.long()?,
        cell_bytes: r.word()?,
        stored_bytes: r.word()?,
        plain_bytes: r.word()?,
        generation: r.generation()?,
        counter: r.long()?,
        digest: r.sum()?,
    })
}
