//! Other file systems on the same disk, in the same rounds: what their servers cost beside ours.
//!
//! Each gets the same inputs through its mount, and its servers' processor time is that of all its processes, the mount
//! included, as ours includes the edge.

mod ceph;
mod gluster;
mod moosefs;
mod rados;
mod rig;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use nova_measure::recipe::Recipe;
use nova_path::interrupt::Interrupt;
use rustix::process::{Pid, Signal, kill_process};

use crate::figure::{Roles, Work};
use crate::rows::{Stage, own_time};
use rig::Rig;
pub(crate) use rows::ROWS;

/// Copies of everything, in every peer.
const COPIES: u16 = 3;
/// Where everything of a peer listens. Chunk servers of `MooseFS` and monitors of Ceph refuse loopback addresses, so the
/// loopback device of the namespace has one that is none.
const ADDRESS: &str = "10.77.77.1";
/// A row of a peer that takes longer is ended, and the run with it.
const ROW_TIMEOUT: Duration = Duration::from_secs(900);
/// How often a row looks whether it is to end early.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Room that a peer takes of the disk for each copy, beside what the rows write.
const SPARE_MIB: u64 = 1024;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// `MooseFS` with goal 3 on three chunk servers. It seems to acknowledge out of the memory of its servers.
    Moosefs,
    /// `GlusterFS` with a volume of replica 3 on three bricks.
    Gluster,
    /// `CephFS` by `ceph-fuse` in pools of size 3 on three `BlueStore` OSDs.
    Ceph,
    /// Ceph's objects without a file system, by `rados bench`, on the same OSDs.
    Rados,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Moosefs => "moosefs",
            Self::Gluster => "gluster",
            Self::Ceph => "ceph",
            Self::Rados => "rados",
        }
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Moosefs => moosefs::PROGRAMS,
            Self::Gluster => gluster::PROGRAMS,
            Self::Ceph => ceph::PROGRAMS,
            Self::Rados => rados::PROGRAMS,
        }
    }

    /// MiB it takes of the disk when the rows write `written_mib` in all.
    pub(crate) fn room_mib(written_mib: u64) -> u64 {
        (written_mib + SPARE_MIB) * u64::from(COPIES)
    }
}

/// A running file system; it ends with this.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    kind: Kind,
    rig: Rig,
    interrupt: Interrupt,
}

/// A row that the peer has too.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// The row of ours that it stands beside.
    pub(crate) beside: &'static str,
    /// Does the work; answers bytes and operations.
    pub(crate) run: fn(&Path, &Stage, u32) -> Result<(u64, u64)>,
}

impl Peer {
    /// Starts one in a folder of its own in `folder`; the rows will write `written_mib` MiB in all.
    pub(crate) fn up(kind: Kind, folder: &Path, written_mib: u64, interrupt: &Interrupt) -> Result<Self> {
        let name = kind.name();
        let folder = folder.join(format!("peer-{name}"));
        let rig = Rig::new(name, kind.programs(), &folder, interrupt)?;
        let mut peer = Self { name, kind, rig, interrupt: interrupt.clone() };
        match kind {
            Kind::Moosefs => moosefs::up(&mut peer.rig),
            Kind::Gluster => gluster::up(&mut peer.rig),
            Kind::Ceph => ceph::up(&mut peer.rig, written_mib),
            Kind::Rados => rados::up(&mut peer.rig, written_mib),
        }
        .with_context(|| format!("start {name}"))?;
        Ok(peer)
    }

    /// A folder in it that keeps three copies of everything.
    fn folder(&self) -> PathBuf {
        self.rig.shared()
    }

    /// How it was set up.
    pub(crate) fn recipe(&self) -> &Recipe {
        &self.rig.recipe
    }

    /// Makes what a row needs, and sees to it that its mount asks its servers, and they their devices, for what is read.
    pub(crate) fn prepare(&mut self, row: Row, stage: &Stage, round: u32) -> Result<()> {
        match self.kind {
            Kind::Rados => rados::prepare(&mut self.rig, row.beside, stage, round)?,
            Kind::Moosefs | Kind::Gluster | Kind::Ceph => self.rig.remount()?,
        }
        match self.kind {
            Kind::Moosefs => moosefs::forget_cached(&self.rig),
            Kind::Gluster => gluster::forget_cached(&self.rig),
            Kind::Ceph | Kind::Rados => ceph::forget_cached(&self.rig),
        }
    }

    /// Does a row and notes what it cost on both sides.
    pub(crate) fn measure(&mut self, row: Row, stage: &Stage, round: u32) -> Result<Work> {
        let (servers, client, begun) = (self.rig.processor_time()?, own_time(), Instant::now());
        let (bytes, operations, took) = match self.kind {
            Kind::Rados => rados::run(&mut self.rig, row.beside, stage, round)?,
            Kind::Moosefs | Kind::Gluster | Kind::Ceph => {
                let (bytes, operations) = self.watched(|| (row.run)(&self.folder(), stage, round))?;
                (bytes, operations, begun.elapsed())
            }
        };
        let servers: Duration = self.rig.processor_time()?.saturating_sub(servers);
        let client = own_time().saturating_sub(client);
        Ok(Work { bytes, operations, took, servers, roles: Roles::default(), client })
    }

    /// Does `work` on the mount. A call on a mount may hang for ever, and ends when the mount's program is killed: that is
    /// done when it takes too long, or on a signal.
    fn watched<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let pid = Pid::from_raw(self.rig.mount_pid()?).context("the mount's program has a process id")?;
        let (done, ends) = mpsc::channel::<()>();
        let begun = Instant::now();
        thread::scope(|scope| {
            let watch = scope.spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = ends.recv_timeout(LOOK_EVERY) {
                    if self.interrupt.asked() || begun.elapsed() > ROW_TIMEOUT {
                        return kill_process(pid, Signal::KILL).context("kill the mount's program");
                    }
                }
                Ok(())
            });
            let outcome = work();
            drop(done);
            watch.join().expect("the watch of a row does not panic")?;
            self.interrupt.check()?;
            outcome.with_context(|| format!("it took {:?}; the limit is {ROW_TIMEOUT:?}", begun.elapsed()))
        })
    }

    /// Ends it, and says when that did not go well.
    pub(crate) fn down(mut self) -> Result<()> {
        self.rig.end()
    }
}
