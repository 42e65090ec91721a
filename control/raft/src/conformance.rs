//! openraft's own suite for log stores and state machines, run on ours.

use std::sync::Arc;
use std::thread::JoinHandle;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use crate::StateMachine;
use crate::log::{LogStore, OpenLog};
use crate::machine::Machine;
use crate::snapshot::SnapshotFolder;
use crate::types::Types;
use crate::wal::writer::Limits;

/// Counts commands.
#[derive(Clone, Default)]
struct Count(Arc<u64>);

impl StateMachine for Count {
    type Command = ();
    type Answer = ();

    fn apply(&mut self, _index: u64, _command: ()) {
        self.0 = Arc::new(*self.0 + 1);
    }

    fn encode(&self, out: &mut dyn FnMut(&[u8])) {
        out(&self.0.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.try_into().map_err(|_| "not 8 bytes")?;
        Ok(Self(Arc::new(u64::from_le_bytes(bytes))))
    }
}

struct Folders;

/// Kept while a test of the suite runs.
struct Guard {
    _folder: tempfile::TempDir,
    _thread: JoinHandle<()>,
}

impl StoreBuilder<Types, LogStore, Machine<Count>, Guard> for Folders {
    async fn build(&self) -> Result<(Guard, LogStore, Machine<Count>), StorageError<Types>> {
        let folder = tempfile::tempdir().unwrap();
        let OpenLog { store, thread } = LogStore::open(folder.path(), 1, "suite", Limits::default()).unwrap();
        let snapshots = SnapshotFolder::open(folder.path().join("snapshots")).unwrap();
        let machine = Machine::open(snapshots, Count::default(), None).unwrap();
        Ok((Guard { _folder: folder, _thread: thread }, store, machine))
    }
}

#[tokio::test]
async fn log_and_state_machine_pass_the_suite_of_openraft() {
    Suite::test_all(Folders).await.unwrap();
}
