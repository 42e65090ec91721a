//! The two states as state machines of Raft groups.

use nova_raft::StateMachine;
use nova_state::{ClusterAnswer, ClusterCommand, ClusterState, FilesAnswer, FilesCommand, FilesState};

/// Hosts and replica groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster(pub(crate) ClusterState);

/// File metadata.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(pub(crate) FilesState);

impl StateMachine for Cluster {
    type Command = ClusterCommand;
    type Answer = ClusterAnswer;

    fn apply(&mut self, index: u64, command: ClusterCommand) -> ClusterAnswer {
        self.0.apply(index, &command)
    }

    fn encode(&self, out: &mut dyn FnMut(&[u8])) {
        self.0.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        ClusterState::decode(bytes).map(Self)
    }
}

impl StateMachine for Files {
    type Command = FilesCommand;
    type Answer = FilesAnswer;

    fn apply(&mut self, index: u64, command: FilesCommand) -> FilesAnswer {
        self.0.apply(index, &command)
    }

    fn encode(&self, out: &mut dyn FnMut(&[u8])) {
        self.0.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        FilesState::decode(bytes).map(Self)
    }
}
