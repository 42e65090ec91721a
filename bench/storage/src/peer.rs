//! Another file system on the same disk, in the same rounds: what its servers cost beside ours.
//!
//! It gets the same inputs through its mount, and its servers' processor time is that of all its processes, the mount
//! included, as ours includes the edge.

mod moosefs;
mod rows;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;

use crate::figure::{Roles, Work};
use crate::rows::{Stage, own_time};
use moosefs::MooseFs;
pub(crate) use rows::ROWS;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// `MooseFS` with goal 3 on three chunk servers. It seems to acknowledge out of the memory of its servers.
    Moosefs,
}

/// A running file system; it ends with this.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    system: MooseFs,
}

/// A row that the peer has too.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// The row of ours that it stands beside.
    pub(crate) beside: &'static str,
    /// Does the work; answers bytes and operations.
    pub(crate) run: fn(&Peer, &Stage, u32) -> Result<(u64, u64)>,
}

impl Peer {
    /// Starts one in `folder`.
    pub(crate) fn up(kind: Kind, folder: &Path) -> Result<Self> {
        match kind {
            Kind::Moosefs => Ok(Self { name: "moosefs", system: MooseFs::up(folder)? }),
        }
    }

    /// A folder in it that keeps three copies of everything.
    pub(crate) fn folder(&self) -> &Path {
        self.system.shared()
    }

    /// Sees to it that its servers read from the device what they are asked for next.
    pub(crate) fn forget_cached(&self) -> Result<()> {
        self.system.forget_cached()
    }

    /// Does a row and notes what it cost on both sides.
    pub(crate) fn measure(&self, row: Row, stage: &Stage, round: u32) -> Result<Work> {
        let (servers, client, begun) = (self.system.processor_time()?, own_time(), Instant::now());
        let (bytes, operations) = (row.run)(self, stage, round)?;
        let took = begun.elapsed();
        let servers: Duration = self.system.processor_time()?.saturating_sub(servers);
        let client = own_time().saturating_sub(client);
        Ok(Work { bytes, operations, took, servers, roles: Roles::default(), client })
    }

    /// Ends it, and says when that did not go well.
    pub(crate) fn down(self) -> Result<()> {
        self.system.down()
    }
}
