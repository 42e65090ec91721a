//! A reactor, a pool and a folder of its own for each test.

use std::path::PathBuf;

use nova_buf::{DmaBuf, HugePages, Pool, PoolOptions};
use nova_device::uring::{CreateOptions, Reactor, UringDisk, create_disk};

pub(crate) const MIB: usize = 1 << 20;

pub(crate) struct Bench {
    pub(crate) reactor: Reactor,
    pub(crate) pool: Pool,
    pub(crate) folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let reactor = Reactor::new().unwrap();
        let pool = Pool::new(PoolOptions { bytes: 32 << 20, huge: HugePages::Never }).unwrap();
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self { reactor, pool, folder }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    pub(crate) fn disk(&self, bytes: usize) -> UringDisk {
        create_disk(&self.path(), CreateOptions { bytes: bytes as u64 }, |_| {}).unwrap();
        UringDisk::open(&self.reactor, &self.path()).unwrap()
    }

    pub(crate) fn filled(&self, bytes: usize, with: u8) -> DmaBuf {
        let mut buf = self.pool.try_take(bytes).unwrap();
        buf.fill(with);
        buf
    }
}
