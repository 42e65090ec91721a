//! The state of the files group.

use novafs_namespace::{Answer, Command, Namespace};

/// Requests of many clients in one log entry.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FilesCommand {
    /// In the order in which they are applied.
    #[prost(message, repeated, tag = "1")]
    pub commands: Vec<Command>,
}

/// One answer for each command of the batch, in order.
pub type FilesAnswer = Vec<Answer>;

/// File metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilesState {
    /// Its one slice.
    pub namespace: Namespace,
}

impl FilesState {
    /// Applies the batch at `index` of the log.
    pub fn apply(&mut self, index: u64, batch: &FilesCommand) -> FilesAnswer {
        batch.commands.iter().map(|command| self.namespace.apply(index, command)).collect()
    }

    /// Writes the whole state, piece by piece.
    pub fn encode(&self, out: &mut dyn FnMut(&[u8])) {
        self.namespace.encode(out);
    }

    /// Reads what [`FilesState::encode`] wrote.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let namespace = Namespace::decode(bytes).map_err(|error| error.to_string())?;
        Ok(Self { namespace })
    }
}
