//! Space of removed files comes back.
//!
//! The controller that leads the hosts collects: it knows the primaries and has the hosts' streams. What it collects
//! it takes from its own copy of the file metadata, which may be behind. That is proof enough: a block that is an
//! orphan in one committed state will never be referred to again ([`Census`](novafs_namespace::Census) says why), so
//! nothing here depends on a clock, on who leads, or on a message arriving once.
//!
//! A turn takes what hosts have reported, tells the files group which orphans are gone, and orders more. Nothing of
//! it is remembered: a new leader begins with the orphans that are left.

mod door;
mod full_pass;
mod pending;
mod schedule;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nova_api::cluster as pb;
use nova_api::cluster::host_order::Order;
use nova_fleet::NodeState;
use nova_raft::Group;
use nova_units::{BlockId, GroupId, NodeId, Timestamp};
use novafs_namespace::{Collected, Namespace};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::attendance::{Attendance, Vitals};
use crate::clock;
use crate::config::CollectionConfig;
use crate::leader::Leading;
use crate::machine::{Cluster, Files};

pub(crate) use door::FilesDoor;
use full_pass::FullPass;
pub(crate) use full_pass::PAGE_BLOCKS;
use pending::{Origin, Pending, Run};
pub(crate) use schedule::{CRITICAL_PERCENT, PRESSING_PERCENT, TimeOfDay, used_percent};
use schedule::{Pressure, pass_is_due, purge_bytes};

/// How often the leader takes a turn.
const TURN: Duration = Duration::from_millis(100);
/// Orphans that one turn looks at.
const LOOKED_AT_PER_TURN: usize = 4096;
/// Answers of groups that may be missing; then nothing new is begun.
const PARTS_MAX: usize = 8192;
/// Between two times that trash is let go early: what goes has come off the devices by then, and they have said so.
const PURGE_EVERY: Duration = Duration::from_secs(10);
/// Orphans of one command.
const COLLECTED_PER_COMMAND_MAX: usize = 4096;

/// Collects while this controller leads the cluster group.
pub(crate) struct Collector {
    config: CollectionConfig,
    cluster: Group<Cluster>,
    files: Group<Files>,
    attendance: Arc<Attendance>,
    leading: watch::Receiver<Leading>,
    door: FilesDoor,
    running: watch::Sender<bool>,
}

/// What the leader has under way.
#[derive(Debug, Default)]
struct Work {
    pending: Pending,
    /// Orphans that are gone, to be told to the files group.
    gone: BTreeSet<BlockId>,
    /// Those that were told, until this controller has applied it.
    told: BTreeSet<BlockId>,
    deleted: Collected,
    /// Where the next look at the orphans begins.
    cursor: BlockId,
    /// Orphans that may be begun now.
    tokens: f64,
    refilled: Duration,
    pass: Option<FullPass>,
    /// When the last pass of this leader ended; the metadata here may not know it yet.
    last_pass: Timestamp,
    /// When trash was last let go early.
    purged: Option<Duration>,
}

impl Collector {
    pub(crate) fn new(
        config: CollectionConfig,
        cluster: Group<Cluster>,
        files: Group<Files>,
        attendance: Arc<Attendance>,
        leading: watch::Receiver<Leading>,
        door: FilesDoor,
    ) -> Self {
        let running = watch::Sender::new(false);
        Self { config, cluster, files, attendance, leading, door, running }
    }

    /// Whether a full pass is under way here.
    pub(crate) fn running(&self) -> watch::Receiver<bool> {
        self.running.subscribe()
    }

    /// Takes turns for as long as the controller lives.
    pub(crate) async fn run(self) {
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut work: Option<Work> = None;
        loop {
            turns.tick().await;
            if self.leading.borrow().leads() {
                let work =
                    work.get_or_insert_with(|| Work { refilled: clock::monotonic(), ..Work::default() });
                self.turn(work).await;
            } else {
                work = None;
            }
            let running = work.as_ref().is_some_and(|work| work.pass.is_some());
            self.running.send_if_modified(|known| std::mem::replace(known, running) != running);
        }
    }

    async fn turn(&self, work: &mut Work) {
        work.take_reports(self.attendance.take_deleted());
        let namespace = self.files.local().0.namespace;
        let pressure = self.pressure();
        self.pass(work, &namespace, pressure);
        self.purge_early(work, &namespace);
        self.tell(work, &namespace).await;
        let age_min = match pressure {
            Pressure::None => Duration::from_secs(self.config.after_seconds.into()),
            Pressure::Pressing | Pressure::Critical => Duration::ZERO,
        };
        work.refill(clock::monotonic(), self.config.blocks_per_second);
        work.begin_orphans(&namespace, clock::wall(), age_min);
        let state = self.cluster.local().0;
        let primary_of = |group: GroupId| {
            state.groups.group(group).filter(|found| !found.frozen()).map(|found| found.primary)
        };
        for ((node, group), runs) in work.pending.orders(clock::monotonic(), primary_of) {
            self.order(node, group, &runs);
        }
    }

    fn order(&self, node: NodeId, group: GroupId, runs: &[Run]) {
        let run = |run: &Run| pb::BlockRun { first: run.first.0, count: run.count };
        let delete = pb::DeleteBlocks { group: group.0, runs: runs.iter().map(run).collect() };
        if !self.attendance.order(node, Order::DeleteBlocks(delete)) {
            tracing::debug!(%node, %group, "a host takes no orders to delete now; they are given again");
        }
    }

