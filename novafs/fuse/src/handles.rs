//! Open files by the numbers that the kernel knows them by.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use fuser::FileHandle;
use novafs_client::File;

/// A file that a program has open.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) file: File,
    /// Every write goes to the end.
    pub(crate) appends: bool,
    pub(crate) writes: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<Open>>>,
}

impl Handles {
    pub(crate) fn add(&self, open: Open) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.write().expect("no holder of this lock panics").insert(number, Arc::new(open));
        FileHandle(number)
    }

    /// `None`: the kernel names a handle that it has released.
    pub(crate) fn get(&self, handle: FileHandle) -> Option<Arc<Open>> {
        self.open.read().expect("no holder of this lock panics").get(&handle.0).cloned()
    }

    /// Takes it out. Requests under way on it keep it open until they end.
    pub(crate) fn remove(&self, handle: FileHandle) -> Option<Arc<Open>> {
        self.open.write().expect("no holder of this lock panics").remove(&handle.0)
    }
}
