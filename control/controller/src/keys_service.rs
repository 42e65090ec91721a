//! The service `Keys`: hosts are given the keys that they need, operators look after the domains.

use std::collections::BTreeMap;
use std::time::Duration;

use nova_api::keys as pb;
use nova_api::keys::keys_server::Keys as KeysApi;
use nova_fleet::NodeState;
use nova_keybox::Label;
use nova_keys::{DomainState, Keys, VersionState};
use nova_raft::Group;
use nova_security::{Identity, KeyName, Role, authorize};
use nova_units::{BootId, NodeId};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::keys::{KeyService, KeysError, Wish};
use crate::leader::Leading;
use crate::machine::{Cluster, Files};
use crate::reads::Reads;
use crate::refusal;

/// Domains that one host may ask for.
const DOMAINS_ASKED_MAX: usize = 1024;
/// A set waits in the stream of a host that is slow to take it.
const SETS_WAITING_MAX: usize = 1;
/// How often a host hears of the keys that it holds. Well below the time for which it may hold them.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Serves the keys while this controller leads the cluster group.
#[derive(Clone, Debug)]
pub(crate) struct KeysService {
    pub(crate) keys: KeyService,
    pub(crate) cluster: Group<Cluster>,
    pub(crate) files: Group<Files>,
    pub(crate) reads: Reads<Cluster>,
    pub(crate) leading: watch::Receiver<Leading>,
}

