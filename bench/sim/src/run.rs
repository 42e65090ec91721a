//! One run: faults, then healing, then the checks at rest.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::{KillMode, World};
use nova_device::{Clock, Shard};
use nova_units::{BlockId, GroupId, NodeId, TaskClass};
use novafs_edge::{Edge, EdgeOptions, Keyring};
use novafs_format::seal::{CipherKind, DomainKey};

use crate::audit;
use crate::chaos::Chaos;
use crate::cluster::{Cluster, bare_host};
use crate::controller::{CONTROLLER, Controller};
use crate::edge::{Block, SimEdge};
use crate::files::{Files, RealEdge};
use crate::files_group::{FILES, FilesGroup};
use crate::history::{Counts, History};
use crate::net::{Net, SimPeers};
use crate::rest;
use crate::rewrite::Rewritten;
use crate::scenario::Scenario;

pub(crate) const FABRIC: NodeId = NodeId(201);
/// Everything must be whole again this long after the faults stopped. Waits before a host that was dropped often may
/// join again are part of it.
const HEAL_WITHIN: Duration = Duration::from_secs(240);
/// How long writers and readers go on after the faults stopped.
const LAST_WRITES: Duration = Duration::from_secs(4);
/// A member that cannot be filled because disks are full needs what a person would do: delete something, and more
/// until it fits.
const ROOM_AFTER: Duration = Duration::from_secs(20);
/// How long it must stay whole: what the controllers have not noticed yet is noticed by then.
const STEADY: Duration = Duration::from_millis(2_500);
/// Time for what is under way to end.
const SETTLE: Duration = Duration::from_millis(1_500);
/// Programs have ended this long after everything is whole and they were told to.
const PROGRAMS_END_WITHIN: Duration = Duration::from_secs(60);
/// The longest lease, and time to see that it is over.
const SESSIONS_END_WITHIN: Duration = Duration::from_secs(5);
const EDGE_POOL_BYTES: u64 = 32 << 20;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// A digest of everything scheduled: equal for equal seeds.
    pub fingerprint: u64,
    /// How much happened.
    pub counts: Counts,
    /// Virtual time it took.
    pub took: Duration,
    /// Units repaired in place.
    pub repaired: u64,
    /// What happened, in order; only with `verbose`.
    pub events: Vec<String>,
}

/// What a run found to be wrong.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The seed that shows it again.
    pub seed: u64,
    /// What is wrong.
    pub violations: Vec<String>,
    /// What happened, in order.
    pub events: Vec<String>,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {} fails; `sim replay --seed {}` shows it again:", self.seed, self.seed)?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Trouble {}

/// Runs one seed.
///
/// # Errors
/// [`Trouble`] when a check fails.
pub fn run(seed: u64, verbose: bool) -> Result<Outcome, Box<Trouble>> {
    run_scenario(seed, &Scenario::of(seed), verbose)
}

/// Runs one seed with groups of three members, whatever it says of their number.
///
/// # Errors
/// [`Trouble`] when a check fails.
pub fn run_of_three(seed: u64) -> Result<Outcome, Box<Trouble>> {
    run_scenario(seed, &Scenario::of_three(seed), false)
}

/// Runs one seed, and in the middle of it the calendars of all controllers and hosts jump by so many milliseconds.
///
/// # Errors
/// [`Trouble`] when a check fails.
pub fn run_with_jump(seed: u64, jump_ms: i64) -> Result<Outcome, Box<Trouble>> {
    run_scenario(seed, &Scenario { clock_jump_ms: jump_ms, ..Scenario::of(seed) }, false)
}

