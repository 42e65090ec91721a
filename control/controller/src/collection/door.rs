//! The way to the controller that leads the files group, which need not be this one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nova_api::files::files_client::FilesClient;
use nova_api::files::request::Op as Ask;
use nova_api::files::{Collected as Told, Request};
use nova_raft::ProposeError;
use nova_security::{Credentials, Role};
use novafs_namespace::{Collected, Command, Op};
use tonic::transport::{Channel, Endpoint};

use crate::writes::Writes;

/// A connection that is not there after this is given up for now.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The leader answers within this, or is told again.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Tells the files group what was collected.
#[derive(Clone, Debug)]
pub(crate) struct FilesDoor {
    writes: Writes,
    credentials: Credentials,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl FilesDoor {
    pub(crate) fn new(writes: Writes, credentials: Credentials) -> Self {
        Self { writes, credentials, channels: Arc::default() }
    }

    /// Puts it into the log of the files group. An error may mean that it is there already; told again it changes
    /// nothing.
    pub(super) async fn tell(&self, collected: &Collected) -> Result<(), String> {
        let command = Command { op: Some(Op::Collected(collected.clone())), ..Command::default() };
        let leader = match self.writes.propose(command).await {
            Ok(_) => return Ok(()),
            Err(ProposeError::NotLeader { leader: Some((_, address)) }) => address,
            Err(error) => return Err(error.to_string()),
        };
        let mut client = FilesClient::new(self.channel(&leader)?);
        let told = Told {
            first_blocks: collected.first_blocks.clone(),
            blocks: collected.blocks,
            bytes: collected.bytes,
            full_pass_ms: collected.full_pass_ms,
            purge_bytes: collected.purge_bytes,
        };
        let request = Request { client: 0, sequence: 0, op: Some(Ask::Collected(told)) };
        match tokio::time::timeout(CALL_TIMEOUT, client.execute(request)).await {
            Ok(answer) => answer.map(drop).map_err(|status| status.message().to_owned()),
            Err(_) => Err(format!("controller {leader} did not answer in time")),
        }
    }

    fn channel(&self, address: &str) -> Result<Channel, String> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = channels.get(address) {
            return Ok(known.clone());
        }
        let endpoint =
            Endpoint::from_shared(format!("https://{address}")).map_err(|error| error.to_string())?;
        let channel = endpoint
            .tls_config(self.credentials.client_tls(Role::Controller))
            .map_err(|error| error.to_string())?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .connect_lazy();
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}
