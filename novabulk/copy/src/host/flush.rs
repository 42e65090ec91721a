//! One flush of a file system for all who wait for one.

use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use nova_device::sync::Notify;
use nova_shard::RealShard;

use crate::trouble::Trouble;

/// By file system.
#[derive(Debug, Default)]
pub(super) struct Flushes(RefCell<BTreeMap<u64, Rc<Flush>>>);

/// Flushes of one file system, counted.
#[derive(Debug, Default)]
struct Flush {
    begun: Cell<u64>,
    ended: Cell<u64>,
    failed: RefCell<Option<(u64, Trouble)>>,
    running: Cell<bool>,
    changed: Notify,
}

impl Flushes {
    /// Makes durable all that was written to the file system of `folder` before this was called. Whoever comes while a
    /// flush runs shares the next one.
    pub(super) async fn flush(&self, shard: &RealShard, device: u64, folder: OwnedFd) -> Result<(), Trouble> {
        let flush = Rc::clone(self.0.borrow_mut().entry(device).or_default());
        let before = flush.begun.get();
        let mut folder = Some(folder);
        loop {
            if flush.ended.get() > before {
                let failed = flush.failed.borrow();
                return match &*failed {
                    Some((number, trouble)) if *number > before => Err(trouble.clone()),
                    _ => Ok(()),
                };
            }
            match folder.take() {
                Some(folder) if !flush.running.get() => flush.run(shard, folder).await,
                back => {
                    folder = back;
                    flush.changed.notified().await;
                }
            }
        }
    }
}

impl Flush {
    async fn run(&self, shard: &RealShard, folder: OwnedFd) {
        self.running.set(true);
        let number = self.begun.get() + 1;
        self.begun.set(number);
        let synced = shard.run_blocking(move || rustix::fs::syncfs(&folder)).await;
        let synced = synced.and_then(|synced| synced.map_err(Into::into));
        if let Err(error) = synced {
            self.failed.replace(Some((number, Trouble::io(&error, "flush the file system"))));
        }
        self.ended.set(number);
        self.running.set(false);
        self.changed.notify_all();
    }
}
