//! Any commands in any order keep the rules, and plans are accepted.

use nova_groups::{
    AddJoining, Admit, Answer, Command, ConfirmGroup, Drop, DropMembers, FailDevice, Groups, Joining, Mount,
    MovePrimary, Op, ReadyReport, Reinstate, ReinstateGroup, Restart,
};
use nova_units::{DeviceId, GroupId, NodeId, Replicas};
use proptest::prelude::*;

use crate::kit::{Region, check_step, device, secs};

const HOSTS: u64 = 6;
const HOSTS_LEN: usize = 6;
const _: () = assert!(HOSTS == HOSTS_LEN as u64);
/// Devices of each host, of different sizes.
const DEVICES: u128 = 2;
const SIZES: &[u64] = &[1, 3];
const GROUPS: u32 = 3;

fn index_of(host: u64) -> usize {
    usize::try_from(host).unwrap()
}

fn epoch_near(groups: &Groups, group: u32, back: u64) -> u64 {
    groups.group(GroupId(group)).map_or(1, |group| group.epoch.0.saturating_sub(back))
}

/// Numbers that become a command on the state at hand, so that most epochs are right.
#[derive(Clone, Debug)]
struct Dice {
    kind: u8,
    group: u32,
    back: u64,
    nodes: Vec<u64>,
    counter: u64,
}

fn dice() -> impl Strategy<Value = Dice> {
    let back = prop_oneof![9 => Just(0_u64), 1 => 1..3_u64];
    (0..8_u8, 1..=GROUPS, back, prop::collection::vec(1..=HOSTS, 1..3), 0..6_u64)
        .prop_map(|(kind, group, back, nodes, counter)| Dice { kind, group, back, nodes, counter })
}

fn command(groups: &Groups, dice: &Dice) -> Op {
    let Dice { group, nodes, .. } = dice.clone();
    let epoch = epoch_near(groups, group, dice.back);
    let joining =
        vec![Joining { group, epoch, node: nodes[0], replaces: nodes.last().copied().unwrap_or(0) }];
    match dice.kind {
        0 | 1 => Op::Drop(Drop { groups: vec![DropMembers { group, epoch, nodes }], rebuilt: false }),
        2 => Op::AddJoining(AddJoining { groups: joining }),
        3 => Op::Admit(Admit { groups: joining }),
        7 => Op::MovePrimary(MovePrimary { groups: joining }),
        4 => Op::Reinstate(Reinstate { groups: vec![ReinstateGroup { group, epoch, nodes }] }),
        5 => {
            let mounts = nodes
                .iter()
                .enumerate()
                .map(|(index, node)| {
                    let id = device(*node, u128::from(dice.counter) / 2 * index as u128 % DEVICES);
                    let known = groups.devices().find(|(known, _)| known.0 == id);
                    let known = known.map(|(_, device)| device.clone());
                    let before = known.as_ref().map_or(0, |device| device.mount.0);
                    // Some do not name the mount that is known, and some have too many.
                    let trail = match dice.counter % 8 {
                        0 => vec![before; 9],
                        1 | 2 => vec![before ^ 1, dice.counter],
                        _ => vec![before, dice.counter],
                    };
                    let counter = known.as_ref().map_or(1, |device| device.mount_counter);
                    Mount {
                        node: *node,
                        boot: 10_000 + dice.counter,
                        device: id.to_be_bytes().to_vec(),
                        mount_counter: (counter + dice.counter).saturating_sub(1),
                        incarnation: known.map_or(0, |device| device.incarnation.0),
                        bytes_total: 1,
                        trail,
                    }
                })
                .collect();
            Op::Restart(Restart { mounts, confirm: vec![ConfirmGroup { group, epoch, nodes }] })
        }
        _ => Op::FailDevice(FailDevice {
            device: device(nodes[0], u128::from(dice.counter) % DEVICES).to_be_bytes().to_vec(),
            reason: String::new(),
        }),
    }
}

#[derive(Clone, Debug)]
enum Happening {
    Time(u64),
    Kill(u64),
    Start(u64),
    StartWithout(u64, u128),
    Fail(u64, u128),
    Report(u64, Vec<u64>),
    Ready(u32),
    Drain(u64, bool),
    Slow(u64, bool),
    Page(u32),
}

fn replicas() -> impl Strategy<Value = Replicas> {
    prop::sample::select(Replicas::all().collect::<Vec<_>>())
}

