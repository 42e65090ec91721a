//! One of each slot, with fields that differ from each other in every byte where they can.
use nova_ring::abi::{
    AgentCommand, AgentEvent, Answer, BlockRun, BlockRuns, ClientCommand, ClosedBlock, HeldBlocks, LostUnits,
    MetadataReply, MetadataRequest, OpenedWriter, PeerHeard, PeersHeard, RetryAfter, Slot, Status, Words,
};
use nova_units::{
    BlockId, BootId, DeviceId, Epoch, Generation, GroupId, Incarnation, MountNonce, MountTrail, NodeId,
};

fn salt(first: u8) -> [u8; 16] {
    std::array::from_fn(|index| first + u8::try_from(index).unwrap())
}

pub(super) fn client_commands() -> Vec<(&'static str, ClientCommand)> {
    let (block, group, generation) =
        (BlockId::new(3, 0x0102_0304_0506), GroupId(0x0708_090a), Generation(0x0b0c));
    vec![
        (
            "open_writer",
            ClientCommand::OpenWriter {
                request: 0x1112_1314_1516_1718,
                key_domain: 0x2122_2324,
                key_version: 0x3132_3334,
            },
        ),
        (
            "write",
            ClientCommand::Write {
                request: 2,
                writer: 0x2122_2324_2526_2728,
                group,
                block,
                generation,
                unit_log2: 16,
                offset: 0x0031_3233,
                bytes: 0x000f_4142,
                block_bytes: 0x0043_4445,
                arena_offset: 0x3132_3334_3536,
            },
        ),
        (
            "close_block",
            ClientCommand::CloseBlock { request: 3, writer: 4, block, generation, plain_bytes: 134_217_728 },
        ),
        ("close_writer", ClientCommand::CloseWriter { request: 5, writer: 6 }),
        (
            "read",
            ClientCommand::Read {
                request: 7,
                group,
                block,
                key_domain: 0x6162_6364,
                key_version: 0x6566_6768,
                unit_log2: 12,
                block_bytes: 0x0071_7273,
                offset: 0x0010_8182,
                bytes: 0x0009_9192,
                arena_offset: 0xa1a2_a3a4_a5a6,
                sparse: true,
            },
        ),
        (
            "locate",
            ClientCommand::Locate {
                request: 8,
                group,
                block,
                first_unit: 0x0102,
                count: 0x0304,
                arena_offset: 9,
                arena_bytes: 65_536,
            },
        ),
        ("release_block", ClientCommand::ReleaseBlock { request: 10, writer: 0x2122, block, generation }),
        ("fence", ClientCommand::Fence { request: 11, group, block, generation }),
        (
            "trim",
            ClientCommand::Trim {
                request: 12,
                writer: 0x2122,
                group,
                block,
                generation,
                unit_log2: 16,
                from_bytes: 0x0051_5253,
            },
        ),
        ("current_key", ClientCommand::CurrentKey { request: 13, key_domain: 0x0102_0304 }),
    ]
}

pub(super) fn answers() -> Vec<(&'static str, Answer)> {
    let opened = OpenedWriter { writer: 0x0102, key_domain: 0x3132, key_version: 0x4142 };
    let closed =
        ClosedBlock { root: std::array::from_fn(|index| u8::try_from(index).unwrap()), units: 0x0506 };
    vec![
        ("answer_plain", Answer { bytes: 0x0102_0304, ..Answer::new(0x0a0b, Status::Corrupt) }),
        ("answer_opened", Answer { detail: opened.encode(), ..Answer::new(1, Status::Ok) }),
        ("answer_closed", Answer { detail: closed.encode(), ..Answer::new(2, Status::Ok) }),
        (
            "answer_busy",
            Answer { detail: RetryAfter { retry_after_ms: 250 }.encode(), ..Answer::new(3, Status::Busy) },
        ),
    ]
}

fn runs(count: u32) -> BlockRuns {
    let run =
        |index: u32| BlockRun { first: BlockId::new(5, 0x4142 + u64::from(index)), count: 0x0301 + index };
    BlockRuns::new(&(0..count).map(run).collect::<Vec<_>>())
}

pub(super) fn agent_commands() -> Vec<(&'static str, AgentCommand)> {
    let device = DeviceId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    vec![
        ("configure", AgentCommand::Configure { version: 0x1112, buffer: 1, bytes: 0x0003_2122 }),
        ("admit_ticket", AgentCommand::AdmitTicket { ticket: salt(0x30), uid: 1000, valid_ms: 10_000 }),
        ("lease", AgentCommand::Lease { sent_boottime_ms: 0x0004_4142_4344, lease_ms: 25_000 }),
        ("incarnate", AgentCommand::Incarnate { device, incarnation: Incarnation(0x5152), wipe: true }),
        ("stop", AgentCommand::Stop {}),
        ("expect_device", AgentCommand::ExpectDevice { device, failed: true }),
        ("open_devices", AgentCommand::OpenDevices { order: 0x1112_1314_1516_1718 }),
        ("close_device", AgentCommand::CloseDevice { order: 0x1112, device }),
        (
            "give_key",
            AgentCommand::GiveKey {
                domain: 0x0102_0304,
                version: 0x0506,
                current: 0x0708_090a,
                held_s: 86_400,
                boxed: std::array::from_fn(|index| 0x10 + u8::try_from(index).unwrap()),
            },
        ),
        ("drop_keys", AgentCommand::DropKeys { domain: 0x0b0c_0d0e }),
        ("delete_blocks", AgentCommand::DeleteBlocks { group: GroupId(0x0102_0304), runs: runs(8) }),
        (
            "list_blocks",
            AgentCommand::ListBlocks {
                request: 0x1112_1314_1516_1718,
                group: GroupId(0x2122_2324),
                from: BlockId(0x3132_3334_3536_3738),
                limit: 0x0142,
            },
        ),
    ]
}