fn run_scenario(seed: u64, scenario: &Scenario, verbose: bool) -> Result<Outcome, Box<Trouble>> {
    let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(31) ^ 0xc4a0);
    let world = World::new(seed);
    let fabric = bare_host(&world, FABRIC, 0, 1 << 20);
    let seat = bare_host(&world, CONTROLLER, 0, 1 << 20);
    let files_seat = bare_host(&world, FILES, 0, 1 << 20);
    let net = Net::new(fabric, rng.u64(..));
    let controller = Controller::new(seat.clone(), rng.u64(..), scenario.groups, scenario.replicas);
    let mut cluster = Cluster::new(world, Rc::clone(&net), Rc::clone(&controller), scenario);
    for node in 1..=scenario.hosts {
        let drift =
            if scenario.drift_ppm == 0 { 0 } else { rng.i32(-scenario.drift_ppm..=scenario.drift_ppm) };
        cluster.add_host(NodeId(node), scenario.disk_bytes, drift);
        cluster.start(NodeId(node));
    }
    seat.spawn(TaskClass::Control, Rc::clone(&controller).lead());

    let mut chaos = Chaos::default();
    let mut found = Vec::new();
    if !cluster.world.run_until(Duration::from_secs(30), || controller.is_whole()) {
        found.push("the groups were not formed".to_owned());
    }
    let history = Rc::new(RefCell::new(History::default()));
    let stopping = Rc::new(Cell::new(false));
    let blocks = make_blocks(scenario, &controller, &mut rng);
    let edges = start_edges(&cluster, scenario, &history, &stopping, &blocks, &mut rng);
    let group = FilesGroup::start(&files_seat, &net, &controller, &history, (rng.u64(..), verbose));
    let bytes_max = if scenario.small { 60 << 10 } else { 400 << 10 };
    let files = Files::new((&net, &controller, &group), &history, &stopping, bytes_max, scenario.drift_ppm);
    for node in Files::nodes() {
        files.start(&cluster.world, node);
    }
    let rewritten = start_rewriting(&cluster, scenario, &edges);
    cluster.world.run_for(Duration::from_millis(300));
    chaos.rage(&cluster, &files, scenario, &mut rng);
    if scenario.deletes {
        // Its writer and readers go on, and must be refused.
        delete_block(&edges[0], &blocks[0]);
        if let Some(block) = blocks.get(1).filter(|_| scenario.blocks > 2) {
            collect_block(&cluster, &edges[0], block);
        }
    }
    chaos.end(&cluster, &files);
    let mut room = Room { due: cluster.world.now() + ROOM_AFTER, next: 1 };
    let healed_by = cluster.world.now() + HEAL_WITHIN;
    let whole = |cluster: &Cluster| controller.is_whole() && cluster.is_sound();
    let mut whole_since = None;
    while cluster.world.now() < healed_by {
        cluster.world.run_for(Duration::from_millis(250));
        chaos.recover_due(&cluster, &files, &mut rng);
        let now = cluster.world.now();
        if now >= healed_by - HEAL_WITHIN + LAST_WRITES {
            stopping.set(true);
        }
        if let Some(block) = room.next_due(now, &blocks) {
            collect_block(&cluster, &edges[0], block);
        }
        whole_since = if whole(&cluster) { whole_since.or(Some(now)) } else { None };
        if whole_since.is_some_and(|since| now >= since + STEADY) {
            break;
        }
    }
    if !whole(&cluster) {
        found.push(format!("not whole {HEAL_WITHIN:?} after the faults stopped:\n{}", controller.describe()));
    }
    stopping.set(true);
    cluster.world.run_for(Duration::from_secs(7));
    cluster.world.run_for(SETTLE);
    if found.is_empty() {
        found.extend(end_programs(&cluster, &files));
        let (wrong, held) = rest::check(&cluster, &edges[0], &blocks);
        found.extend(wrong);
        found.extend(disputes(&cluster));
        group.check_at_rest();
        found.extend(files.check_salts(&held));
        found.extend(audit::reachable(&group.namespace(), &held));
        found.extend(files.read_all(&cluster.world));
        for file in &rewritten {
            found.extend(cluster.world.run(&edges[0].shard, Rc::clone(file).read_at_rest()));
        }
    }
    let mut history = history.borrow_mut();
    found.append(&mut history.violations);
    let mut events: Vec<_> = chaos.events.clone();
    events.extend(
        controller
            .log
            .borrow()
            .iter()
            .map(|(at, what)| (at.saturating_sub(Duration::from_secs(CONTROLLER.0 * 10)), what.clone())),
    );
    events.extend(group.log());
    events.sort();
    let events: Vec<_> = events.into_iter().map(|(at, what)| format!("{at:?} {what}")).collect();
    let repaired = cluster
        .hosts
        .values()
        .filter_map(|host| host.member.borrow().as_ref().map(|member| member.counters().units_repaired))
        .sum();
    let mut counts = history.counts;
    for (_, member) in cluster.members() {
        let host = member.counters().host;
        counts.chained += host.entries_chained;
        counts.chains_broken += host.chains_broken;
        let store = member.store().counters();
        counts.slots_emptied += store.slots_emptied;
        counts.rode += store.inline_bytes;
    }
    let took = cluster.world.now();
    let fingerprint = cluster.world.fingerprint();
    let described = if found.is_empty() { Vec::new() } else { cluster.describe() };
    files.end(&cluster.world);
    // Hosts know each other through the network, and it knows them: part them, or nothing is ever freed.
    for node in cluster.hosts.keys() {
        cluster.kill(*node, KillMode::Process);
    }
    if found.is_empty() {
        let events = if verbose { events } else { Vec::new() };
        Ok(Outcome { seed, fingerprint, counts, took, repaired, events })
    } else {
        let mut told = vec![format!("{scenario:?}")];
        told.extend(events);
        told.extend(described);
        Err(Box::new(Trouble { seed, violations: found, events: told }))
    }
}