fn happening() -> impl Strategy<Value = Happening> {
    let host = 1..=HOSTS;
    prop_oneof![
        4 => (1..12_000_u64).prop_map(Happening::Time),
        1 => host.clone().prop_map(Happening::Kill),
        2 => host.clone().prop_map(Happening::Start),
        1 => (host.clone(), 0..DEVICES).prop_map(|(host, index)| Happening::StartWithout(host, index)),
        1 => (host.clone(), 0..DEVICES).prop_map(|(host, index)| Happening::Fail(host, index)),
        3 => (host.clone(), prop::collection::vec(host, 1..3)).prop_map(|(reporter, silent)| Happening::Report(reporter, silent)),
        3 => (1..=GROUPS).prop_map(Happening::Ready),
        1 => (1..=HOSTS, any::<bool>()).prop_map(|(host, on)| Happening::Drain(host, on)),
        1 => (1..=HOSTS, any::<bool>()).prop_map(|(host, on)| Happening::Slow(host, on)),
        1 => (1..=GROUPS).prop_map(Happening::Page),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_commands_in_any_order_keep_the_rules(replicas in replicas(), rolls in prop::collection::vec(dice(), 0..80)) {
        let mut groups = Region::with_replicas(&[SIZES; HOSTS_LEN], GROUPS as usize, &[replicas]).groups;
        let mut twin = groups.clone();
        for (number, roll) in rolls.iter().enumerate() {
            let command = Command { at_ms: 2_000_000 + 1000 * number as u64, op: Some(command(&groups, roll)) };
            let before = groups.clone();
            let answer: Answer = groups.apply(&command);
            prop_assert_eq!(answer, twin.apply(&command), "apply is deterministic");
            check_step(&before, &groups);
        }
        prop_assert_eq!(&Groups::decode(&groups.encode_to_vec()).unwrap(), &groups);
        prop_assert_eq!(groups.encode_to_vec(), twin.encode_to_vec());
    }

    #[test]
    fn what_is_planned_on_a_state_is_accepted_by_it(
        replicas in replicas(),
        happenings in prop::collection::vec(happening(), 0..60),
    ) {
        let mut region = Region::with_replicas(&[SIZES; HOSTS_LEN], GROUPS as usize, &[replicas]);
        let mut up = [true; HOSTS_LEN + 1];
        let mut boot = 50_000;
        for happening in happenings {
            match happening {
                Happening::Time(ms) => {
                    let running: Vec<u64> = (1..=HOSTS).filter(|host| up[index_of(*host)]).collect();
                    region.pass(std::time::Duration::from_millis(ms), &running);
                }
                Happening::Kill(host) => up[index_of(host)] = false,
                Happening::Start(host) => {
                    boot += 1;
                    up[index_of(host)] = true;
                    region.start(host, boot);
                }
                Happening::StartWithout(host, index) => {
                    boot += 1;
                    up[index_of(host)] = true;
                    region.start_without(host, boot, &[device(host, index)]);
                }
                Happening::Fail(host, index) => {
                    // Not all of them: with less than three hosts that store, nothing can heal.
                    if host == 1 && index == 0 {
                        region.observed.failed.push((DeviceId(device(host, index)), "write: EIO".into()));
                    }
                }
                Happening::Report(reporter, silent) if up[index_of(reporter)] => region.report(reporter, &silent),
                Happening::Report(..) => {}
                Happening::Drain(host, true) => drop(region.observed.draining.insert(NodeId(host))),
                Happening::Drain(host, false) => drop(region.observed.draining.remove(&NodeId(host))),
                Happening::Slow(host, slow) => region.pace_host(host, slow),
                Happening::Page(id) => {
                    region.observed.paging = region.group(id).members.iter().map(|it| (GroupId(id), it.node)).collect();
                }
                Happening::Ready(id) => {
                    let group = region.group(id);
                    if let Some(joiner) = group.members.iter().find(|it| it.role == nova_groups::Role::Joining) {
                        region.observed.ready.push(ReadyReport {
                            reporter: group.primary, node: joiner.node, group: GroupId(id), epoch: group.epoch,
                        });
                    }
                }
            }
            // Every planned command is asserted to be accepted in there.
            region.round();
        }
        // When the faults stop, every host is up and hears all: the groups heal.
        region.observed.silences.clear();
        region.observed.mounts.clear();
        region.observed.draining.clear();
        region.observed.paging.clear();
        let all: Vec<u64> = (1..=HOSTS).collect();
        for host in 1..=HOSTS {
            boot += 1;
            region.start(host, boot);
        }
        for _ in 0..40 {
            region.pass(secs(60), &all);
            region.settle();
            region.observed.ready = region.groups.iter().filter_map(|(id, group)| {
                let joiner = group.members.iter().find(|it| it.role == nova_groups::Role::Joining)?;
                Some(ReadyReport { reporter: group.primary, node: joiner.node, group: id, epoch: group.epoch })
            }).collect();
            region.settle();
        }
        for (id, group) in region.groups.iter() {
            prop_assert_eq!(group.in_sync().count(), replicas.count(), "{} did not heal: {:?}", id, group);
        }
    }
}