pub(super) fn agent_events() -> Vec<(&'static str, AgentEvent)> {
    let device = DeviceId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
    let peers: Vec<PeerHeard> = (1..=7)
        .map(|node| PeerHeard {
            node: NodeId(0x1100 + node),
            boot: (node != 2).then_some(BootId(0x2100 + node)),
            heard: node % 3 == 0,
        })
        .collect();
    vec![
        (
            "key_wanted",
            AgentEvent::KeyWanted {
                domain: 0x0102_0304,
                public: std::array::from_fn(|index| 0x20 + u8::try_from(index).unwrap()),
            },
        ),
        (
            "mounted",
            AgentEvent::Mounted {
                device,
                mount_counter: 0x2122,
                incarnation: Incarnation(0x3132),
                bytes_total: 1 << 40,
                place: 7,
                trail: MountTrail::new(&[MountNonce(0x4142), MountNonce(0x5152)]).unwrap(),
            },
        ),
        ("peers_none", AgentEvent::Peers { peers: PeersHeard::new(&[]) }),
        ("peers_full", AgentEvent::Peers { peers: PeersHeard::new(&peers) }),
        (
            "join_ready",
            AgentEvent::JoinReady { group: GroupId(0x4142), epoch: Epoch(0x5152), node: NodeId(0x6162) },
        ),
        ("device_failed", AgentEvent::DeviceFailed { device, errno: 5 }),
        ("configured", AgentEvent::Configured { version: 0x6162 }),
        ("usage", AgentEvent::Usage { device, bytes_total: 1 << 41, bytes_free: 1 << 39 }),
        ("device_broken", AgentEvent::DeviceBroken { place: 3 }),
        (
            "device_silent",
            AgentEvent::DeviceSilent {
                node: NodeId(0x1112),
                boot: BootId(0x2122),
                incarnation: Incarnation(0x3132),
            },
        ),
        (
            "device_trouble",
            AgentEvent::DeviceTrouble { place: 7, words: Words::of("no such drive").next().unwrap() },
        ),
        ("devices_ordered", AgentEvent::DevicesOrdered { order: 0x2122_2324_2526_2728 }),
        (
            "device_pace",
            AgentEvent::DevicePace {
                device,
                window: 0x3132,
                entries: 0x4142_4344,
                median_us: 0x5152,
                p99_us: 0x0061_6263,
            },
        ),
        ("devices_told", AgentEvent::DevicesTold { mounted: 23, broken: 1 }),
        ("serving", AgentEvent::Serving { serving: true }),
        (
            "blocks_deleted",
            AgentEvent::BlocksDeleted {
                group: GroupId(0x0102_0304),
                deleted: 0x1112_1314,
                bytes: 0x2122_2324_2526_2728,
                runs: runs(2),
            },
        ),
        (
            "blocks_held",
            AgentEvent::BlocksHeld {
                request: 0x0a0b,
                part: 0x0c0d,
                last: true,
                more: true,
                blocks: HeldBlocks::new(&(1..=12).map(|id| BlockId::new(7, 0x1100 + id)).collect::<Vec<_>>()),
            },
        ),
        (
            "health",
            AgentEvent::Health {
                group: GroupId(0x4142),
                units: 0x0102_0304_0506,
                blocks: 0x1112_1314,
                bytes_verified: 0x2122_2324_2526,
                verified_since_ms: 0x0199_3132_3334,
                bad_units: 0x4344,
                risky_blocks: 0x4546,
                disputed_units: 0x4748,
                repaired: 0x5152_5354,
                filled_units: 0x6162_6364,
                damaged: true,
            },
        ),
        (
            "filling",
            AgentEvent::Filling {
                group: GroupId(0x4142),
                filling: true,
                block: BlockId::new(7, 0x4344),
                unit: 0x4546,
                followed: 0x5152_5354,
            },
        ),
        (
            "lost",
            AgentEvent::Lost {
                group: GroupId(0x4142),
                units: 0x4344,
                named: LostUnits::new((1..=8).map(|id| (BlockId::new(7, 0x1100 + id), 0x2200))),
            },
        ),
    ]
}

pub(super) fn metadata() -> (MetadataRequest, MetadataRequest, MetadataReply) {
    (
        MetadataRequest::Request {
            request: 0x0102,
            offset: 0x1112,
            bytes: 300,
            reply_offset: 0x2122,
            reply_bytes_max: 65_536,
        },
        MetadataRequest::OpenData { request: 0x0304, reply_offset: 0x3132, reply_bytes_max: 4096 },
        MetadataReply::Reply { request: 0x0506, status: Status::Unavailable, bytes: 77 },
    )
}

/// Every sample as its slot, by name.
pub(super) fn slots() -> Vec<(&'static str, Slot)> {
    let mut all: Vec<(&'static str, Slot)> = Vec::new();
    all.extend(client_commands().iter().map(|(name, command)| (*name, command.encode())));
    all.extend(answers().iter().map(|(name, answer)| (*name, answer.encode())));
    all.extend(agent_commands().iter().map(|(name, command)| (*name, command.encode())));
    all.extend(agent_events().iter().map(|(name, event)| (*name, event.encode())));
    let (request, open, reply) = metadata();
    all.extend([("metadata_request", request.encode()), ("metadata_open_data", open.encode())]);
    all.push(("metadata_reply", reply.encode()));
    all
}
