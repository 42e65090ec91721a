//! One end of a copy: a host in this process, or one behind connections.

use core::cell::Cell;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::rc::Rc;

use nova_buf::SharedBuf;
use nova_device::{Clock as _, PeerError, Peers as _, Shard as _};
use nova_shard::RealShard;
use nova_units::{NodeId, Priority};
use novabulk_files::{Fault, Reply, Request};
use novabulk_link::Link;

use crate::host::Host;
use crate::trouble::{CopyError, Trouble};

/// A host that does not answer for this long is given up.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// And at the beginning, where nobody has answered yet, for this long.
const MEET_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts at first, and at last.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LAST: Duration = Duration::from_millis(500);
/// A host that says that it is busy is asked again for this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);
/// What moves a block, or looks at something.
const STEP_DEADLINE: Duration = Duration::from_secs(30);
/// What flushes.
const FLUSH_DEADLINE: Duration = Duration::from_secs(300);
/// What reads a whole file.
const DIGEST_DEADLINE: Duration = Duration::from_secs(4 * 3600);

/// A host of files.
#[derive(Clone, Debug)]
pub enum End {
    /// In this process.
    Here(Rc<Host>),
    /// Behind connections.
    There(Remote),
}

/// A host behind connections.
#[derive(Clone)]
pub struct Remote {
    pub(crate) link: Link<RealShard>,
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) shard: RealShard,
    /// When it last answered.
    pub(crate) heard_at: Rc<Cell<Option<Duration>>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) reply: Reply,
    pub(crate) body: Option<SharedBuf>,
    /// What the host waited for its file system.
    pub(crate) disk: Duration,
}

impl End {
    /// Asks until there is an answer; failures of the host are errors.
    pub(crate) async fn ask(&self, request: Request, body: Option<SharedBuf>) -> Result<Answered, CopyError> {
        match self {
            Self::Here(host) => ask_here(host, request, body).await,
            Self::There(remote) => remote.ask(&request, body).await,
        }
    }

    /// An error for an answer to another question.
    pub(crate) fn wrong(&self, what: impl Into<String>) -> CopyError {
        let address = match self {
            Self::Here(_) => "this host".to_owned(),
            Self::There(remote) => remote.address.to_string(),
        };
        CopyError::Protocol { address, what: what.into() }
    }
}

fn checked(answered: Answered) -> Result<Answered, CopyError> {
    match answered.reply {
        Reply::Failed { fault, text } => Err(CopyError::Host(Trouble { fault, text })),
        _ => Ok(answered),
    }
}

async fn ask_here(host: &Rc<Host>, request: Request, body: Option<SharedBuf>) -> Result<Answered, CopyError> {
    let clock = host.shard().clock();
    let begun = clock.now();
    loop {
        let answer = host.answer(request.clone(), body.clone()).await;
        let done = checked(Answered { reply: answer.reply, body: answer.body, disk: answer.disk });
        match done {
            Err(CopyError::Host(trouble))
                if trouble.fault == Fault::Busy && clock.now() < begun + BUSY_TIMEOUT =>
            {
                clock.sleep_until(clock.now() + RETRY_FIRST).await;
            }
            settled => return settled,
        }
    }
}

impl Remote {
    async fn ask(&self, request: &Request, body: Option<SharedBuf>) -> Result<Answered, CopyError> {
        let clock = self.shard.clock();
        let begun = clock.now();
        let mut pause = RETRY_FIRST;
        loop {
            let error = match self.call(request, body.clone()).await {
                Ok(answered) => match checked(answered) {
                    Err(CopyError::Host(trouble))
                        if trouble.fault == Fault::Busy && clock.now() < begun + BUSY_TIMEOUT =>
                    {
                        None
                    }
                    settled => return settled,
                },
                Err(Refusal::Peer(error)) => Some(error),
                Err(Refusal::Garbled(what)) => {
                    return Err(CopyError::Protocol { address: self.address.to_string(), what });
                }
            };
            if let Some(error) = error {
                self.check_patience(begun, &error)?;
            }
            clock.sleep_until(clock.now() + pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    async fn call(&self, request: &Request, body: Option<SharedBuf>) -> Result<Answered, Refusal> {
        let call = nova_device::Request {
            priority: Priority::P3,
            hop: 0,
            head: request.encode(),
            body,
            reply_bytes_max: request.reply_bytes_max(),
            deadline: deadline_of(request),
            control: false,
        };
        let reply = self.link.call(self.node, call).await.map_err(Refusal::Peer)?;
        self.heard_at.set(Some(self.shard.clock().now()));
        let decoded = Reply::decode(&reply.head).map_err(|error| Refusal::Garbled(error.to_string()))?;
        let (reply_is, disk_us) = decoded;
        let disk = Duration::from_micros(disk_us.into());
        Ok(Answered { reply: reply_is, body: reply.body.map(Into::into), disk })
    }

    /// Whether to ask once more, by how long nobody has answered.
    fn check_patience(&self, begun: Duration, error: &PeerError) -> Result<(), CopyError> {
        let give_up = match (self.heard_at.get(), error) {
            (_, PeerError::Refused { .. }) => Duration::ZERO,
            (Some(heard), _) => heard.max(begun) + RECONNECT_TIMEOUT,
            (None, _) => begun + MEET_TIMEOUT,
        };
        if self.shard.clock().now() < give_up {
            return Ok(());
        }
        if let (None, Some(why)) = (self.heard_at.get(), self.link.take_refusal()) {
            return Err(CopyError::Stranger { why });
        }
        let why = match error {
            PeerError::Unreachable => {
                "nobody listens there, or it does not trust this identity (`nova identity trust`)".to_owned()
            }
            other => other.to_string(),
        };
        Err(CopyError::Unavailable { address: self.address.to_string(), why })
    }
}

enum Refusal {
    Peer(PeerError),
    Garbled(String),
}

const fn deadline_of(request: &Request) -> Duration {
    match request {
        Request::Publish { .. } | Request::WritePack { .. } | Request::Sync { .. } | Request::Open { .. } => {
            FLUSH_DEADLINE
        }
        Request::Digest { .. } | Request::Remove { .. } => DIGEST_DEADLINE,
        _ => STEP_DEADLINE,
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("address", &self.address).finish_non_exhaustive()
    }
}