#[tonic::async_trait]
impl KeysApi for KeysService {
    type WatchStream = ReceiverStream<Result<pb::KeySet, Status>>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let identity = authorize(&request, &[Role::Agent])?;
        self.check_leading()?;
        let ask = request.into_inner();
        let public: [u8; nova_keybox::PUBLIC_BYTES] =
            ask.public[..].try_into().map_err(|_| Status::invalid_argument("a public key has 32 bytes"))?;
        if ask.domains.len() > DOMAINS_ASKED_MAX {
            return Err(Status::invalid_argument("a host asks for at most 1,024 key domains"));
        }
        let host = Host { identity, node: NodeId(ask.node), boot: BootId(ask.boot), public };
        let (sets, stream) = mpsc::channel(SETS_WAITING_MAX);
        let service = self.clone();
        tokio::spawn(async move {
            if let Err(status) = service.send_sets(&host, &ask.domains, &sets).await {
                // Whoever asked may be gone.
                let _ = sets.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        authorize(&request, &[Role::Operator])?;
        self.check_leading()?;
        let state = self.reads.read().await.map_err(refusal::of_read)?;
        let (root_version, trouble) = match self.keys.root_version().await {
            Ok(version) => (version, String::new()),
            Err(error) => (0, error.to_string()),
        };
        let mut spaces = self.namespaces();
        let domains =
            state.0.keys.iter().map(|(id, it)| domain(id, it, spaces.remove(&id).unwrap_or_default()));
        let domains = domains.collect();
        let rotate_after_ms = u64::try_from(self.keys.rotate_after.as_millis()).unwrap_or(0);
        Ok(Response::new(pb::ListResponse { domains, rotate_after_ms, root_version, trouble }))
    }

    async fn create(
        &self,
        request: Request<pb::CreateRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        authorize(&request, &[Role::Operator])?;
        self.check_leading()?;
        changed(self.keys.change(&Wish::Create { name: request.into_inner().name }).await)
    }

    async fn rotate(
        &self,
        request: Request<pb::RotateRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        authorize(&request, &[Role::Operator])?;
        self.check_leading()?;
        let pb::RotateRequest { name, version } = request.into_inner();
        changed(self.keys.change(&Wish::Rotate { name, version }).await)
    }

    async fn drop(&self, request: Request<pb::DropRequest>) -> Result<Response<pb::ChangeResponse>, Status> {
        let identity = authorize(&request, &[Role::Operator])?;
        self.check_leading()?;
        let name = request.into_inner().name;
        let done = self.keys.change(&Wish::Drop { name: name.clone() }).await;
        tracing::warn!(name, %identity, done = done.is_ok(), "a key domain is to be erased");
        changed(done)
    }
}

fn changed(done: Result<(u32, u32), KeysError>) -> Result<Response<pb::ChangeResponse>, Status> {
    let (domain, version) = done.map_err(status_of)?;
    Ok(Response::new(pb::ChangeResponse { domain, version }))
}

fn status_of(error: KeysError) -> Status {
    match error {
        KeysError::Propose(error) => refusal::of_propose(error),
        error @ (KeysError::Kms(_) | KeysError::Busy) => Status::unavailable(error.to_string()),
        // Another controller may have one.
        error @ KeysError::NoService => Status::unimplemented(error.to_string()),
        error @ KeysError::Refused(_) => Status::invalid_argument(error.to_string()),
        error @ KeysError::NoDomain { .. } => Status::not_found(error.to_string()),
    }
}

fn domain(id: u32, it: &nova_keys::Domain, namespaces: Vec<String>) -> pb::Domain {
    let version = |(version, key): (u32, &nova_keys::KeyVersion)| pb::Version {
        version,
        created_ms: key.created.0,
        state: match it.state_of(version) {
            Some(VersionState::Current) => pb::version::State::Current.into(),
            _ => pb::version::State::Readable.into(),
        },
        root_version: key.root_version,
    };
    let dropped_ms = match it.state {
        DomainState::Live { .. } => 0,
        DomainState::Dropped { at, .. } => at.0,
    };
    let versions = it.versions().map(version).collect();
    pb::Domain {
        domain: id,
        name: it.name.clone(),
        created_ms: it.created.0,
        versions,
        dropped_ms,
        namespaces,
    }
}

/// Who is given keys.
struct Host {
    identity: Identity,
    node: NodeId,
    boot: BootId,
    public: [u8; nova_keybox::PUBLIC_BYTES],
}

impl KeysService {
    fn check_leading(&self) -> Result<(), Status> {
        if self.leading.borrow().leads() { Ok(()) } else { Err(refusal::not_leader(self.cluster.leader())) }
    }

    /// Sends the keys now, after every change of the keys, and from time to time.
    async fn send_sets(
        &self,
        host: &Host,
        domains: &[u32],
        sets: &mpsc::Sender<Result<pb::KeySet, Status>>,
    ) -> Result<(), Status> {
        let mut applied = self.cluster.watch();
        let mut leading = self.leading.clone();
        // A deposed leader gives no keys: it may not know that a domain was dropped.
        let mut state = self.reads.read().await.map_err(refusal::of_read)?;
        loop {
            self.check_host(host, &state.0.fleet)?;
            let sent = state.0.keys.revision();
            let set = self.key_set(host, domains, &state.0.keys).await?;
            if sets.send(Ok(set)).await.is_err() {
                return Ok(());
            }
            let again_at = Instant::now() + AGAIN_AFTER;
            loop {
                tokio::select! {
                    changed = applied.changed() => {
                        if changed.is_err() {
                            return Ok(());
                        }
                        if self.cluster.local().0.keys.revision() != sent {
                            break;
                        }
                    }
                    () = tokio::time::sleep_until(again_at) => break,
                    () = Leading::lost(&mut leading) => return Err(refusal::not_leader(self.cluster.leader())),
                    () = sets.closed() => return Ok(()),
                }
            }
            state = self.reads.read().await.map_err(refusal::of_read)?;
        }
    }

    /// Keys go to the registered start of a host that is in the region, and to the agent of that host.
    fn check_host(&self, host: &Host, fleet: &nova_fleet::Fleet) -> Result<(), Status> {
        let Some(node) = fleet.node(host.node).filter(|node| node.name == host.identity.node()) else {
            return Err(Status::permission_denied(format!(
                "{} is not the agent of host {}",
                host.identity, host.node
            )));
        };
        if node.boot != host.boot {
            return Err(Status::aborted("another start of this host is registered; register again"));
        }
        if node.state == NodeState::Terminated {
            return Err(Status::permission_denied("this host was taken out of the region: it gets no keys"));
        }
        Ok(())
    }

    async fn key_set(&self, host: &Host, domains: &[u32], keys: &Keys) -> Result<pb::KeySet, Status> {
        let held_s = u32::try_from(self.keys.held.as_secs()).unwrap_or(u32::MAX);
        let mut set = pb::KeySet { held_s, ..pb::KeySet::default() };
        for id in domains {
            let Some(domain) = keys.domain(*id) else {
                set.unknown.push(*id);
                continue;
            };
            let Some((current, _)) = domain.current() else {
                set.dropped.push(*id);
                continue;
            };
            for (version, key) in domain.versions() {
                let name = KeyName { domain: *id, version };
                let secret = self.keys.unwrap(name, key.wrapped.clone()).await.map_err(status_of)?;
                let label = Label { domain: *id, version, boot: host.boot.0 };
                let boxed = nova_keybox::seal(&host.public, label, secret.expose())
                    .map_err(|error| Status::invalid_argument(error.to_string()))?;
                let boxed = boxed.0.to_vec().into();
                set.keys.push(pb::SealedKey { domain: *id, version, current, boxed });
            }
        }
        Ok(set)
    }

    /// The namespaces of each domain, as far as this controller knows.
    fn namespaces(&self) -> BTreeMap<u32, Vec<String>> {
        let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for (name, space) in self.files.local().0.namespace.spaces() {
            found.entry(space.key_domain).or_default().push(name.to_owned());
        }
        found
    }
}