/// What members hold differently without a word of the log, by their own finding.
fn disputes(cluster: &Cluster) -> Vec<String> {
    let health = cluster
        .members()
        .into_iter()
        .flat_map(|(node, member)| member.health().into_iter().map(move |health| (node, health)));
    let disputed = health.filter(|(_, health)| health.disputed_units > 0 || health.damaged);
    disputed
        .map(|(node, health)| format!("{node} finds that its peers hold other units: {health:?}"))
        .collect()
}

/// Who makes room on full disks.
struct Room {
    due: Duration,
    next: usize,
}

impl Room {
    fn next_due<'a>(&mut self, now: Duration, blocks: &'a [Rc<Block>]) -> Option<&'a Rc<Block>> {
        if now < self.due {
            return None;
        }
        self.due = now + ROOM_AFTER / 4;
        self.next += 1;
        blocks.get(self.next - 1)
    }
}

pub(crate) fn make_blocks(
    scenario: &Scenario,
    controller: &Controller,
    rng: &mut fastrand::Rng,
) -> Rc<Vec<Rc<Block>>> {
    let groups: Vec<GroupId> = controller.members().into_keys().collect();
    let block = |number: u64| {
        let group = groups.get(usize::try_from(number).expect("few") % groups.len().max(1)).copied();
        let unit_log2 = rng.u8(scenario.unit_log2.0..=scenario.unit_log2.1);
        let mut salt = [0; 16];
        rng.fill(&mut salt);
        let group = group.unwrap_or(GroupId(1));
        Rc::new(Block::new(BlockId::new(1, number), group, unit_log2, scenario.units, salt))
    };
    Rc::new((0..scenario.blocks).map(block).collect())
}

pub(crate) fn start_edges(
    cluster: &Cluster,
    scenario: &Scenario,
    history: &Rc<RefCell<History>>,
    stopping: &Rc<Cell<bool>>,
    blocks: &Rc<Vec<Rc<Block>>>,
    rng: &mut fastrand::Rng,
) -> Vec<Rc<SimEdge>> {
    let mut edges = Vec::new();
    for number in 0..2 {
        let node = NodeId(101 + number);
        let shard = bare_host(&cluster.world, node, 0, EDGE_POOL_BYTES);
        let edge = Rc::new(SimEdge {
            node,
            shard: shard.clone(),
            peers: SimPeers { net: Rc::clone(&cluster.net), me: node, shard: shard.clone() },
            map: RefCell::default(),
            history: Rc::clone(history),
            // The quicker one in a build without optimization; files are sealed and opened by both.
            domain: DomainKey::new(1, 1, [7; 32]).with_cipher(CipherKind::AwsLc),
            stopping: Rc::clone(stopping),
            echoes: Cell::default(),
            echo_permille: scenario.echo_permille,
            takeover_permille: scenario.takeover_permille,
            idle_ms: scenario.idle_ms,
        });
        let delay = Duration::from_millis(rng.u64(5..150));
        shard.spawn(TaskClass::Control, follow_map(Rc::clone(&edge), Rc::clone(&cluster.controller), delay));
        for (index, block) in blocks.iter().enumerate() {
            if index % 2 == usize::from(number == 1) {
                shard.spawn(TaskClass::Client, Rc::clone(&edge).run_writer(Rc::clone(block)));
            }
        }
        for _ in 0..scenario.readers {
            shard.spawn(TaskClass::Client, Rc::clone(&edge).run_reader(Rc::clone(blocks)));
        }
        edges.push(edge);
    }
    edges
}