    /// Size and free bytes of the devices that serve.
    fn devices(&self) -> Vec<(u64, u64)> {
        let state = self.cluster.local().0;
        let vitals = self.attendance.vitals();
        let storing = state.fleet.iter().filter(|(_, node)| node.stores() && node.state == NodeState::Ready);
        let said = storing.filter_map(|(id, _)| vitals.get(&id));
        said.flat_map(Vitals::rooms).collect()
    }

    /// How full the fullest storage device is.
    fn pressure(&self) -> Pressure {
        let all = self.devices().into_iter().map(|(total, free)| Pressure::of(total, free));
        all.max().unwrap_or(Pressure::None)
    }

    /// Lets the first of the trash go while a device is critically full (Spec C.4, E.2), as much as it is too full.
    fn purge_early(&self, work: &mut Work, namespace: &Namespace) {
        let now = clock::monotonic();
        let rested = work.purged.is_none_or(|last| now.saturating_sub(last) >= PURGE_EVERY);
        let fewest = self.cluster.local().0.groups.iter().map(|(_, group)| group.replicas).min();
        let bytes = purge_bytes(&self.devices(), fewest.unwrap_or_default());
        if bytes > 0 && rested && namespace.trash_len() > 0 {
            tracing::info!(
                bytes,
                "a device is more than {CRITICAL_PERCENT} % full: the oldest trash goes early"
            );
            work.deleted.purge_bytes = bytes;
            work.purged = Some(now);
        }
    }

    /// Begins a full pass when one is due, and takes from one under way what it has found.
    fn pass(&self, work: &mut Work, namespace: &Namespace, pressure: Pressure) {
        if work.pass.is_none() {
            let last = namespace.collection().full_pass.max(work.last_pass);
            let has_groups = self.cluster.local().0.groups.iter().next().is_some();
            if has_groups && pass_is_due(self.config.full_at, last, clock::wall(), pressure) {
                tracing::info!(?pressure, "a full pass of the collection begins");
                work.pass = Some(FullPass::begin(
                    namespace.clone(),
                    self.cluster.clone(),
                    Arc::clone(&self.attendance),
                ));
            }
            return;
        }
        let pass = work.pass.as_mut().expect("it was looked at above");
        while work.pending.parts() < PARTS_MAX
            && let Some((group, block)) = pass.next_stray()
        {
            work.pending.begin(Run { first: block, count: 1 }, &[group], Origin::Stray);
        }
        if pass.is_over() && !work.pending.has_any(Origin::Stray) {
            tracing::info!(strays = pass.strays(), "a full pass of the collection ended");
            work.last_pass = clock::wall();
            work.deleted.full_pass_ms = work.last_pass.0;
            work.pass = None;
        }
    }

    /// Tells the files group what is gone.
    async fn tell(&self, work: &mut Work, namespace: &Namespace) {
        work.told
            .retain(|first| namespace.orphans_from(*first).next().is_some_and(|(found, _)| found == *first));
        if work.gone.is_empty() && work.deleted == Collected::default() {
            return;
        }
        let first_blocks: Vec<u64> =
            work.gone.iter().take(COLLECTED_PER_COMMAND_MAX).map(|block| block.0).collect();
        let collected = Collected { first_blocks, ..work.deleted.clone() };
        match self.door.tell(&collected).await {
            Ok(()) => {
                for first in collected.first_blocks {
                    work.gone.remove(&BlockId(first));
                    work.told.insert(BlockId(first));
                }
                work.deleted = Collected::default();
            }
            Err(reason) => tracing::info!(reason, "what was collected is told again"),
        }
    }
}

impl Work {
    fn take_reports(&mut self, reports: Vec<pb::BlocksDeleted>) {
        for report in reports {
            self.deleted.blocks = self.deleted.blocks.saturating_add(report.deleted);
            self.deleted.bytes = self.deleted.bytes.saturating_add(report.bytes);
            for run in report.runs {
                let run = Run { first: BlockId(run.first), count: run.count };
                if let Some((first, Origin::Orphan)) = self.pending.finish(GroupId(report.group), run) {
                    self.gone.insert(first);
                }
            }
        }
    }

    /// A second's worth of blocks may be begun together.
    fn refill(&mut self, now: Duration, blocks_per_second: u32) {
        let rate = f64::from(blocks_per_second);
        let since = now.saturating_sub(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + since * rate).min(rate);
        self.refilled = now;
    }

    /// Begins orphans that have waited long enough, as many as there is room for.
    fn begin_orphans(&mut self, namespace: &Namespace, now: Timestamp, age_min: Duration) {
        let mut orphans = namespace.orphans_from(self.cursor);
        for _ in 0..LOOKED_AT_PER_TURN {
            if self.pending.parts() >= PARTS_MAX || self.tokens < 1.0 {
                return;
            }
            let Some((first, orphan)) = orphans.next() else {
                self.cursor = BlockId(0);
                return;
            };
            self.cursor = BlockId(first.0 + 1);
            let known = self.pending.has(first) || self.gone.contains(&first) || self.told.contains(&first);
            let age = Duration::from_millis(now.0.saturating_sub(orphan.since.0));
            if known || age < age_min {
                continue;
            }
            let groups: Vec<GroupId> =
                orphan.groups.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
            self.tokens -= 1.0;
            if groups.is_empty() {
                self.gone.insert(first);
            } else {
                self.pending.begin(Run { first, count: orphan.count }, &groups, Origin::Orphan);
            }
        }
    }
}

#[cfg(test)]
mod tests;
