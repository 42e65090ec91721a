//! One message and answer of every kind.

use nova_units::{
    BlockId, BootId, CommitPoint, DeviceId, Epoch, Generation, GroupId, NodeId, Seq, UnitIndex,
};
use novafs_format::{Codec, Cut, LogEntry, SealedUnit};
use novafs_replica::compare::{FenceMark, Held, UnitMark};
use novafs_replica::{Agreed, Answer, BlockFence, Grant, LocatedUnit, Message, Pulse, Route, Versioned};

pub(crate) const GROUP: GroupId = GroupId(0x0102_0304);
const EPOCH: Epoch = Epoch(0x11);
const BLOCK: BlockId = BlockId::new(2, 0x0a0b);
const GRANT: Grant = Grant { boot: BootId(0xb007), number: 3 };
const CUT: Cut = Cut { generation: Generation(5), counter: 78, salt: [0x5a; 16] };
const AT: CommitPoint = CommitPoint { epoch: Epoch(0x10), seq: Seq(0x2222) };

pub(crate) fn sealed(unit: u16) -> SealedUnit {
    let mut page_crc = [0; 16];
    page_crc[..2].copy_from_slice(&[0xdead_beef, 0x1234_5678]);
    SealedUnit {
        block: BLOCK,
        unit: UnitIndex(unit),
        generation: Generation(5),
        counter: 77,
        plain_bytes: 5000,
        stored_bytes: 5000,
        codec: Codec::Raw,
        unit_log2: 16,
        tag: [0x7a; 16],
        salt: [0x5a; 16],
        digest: [0xd1; 32],
        page_crc,
    }
}

fn versioned(unit: u16) -> Versioned {
    Versioned { sealed: sealed(unit), commit: AT }
}

fn held() -> Held {
    let unit = UnitMark {
        place: (BLOCK, UnitIndex(3)),
        generation: Generation(5),
        counter: 77,
        commit: AT,
        digest: [0xd1; 32],
    };
    let fence = FenceMark { block: BLOCK, fence: Generation(6), deleted: false, at: Seq(0x2211) };
    Held { commit: Seq(0x2223), units: vec![unit], fences: vec![fence] }
}

pub(crate) fn messages() -> Vec<(&'static str, Message)> {
    let entry = LogEntry::Units(vec![sealed(1), sealed(2)]);
    let pulse = Pulse { group: GROUP, epoch: EPOCH, commit: Seq(9) };
    let (first, count) = (UnitIndex(16), 16);
    let prepare = |route| Message::Prepare {
        group: GROUP,
        epoch: EPOCH,
        grant: GRANT,
        previous: Seq(0x2221),
        at: AT,
        commit: Seq(0x2220),
        route,
        entry: entry.clone(),
    };
    vec![
        ("write", Message::Write { group: GROUP, epoch: EPOCH, entry: entry.clone() }),
        (
            "write_fence",
            Message::Write {
                group: GROUP,
                epoch: EPOCH,
                entry: LogEntry::Fence { block: BLOCK, generation: Generation(6) },
            },
        ),
        ("read", Message::Read { group: GROUP, epoch: EPOCH, block: BLOCK, first, count }),
        ("locate", Message::Locate { group: GROUP, block: BLOCK, first, count }),
        ("ping", Message::Ping { boot: BootId(0xb007), groups: vec![pulse, pulse] }),
        ("open", Message::Open { group: GROUP, epoch: EPOCH }),
        ("prepare", prepare(Route::Direct)),
        ("prepare_chain", prepare(Route::Chain { next: NodeId(0x31), grant: GRANT })),
        ("prepare_passed_on", prepare(Route::PassedOn)),
        (
            "page",
            Message::Page {
                group: GROUP,
                epoch: EPOCH,
                grant: GRANT,
                first: true,
                last: false,
                through: Seq(0x2222),
                fences: vec![BlockFence { block: BLOCK, generation: Generation(4), cut: CUT }],
                units: vec![versioned(1)],
                lost: vec![versioned(2)],
            },
        ),
        ("withdraw", Message::Withdraw { group: GROUP, epoch: EPOCH, grant: GRANT, keep: Seq(0x2220) }),
        ("commits", Message::Commits { groups: vec![pulse] }),
        ("commit_query", Message::CommitQuery { group: GROUP, epoch: EPOCH }),
        ("fetch", Message::Fetch { group: GROUP, epoch: EPOCH, after: Seq(1) }),
        (
            "copy",
            Message::Copy {
                group: GROUP,
                block: BLOCK,
                unit: UnitIndex(3),
                generation: Generation(5),
                counter: 77,
            },
        ),
        (
            "compare",
            Message::Compare {
                group: GROUP,
                from: (BLOCK, UnitIndex(3)),
                to: (BLOCK, UnitIndex(0x0908)),
                commit: Seq(0x2220),
                digest: [0xd2; 32],
            },
        ),
    ]
}

pub(crate) fn answers() -> Vec<(&'static str, Answer)> {
    let cell = LocatedUnit {
        unit: UnitIndex(16),
        position: 1 << 30,
        cell_bytes: 65_536,
        stored_bytes: 5000,
        plain_bytes: 5000,
        generation: Generation(6),
        counter: 78,
        digest: [0xd3; 32],
    };
    vec![
        ("written", Answer::Written { epoch: EPOCH, seq: Seq(7) }),
        ("units", Answer::Units { units: vec![versioned(1), versioned(9)] }),
        ("located", Answer::Located { node: NodeId(3), device: DeviceId(0xd0d0), cells: vec![cell] }),
        ("stale_epoch", Answer::StaleEpoch { epoch: EPOCH }),
        ("not_primary", Answer::NotPrimary { primary: NodeId(2) }),
        ("not_member", Answer::NotMember),
        ("no_lease", Answer::NoLease),
        ("fenced", Answer::Fenced { generation: Generation(6) }),
        ("full", Answer::Full),
        ("unsettled", Answer::Unsettled),
        ("corrupt", Answer::Corrupt { unit: UnitIndex(3) }),
        ("frozen", Answer::Frozen { retry_after_ms: 100 }),
        ("busy", Answer::Busy { retry_after_ms: 20 }),
        ("conflict", Answer::Conflict),
        ("damaged", Answer::Damaged),
        ("device_failed", Answer::DeviceFailed),
        (
            "pong",
            Answer::Pong { boot: BootId(0xb008), agreed: vec![Agreed { group: GROUP, bytes_free: 1 << 40 }] },
        ),
        (
            "tail",
            Answer::Tail { grant: GRANT, last: AT, commit: Seq(8), complete: true, bytes_free: 1 << 40 },
        ),
        ("prepared", Answer::Prepared { seq: Seq(8), bytes_free: 1 << 40 }),
        ("passed", Answer::Passed { seq: Seq(8), bytes_free: 1 << 40, next: Some((Seq(7), 1 << 41)) }),
        ("passed_alone", Answer::Passed { seq: Seq(8), bytes_free: 1 << 40, next: None }),
        ("no_grant", Answer::NoGrant),
        ("noted", Answer::Noted),
        ("commit_is", Answer::CommitIs { seq: Seq(8) }),
        (
            "entry",
            Answer::Entry {
                at: AT,
                entry: LogEntry::Trim { block: BLOCK, from_unit: UnitIndex(1), cut: CUT },
            },
        ),
        ("absent", Answer::Absent),
        ("same", Answer::Same),
        ("held", Answer::Held { held: held(), next: None }),
        ("held_in_part", Answer::Held { held: held(), next: Some((BLOCK, UnitIndex(0x0907))) }),
    ]
}
