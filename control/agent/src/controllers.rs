//! The controllers: a channel to each, and who leads.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use nova_api::files::{Request, Response, files_client::FilesClient};
use nova_security::{Credentials, Role};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::config::Config;

/// Metadata key in which a follower names its leader.
const LEADER_KEY: &str = "nova-leader";
/// How long one attempt at one controller may take.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long a program's request is tried over leaders before it is told `UNAVAILABLE`.
pub(crate) const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Establishing a connection may take this long (Spec B.2).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest message from a controller: a long listing or the whole map.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Channels to all controllers, by address.
#[derive(Debug)]
pub(crate) struct Controllers {
    channels: Vec<(String, Channel)>,
    files_leader: Mutex<usize>,
}

impl Controllers {
    /// Channels that connect when they are first used.
    pub(crate) fn new(config: &Config, credentials: &Credentials) -> anyhow::Result<Self> {
        let channels = config
            .controllers
            .iter()
            .map(|address| {
                let endpoint = Endpoint::from_shared(format!("https://{address}"))
                    .with_context(|| format!("controller address {address:?}"))?
                    .tls_config(credentials.client_tls(Role::Controller))
                    .context("TLS towards the controllers")?
                    .connect_timeout(CONNECT_TIMEOUT)
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(Duration::from_secs(2))
                    .keep_alive_timeout(Duration::from_secs(3))
                    .keep_alive_while_idle(true);
                Ok((address.clone(), endpoint.connect_lazy()))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { channels, files_leader: Mutex::new(0) })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.channels.len()
    }

    /// The channel of one of them.
    pub(crate) fn channel(&self, index: usize) -> Channel {
        self.channels[index % self.channels.len()].1.clone()
    }

    /// Whom to ask after `status` came from `index`: the leader that it names, else the next one.
    pub(crate) fn after(&self, index: usize, status: &Status) -> usize {
        let named = status.metadata().get(LEADER_KEY).and_then(|value| value.to_str().ok());
        named
            .and_then(|leader| self.channels.iter().position(|(address, _)| address == leader))
            .unwrap_or((index + 1) % self.channels.len())
    }

    /// Carries a program's request to whoever leads the files group, and its answer back. A request with a sequence
    /// number is applied once, however often it is sent.
    pub(crate) async fn execute(&self, request: &Request) -> Result<Response, Status> {
        let begun = tokio::time::Instant::now();
        let mut last = Status::unavailable("no controller was asked");
        while begun.elapsed() < REQUEST_DEADLINE {
            let index = *self.files_leader.lock().expect("no holder of this lock panics");
            let mut client =
                FilesClient::new(self.channel(index)).max_decoding_message_size(MESSAGE_BYTES_MAX);
            match tokio::time::timeout(ATTEMPT, client.execute(request.clone())).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) if !is_elsewhere(&status) => return Err(status),
                Ok(Err(status)) => last = status,
                Err(_) => last = Status::deadline_exceeded("the controller did not answer in time"),
            }
            *self.files_leader.lock().expect("no holder of this lock panics") = self.after(index, &last);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Err(last)
    }
}

/// Whether another controller, or the same one a little later, may answer better.
pub(crate) fn is_elsewhere(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
    )
}
