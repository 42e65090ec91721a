//! Heads of requests.

use nova_units::{BootId, GroupId};

use super::wire::{Reader, Writer};
use super::{FENCES_MAX, HEAD_VERSION, HeadError, Message};

mod kind {
    pub(super) const WRITE: u8 = 1;
    pub(super) const READ: u8 = 2;
    pub(super) const LOCATE: u8 = 3;
    pub(super) const PING: u8 = 16;
    pub(super) const OPEN: u8 = 17;
    pub(super) const PREPARE: u8 = 18;
    pub(super) const PAGE: u8 = 19;
    pub(super) const COMMITS: u8 = 20;
    pub(super) const COMMIT_QUERY: u8 = 21;
    pub(super) const FETCH: u8 = 22;
    pub(super) const COPY: u8 = 23;
    pub(super) const WITHDRAW: u8 = 24;
    pub(super) const COMPARE: u8 = 32;
}

/// Every request about one group has it behind the version and the kind.
pub(super) fn group_of(head: &[u8]) -> Option<GroupId> {
    match head {
        [HEAD_VERSION, kind, group @ ..] if !matches!(*kind, kind::PING | kind::COMMITS) => {
            Some(GroupId(u32::from_le_bytes(*group.first_chunk()?)))
        }
        _ => None,
    }
}

pub(super) fn encode(message: &Message) -> Vec<u8> {
    let mut w;
    match message {
        Message::Write { group, epoch, entry } => {
            w = Writer::new(kind::WRITE);
            w.word(group.0);
            w.long(epoch.0);
            w.entry(entry);
        }
        Message::Read { group, epoch, block, first, count } => {
            w = Writer::new(kind::READ);
            w.word(group.0);
            w.long(epoch.0);
            w.long(block.0);
            w.short(first.0);
            w.short(*count);
        }
        Message::Locate { group, block, first, count } => {
            w = Writer::new(kind::LOCATE);
            w.word(group.0);
            w.long(block.0);
            w.short(first.0);
            w.short(*count);
        }
        Message::Ping { boot, groups } => {
            w = Writer::new(kind::PING);
            w.long(boot.0);
            w.pulses(groups);
        }
        Message::Open { group, epoch } => {
            w = Writer::new(kind::OPEN);
            w.word(group.0);
            w.long(epoch.0);
        }
        Message::Prepare { group, epoch, grant, previous, at, commit, route, entry } => {
            w = Writer::new(kind::PREPARE);
            w.word(group.0);
            w.long(epoch.0);
            w.grant(*grant);
            w.long(previous.0);
            w.point(*at);
            w.long(commit.0);
            w.route(*route);
            w.entry(entry);
        }
        Message::Page { group, epoch, grant, first, last, through, fences, units, lost } => {
            w = Writer::new(kind::PAGE);
            w.word(group.0);
            w.long(epoch.0);
            w.grant(*grant);
            w.byte(u8::from(*first));
            w.byte(u8::from(*last));
            w.long(through.0);
            w.count(fences.len());
            for fence in fences {
                w.fence(fence);
            }
            w.versions(units);
            w.versions(lost);
        }
        Message::Withdraw { group, epoch, grant, keep } => {
            w = Writer::new(kind::WITHDRAW);
            w.word(group.0);
            w.long(epoch.0);
            w.grant(*grant);
            w.long(keep.0);
        }
        Message::Commits { groups } => {
            w = Writer::new(kind::COMMITS);
            w.pulses(groups);
        }
        Message::CommitQuery { group, epoch } => {
            w = Writer::new(kind::COMMIT_QUERY);
            w.word(group.0);
            w.long(epoch.0);
        }
        Message::Fetch { group, epoch, after } => {
            w = Writer::new(kind::FETCH);
            w.word(group.0);
            w.long(epoch.0);
            w.long(after.0);
        }
        Message::Copy { group, block, unit, generation, counter } => {
            w = Writer::new(kind::COPY);
            w.word(group.0);
            w.long(block.0);
            w.short(unit.0);
            w.word(generation.0);
            w.long(*counter);
        }
        Message::Compare { group, from, to, commit, digest } => {
            w = Writer::new(kind::COMPARE);
            w.word(group.0);
            w.place(*from);
            w.place(*to);
            w.long(commit.0);
            w.sum(digest);
        }
    }
    w.finish()
}

pub(super) fn decode(head: &[u8]) -> Result<Message, HeadError> {
    let (kind, mut r) = Reader::new(head)?;
    let message = match kind {
        kind::WRITE => Message::Write { group: r.group()?, epoch: r.epoch()?, entry: r.entry()? },
        kind::READ => Message::Read {
            group: r.group()?,
            epoch: r.epoch()?,
            block: r.block()?,
            first: r.unit()?,
            count: r.run()?,
        },
        kind::LOCATE => {
            Message::Locate { group: r.group()?, block: r.block()?, first: r.unit()?, count: r.run()? }
        }
        kind::PING => Message::Ping { boot: BootId(r.long()?), groups: r.pulses()? },
        kind::OPEN => Message::Open { group: r.group()?, epoch: r.epoch()? },
        kind::PREPARE => Message::Prepare {
            group: r.group()?,
            epoch: r.epoch()?,
            grant: r.grant()?,
            previous: r.seq()?,
            at: r.point()?,
            commit: r.seq()?,
            route: r.route()?,
            entry: r.entry()?,
        },
        kind::PAGE => Message::Page {
            group: r.group()?,
            epoch: r.epoch()?,
            grant: r.grant()?,
            first: r.flag()?,
            last: r.flag()?,
            through: r.seq()?,
            fences: {
                let count = r.count(FENCES_MAX)?;
                (0..count).map(|_| r.fence()).collect::<Result<_, HeadError>>()?
            },
            units: r.versions()?,
            lost: r.versions()?,
        },
        kind::WITHDRAW => {
            Message::Withdraw { group: r.group()?, epoch: r.epoch()?, grant: r.grant()?, keep: r.seq()? }
        }
        kind::COMMITS => Message::Commits { groups: r.pulses()? },
        kind::COMMIT_QUERY => Message::CommitQuery { group: r.group()?, epoch: r.epoch()? },
        kind::FETCH => Message::Fetch { group: r.group()?, epoch: r.epoch()?, after: r.seq()? },
        kind::COPY => Message::Copy {
            group: r.group()?,
            block: r.block()?,
            unit: r.unit()?,
            generation: r.generation()?,
            counter: r.long()?,
        },
        kind::COMPARE => Message::Compare {
            group: r.group()?,
            from: r.place()?,
            to: r.place()?,
            commit: r.seq()?,
            digest: r.sum()?,
        },
        unknown => return Err(HeadError::Kind(unknown)),
    };
    r.finish()?;
    Ok(message)
}
