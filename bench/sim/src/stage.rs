//! A cluster on a good day, for one thing to go wrong on it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use nova_device::Shard;
use nova_device::mem::{KillMode, World};
use nova_units::{NodeId, TaskClass};

use crate::cluster::{Cluster, bare_host};
use crate::controller::{CONTROLLER, Controller};
use crate::edge::{Block, SimEdge};
use crate::history::History;
use crate::net::Net;
use crate::rest;
use crate::run::{FABRIC, make_blocks, start_edges};
use crate::scenario::Scenario;

/// Groups are formed within this virtual time.
const FORMED_WITHIN: Duration = Duration::from_secs(30);
/// Groups are whole again within this, waits of hosts that were dropped often included.
pub(crate) const WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// Time for what is under way to end.
pub(crate) const SETTLE: Duration = Duration::from_secs(8);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The cluster, and clients that write and read units.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) controller: Rc<Controller>,
    pub(crate) history: Rc<RefCell<History>>,
    pub(crate) blocks: Rc<Vec<Rc<Block>>>,
    pub(crate) edges: Vec<Rc<SimEdge>>,
    pub(crate) rng: fastrand::Rng,
    stopping: Rc<Cell<bool>>,
}

/// A cluster whose groups are whole, and nobody who uses it.
///
/// # Errors
/// The groups were not formed.
pub(crate) fn form(
    seed: u64,
    scenario: &Scenario,
    rng: &mut fastrand::Rng,
) -> Result<(Cluster, Rc<Net>, Rc<Controller>), String> {
    let world = World::new(seed);
    let fabric = bare_host(&world, FABRIC, 0, 1 << 20);
    let seat = bare_host(&world, CONTROLLER, 0, 1 << 20);
    let net = Net::new(fabric, rng.u64(..));
    let controller = Controller::new(seat.clone(), rng.u64(..), scenario.groups, scenario.replicas);
    let mut cluster = Cluster::new(world, Rc::clone(&net), Rc::clone(&controller), scenario);
    for node in 1..=scenario.hosts {
        cluster.add_host(NodeId(node), scenario.disk_bytes, 0);
        cluster.start(NodeId(node));
    }
    seat.spawn(TaskClass::Control, Rc::clone(&controller).lead());
    if cluster.world.run_until(FORMED_WITHIN, || controller.is_whole()) {
        Ok((cluster, net, controller))
    } else {
        Err("the groups were not formed".to_owned())
    }
}

impl Stage {
    /// A cluster whose groups are whole, with clients at work.
    ///
    /// # Errors
    /// The groups were not formed.
    pub(crate) fn new(seed: u64, scenario: &Scenario) -> Result<Self, String> {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x0707);
        let (cluster, _, controller) = form(seed, scenario, &mut rng)?;
        let history = Rc::new(RefCell::new(History::default()));
        let stopping = Rc::new(Cell::new(false));
        let blocks = make_blocks(scenario, &controller, &mut rng);
        let edges = start_edges(&cluster, scenario, &history, &stopping, &blocks, &mut rng);
        Ok(Self { cluster, controller, history, blocks, edges, rng, stopping })
    }

    pub(crate) fn run_for(&self, time: Duration) {
        self.cluster.world.run_for(time);
    }

    /// The clients end, and what is under way does.
    pub(crate) fn stop_clients(&self) {
        self.stopping.set(true);
        self.run_for(SETTLE);
    }

    /// A device that is of no use is replaced, as a person would, while time passes. Answers how many were.
    pub(crate) fn run_and_replace(&self, time: Duration) -> u64 {
        let end = self.cluster.world.now() + time;
        let mut replaced = 0;
        while self.cluster.world.now() < end {
            self.run_for(LOOK_EVERY);
            for &node in self.cluster.hosts.keys() {
                if self.cluster.is_up(node) && self.cluster.disk_failed(node) {
                    self.cluster.kill(node, KillMode::Process);
                    self.cluster.replace_disk(node);
                    self.cluster.start(node);
                    replaced += 1;
                }
            }
        }
        replaced
    }

    /// Waits until every group is whole and every host sound.
    ///
    /// # Errors
    /// They are not, in time.
    pub(crate) fn until_whole(&self) -> Result<(), String> {
        let end = self.cluster.world.now() + WHOLE_WITHIN;
        while self.cluster.world.now() < end {
            self.run_and_replace(LOOK_EVERY);
            if self.controller.is_whole() && self.cluster.is_sound() {
                return Ok(());
            }
        }
        Err(format!("not whole within {WHOLE_WITHIN:?}:\n{}", self.controller.describe()))
    }

    /// Waits, without a read by anybody, until all members hold the same sound copies. Answers how long that took.
    ///
    /// # Errors
    /// What still differs after `limit`.
    pub(crate) fn until_alike(&self, limit: Duration) -> Result<Duration, String> {
        let begun = self.cluster.world.now();
        loop {
            let wrong = rest::differences_now(&self.cluster);
            let took = self.cluster.world.now() - begun;
            if wrong.is_empty() {
                return Ok(took);
            }
            if took >= limit {
                return Err(format!("copies differ after {limit:?}: {wrong:#?}"));
            }
            self.run_and_replace(Duration::from_secs(1));
        }
    }

    /// Everything that was acknowledged is read from every member, and nothing else was seen before.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut wrong, _) = rest::check(&self.cluster, &self.edges[0], &self.blocks);
        wrong.append(&mut self.history.borrow_mut().violations);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Hosts know each other through the network, and it knows them: part them, or nothing is ever freed.
        for node in self.cluster.hosts.keys() {
            self.cluster.kill(*node, KillMode::Process);
        }
    }
}
