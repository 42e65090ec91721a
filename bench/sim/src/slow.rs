//! One drive that answers late: what its readers notice, and that it has no primaries any more.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use nova_device::mem::{DiskFaults, Latency};
use nova_device::{Clock, Shard};
use nova_groups::Paces;
use nova_units::{BlockId, Generation, GroupId, NodeId, TaskClass};
use novafs_edge::{ReadRequest, WriteRequest};
use novafs_format::seal::CipherKind;

use crate::edge::SimEdge;
use crate::files::RealEdge;
use crate::run::real_edge;
use crate::scenario::Scenario;
use crate::stage::Stage;

/// The host with the slow drive; it has primaries at first.
const VICTIM: NodeId = NodeId(2);
/// How long is measured.
const MEASURED: Duration = Duration::from_secs(20);
/// Until readers know better and the drive is marked: three windows of ten seconds, and the next one.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);
/// Each writes and reads blocks of its own, in every group in turn.
const UNIT_LOG2: u8 = 14;
const UNITS: u64 = 8;
/// Requests at a time.
const PROBES: u64 = 6;
const PAUSE: Duration = Duration::from_millis(5);

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Slowed {
    /// All but one in a hundred reads took this long at most, before.
    pub read_p99: Duration,
    /// And with the slow drive, once it was marked.
    pub slow_read_p99: Duration,
    /// Half of the writes took this long at most, before.
    pub write_median: Duration,
    /// And with the slow drive.
    pub slow_write_median: Duration,
    /// Reads in each of the two.
    pub reads: (usize, usize),
    /// From the first late answer until the drive was marked.
    pub marked_after: Duration,
    /// Groups whose primary was on the host, before and after.
    pub primaries: (usize, usize),
}

/// Writes and reads through the real edge, one request at a time, and how long each took.
struct Probe {
    host: Rc<SimEdge>,
    edge: Rc<RealEdge>,
    groups: Vec<GroupId>,
    reads: RefCell<Vec<Duration>>,
    writes: RefCell<Vec<Duration>>,
    failed: RefCell<Vec<String>>,
    over: Cell<bool>,
}

impl Probe {
    async fn run(self: Rc<Self>, number: u64) {
        let opened = match self.edge.open_writer(0, 0).await {
            Ok(opened) => opened,
            Err(error) => return self.failed.borrow_mut().push(error.to_string()),
        };
        let clock = self.host.shard.clock();
        let bytes = 1_u64 << UNIT_LOG2;
        let mut turn = 0_u64;
        while !self.over.get() {
            for (place, group) in (1..).zip(&self.groups) {
                let block = BlockId::new(5, number * 100 + place);
                let write = WriteRequest {
                    writer: opened.writer,
                    group: *group,
                    block,
                    generation: Generation(1),
                    unit_log2: UNIT_LOG2,
                    offset: turn % UNITS * bytes,
                    block_bytes: turn.min(UNITS) * bytes,
                    source: Rc::new(vec![1; usize::try_from(bytes).expect("small")]),
                };
                let begun = clock.now();
                match self.edge.write(write).await {
                    Ok(()) => self.writes.borrow_mut().push(clock.now() - begun),
                    Err(error) => self.failed.borrow_mut().push(error.to_string()),
                }
                for _ in 0..4 {
                    let known = (turn + 1).min(UNITS);
                    let read = ReadRequest {
                        group: *group,
                        block,
                        key: opened.key,
                        unit_log2: UNIT_LOG2,
                        block_bytes: known * bytes,
                        offset: self.host.shard.random() % known * bytes,
                        bytes,
                        sparse: true,
                    };
                    let begun = clock.now();
                    match self.edge.read(&read, |_, _| ()).await {
                        Ok(()) => self.reads.borrow_mut().push(clock.now() - begun),
                        Err(error) => self.failed.borrow_mut().push(error.to_string()),
                    }
                    clock.sleep_until(clock.now() + PAUSE).await;
                }
            }
            turn += 1;
        }
    }

    /// What was measured since the last time.
    fn take(&self) -> (Vec<Duration>, Vec<Duration>) {
        let mut taken = (self.reads.take(), self.writes.take());
        taken.0.sort_unstable();
        taken.1.sort_unstable();
        taken
    }
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Makes one drive answer 5 to 500 ms late.
///
/// # Errors
/// What is wrong, or that nothing was measured.
pub fn slow_drive(seed: u64) -> Result<Slowed, String> {
    let stage = Stage::new(seed, &Scenario { groups: 6, scrub: None, ..Scenario::calm(seed) })?;
    // Only the probe is at work: the other clients wait for whichever member they drew.
    stage.stop_clients();
    let host = Rc::clone(&stage.edges[0]);
    let probe = Rc::new(Probe {
        edge: real_edge(&host, CipherKind::AwsLc),
        host: Rc::clone(&host),
        groups: stage.controller.members().into_keys().collect(),
        reads: RefCell::default(),
        writes: RefCell::default(),
        failed: RefCell::default(),
        over: Cell::new(false),
    });
    for number in 0..PROBES {
        host.shard.spawn(TaskClass::Client, Rc::clone(&probe).run(number));
    }
    stage.run_for(Duration::from_secs(2));
    probe.take();
    stage.run_for(MEASURED);
    let (reads, writes) = probe.take();
    let primaries = stage.controller.primaries(VICTIM);

    let late = DiskFaults { latency: Latency::micros(5_000, 500_000), ..DiskFaults::NONE };
    stage.cluster.set_disk_faults(VICTIM, late);
    let (mut paces, victim) = (Paces::default(), stage.cluster.device(VICTIM));
    let begun = stage.cluster.world.now();
    let mut marked_after = None;
    while stage.cluster.world.now() < begun + NOTICED_WITHIN {
        stage.run_for(Duration::from_secs(1));
        let now = stage.cluster.world.now();
        for (node, member) in stage.cluster.members() {
            let pace = member.pace();
            paces.hear(stage.cluster.device(node), pace.window, pace.median_us, now);
        }
        for pace in stage.controller.judge_paces(&mut paces, now) {
            if pace.device != victim.0.to_be_bytes() || !pace.slow {
                return Err(format!("the wrong device was judged: {pace:?}"));
            }
            marked_after.get_or_insert(now - begun);
        }
    }
    probe.take();
    stage.run_for(3 * MEASURED);
    let (slow_reads, slow_writes) = probe.take();
    probe.over.set(true);
    stage.run_for(Duration::from_secs(3));
    let after = stage.controller.primaries(VICTIM);
    stage.cluster.set_disk_faults(VICTIM, DiskFaults::NONE);
    stage.until_whole()?;
    stage.check()?;
    let failed = probe.failed.borrow();
    if !failed.is_empty() {
        return Err(format!("{} requests failed, first: {}", failed.len(), failed[0]));
    }
    Ok(Slowed {
        read_p99: quantile(&reads, 99),
        slow_read_p99: quantile(&slow_reads, 99),
        write_median: quantile(&writes, 50),
        slow_write_median: quantile(&slow_writes, 50),
        reads: (reads.len(), slow_reads.len()),
        marked_after: marked_after.ok_or("the drive was never marked as slow")?,
        primaries: (primaries, after),
    })
}