/// Programs end, and what they left open ends after its lease; what does not.
fn end_programs(cluster: &Cluster, files: &Files) -> Vec<String> {
    let mut found = Vec::new();
    if !cluster.world.run_until(PROGRAMS_END_WITHIN, || files.running().is_empty()) {
        found.push(format!(
            "a program did not finish within {PROGRAMS_END_WITHIN:?} of a whole cluster: {:?}",
            files.running()
        ));
    }
    if !cluster.world.run_until(SESSIONS_END_WITHIN, || files.group.is_quiet()) {
        found.push("a session of nobody stays open, or a removed tree stays".to_owned());
    }
    found
}

/// The real edge on a host of clients, with the map that the host has.
pub(crate) fn real_edge(host: &Rc<SimEdge>, cipher: CipherKind) -> Rc<RealEdge> {
    let keys = Keyring::of(DomainKey::new(1, 1, [9; 32]).with_cipher(cipher));
    let options = EdgeOptions {
        deadline: Duration::from_secs(8),
        attempt: Duration::from_millis(1_200),
        ..EdgeOptions::default()
    };
    let edge = Edge::new(host.shard.clone(), host.peers.clone(), keys, options);
    let (follower, host) = (Rc::clone(&edge), Rc::clone(host));
    host.shard.clone().spawn(TaskClass::Control, async move {
        loop {
            follower.configure(Rc::new(host.map.borrow().clone()));
            let clock = host.shard.clock();
            clock.sleep_until(clock.now() + Duration::from_millis(40)).await;
        }
    });
    edge
}

/// Files that are rewritten through the real edge on both hosts, each with a reader.
fn start_rewriting(cluster: &Cluster, scenario: &Scenario, hosts: &[Rc<SimEdge>]) -> Vec<Rc<Rewritten>> {
    if scenario.rewritten == 0 {
        return Vec::new();
    }
    // Each side has another cipher: one opens what the other sealed.
    let edges = [real_edge(&hosts[0], CipherKind::AwsLc), real_edge(&hosts[1], CipherKind::AesGcm)];
    let groups: Vec<GroupId> = cluster.controller.members().into_keys().collect();
    let host = &hosts[0];
    let start = |number: u64| {
        let group = groups.get(usize::try_from(number).expect("few") % groups.len().max(1));
        let group = group.copied().unwrap_or(GroupId(1));
        let unit_log2 = 12 + u8::try_from(host.shard.random() % 5).expect("small");
        let bytes_max = if scenario.small { 60 << 10 } else { 5 << unit_log2 };
        let place = (group, BlockId::new(3, number), unit_log2);
        let file = Rewritten::new(edges.clone(), Rc::clone(host), place, bytes_max);
        host.shard.spawn(TaskClass::Client, Rc::clone(&file).run());
        host.shard.spawn(TaskClass::Client, Rc::clone(&file).run_reader());
        file
    };
    (0..scenario.rewritten).map(start).collect()
}

async fn follow_map(edge: Rc<SimEdge>, controller: Rc<Controller>, delay: Duration) {
    loop {
        let map = controller.configuration(edge.node, nova_units::BootId(0), Duration::ZERO);
        let clock = edge.shard.clock();
        clock.sleep_until(clock.now() + delay).await;
        edge.map.replace(map);
    }
}

fn delete_block(edge: &Rc<SimEdge>, block: &Rc<Block>) {
    let (deleting, block) = (Rc::clone(edge), Rc::clone(block));
    edge.shard.spawn(TaskClass::Client, async move { deleting.delete(&block).await });
}

fn collect_block(cluster: &Cluster, edge: &Rc<SimEdge>, block: &Rc<Block>) {
    let (asking, block, hosts) = (Rc::clone(edge), Rc::clone(block), cluster.hosts.clone());
    edge.shard.spawn(TaskClass::Background, async move { asking.collect(&block, &hosts).await });
}
