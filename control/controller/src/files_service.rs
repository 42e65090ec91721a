//! The service `Files`: what a client asks of the file metadata.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nova_api::files as pb;
use nova_api::files::files_server::Files as FilesApi;
use nova_api::files::request::Op as Ask;
use nova_api::files::response::Result as Wire;
use nova_groups::DeviceState;
use nova_raft::{Group, ProposeError};
use nova_security::{Role, authorize};
use nova_units::{InodeId, Replicas, SessionId};
use novafs_namespace::{
    Code, Command, Failure, GROUPS_PER_RESERVATION_MAX, ListAsk, Namespace, Op, Renewals, ReserveBlocks,
};
use tonic::{Request, Response, Status};

use crate::machine::{Cluster, Files};
use crate::reads::Reads;
use crate::writes::Writes;
use crate::{asks, clock, convert, health, refusal};

/// Serves file metadata while this controller leads the files group.
#[derive(Clone, Debug)]
pub(crate) struct FilesService {
    pub(crate) reads: Reads<Files>,
    pub(crate) writes: Writes,
    /// The state in which an answer of `writes` is applied.
    pub(crate) files: Group<Files>,
    /// Where the writable replica groups are known from; this controller need not lead it.
    pub(crate) cluster: Group<Cluster>,
    pub(crate) renewals: Arc<Mutex<Renewals>>,
    /// Moves on with every reservation, so that small ones spread over all groups too.
    pub(crate) turn: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl FilesApi for FilesService {
    async fn execute(&self, request: Request<pb::Request>) -> Result<Response<pb::Response>, Status> {
        let allowed = [Role::Agent, Role::Gateway, Role::Operator, Role::Controller];
        let identity = authorize(&request, &allowed)?;
        let pb::Request { client, sequence, op } = request.into_inner();
        let op = op.ok_or_else(|| {
            Status::invalid_argument("the request asks nothing; upgrade the controllers first")
        })?;
        if matches!(op, Ask::Collected(_)) && identity.role() != Role::Controller {
            return Err(Status::permission_denied(format!("{identity} may not say what was collected")));
        }
        let result = self.execute_op(client, sequence, op).await?;
        Ok(Response::new(pb::Response { result: Some(result) }))
    }
}

impl FilesService {
    async fn execute_op(&self, client: u64, sequence: u64, ask: Ask) -> Result<Wire, Status> {
        if let Ask::SetSpace(ask) = &ask
            && let Err(failure) = self.check_key_domain(ask).and_then(|()| self.check_replicas(ask))
        {
            return Ok(convert::failure(failure));
        }
        let ask = match asks::command(ask) {
            Ok(op) => return self.change(client, sequence, op).await,
            Err(ask) => ask,
        };
        match ask {
            Ask::ReserveBlocks(ask) => self.reserve(client, sequence, ask).await,
            Ask::RenewSession(ask) => self.renew(SessionId(ask.session)).await,
            Ask::Stat(ask) => self.query(|it| stat(it, &ask)).await,
            Ask::List(ask) => self.query(|it| list(it, &ask)).await,
            Ask::Resolve(ask) => self.query(|it| resolve(it, &ask)).await,
            Ask::Usage(ask) => {
                self.query(|it| Ok(Wire::Usage(convert::usage(it.usage(ask.base, &ask.path)?)))).await
            }
            Ask::Xattrs(ask) => {
                let xattrs =
                    |it: &Namespace| Ok(Wire::XattrList(convert::xattrs(&it.lookup(ask.base, &ask.path)?.0)));
                self.query(xattrs).await
            }
            Ask::Statfs(ask) => {
                let bytes = self.device_bytes();
                let statfs = |it: &Namespace| {
                    Ok(Wire::Statfs(convert::statfs(it.statfs(ask.base, &ask.path, bytes)?)))
                };
                self.query(statfs).await
            }
            Ask::ListTrash(ask) => self.query(|it| list_trash(it, &ask)).await,
            _ => Err(Status::unimplemented("this controller does not know the request; upgrade it")),
        }
    }

    async fn change(&self, client: u64, sequence: u64, op: Op) -> Result<Wire, Status> {
        match self.writes.propose(Command { client, sequence, at_ms: 0, op: Some(op) }).await {
            // Applied here before it was answered.
            Ok(answer) => Ok(convert::answer(answer, &self.files.local().0.namespace)),
            Err(ProposeError::Unknown { reason }) => {
                let message = format!("{reason}; send the request again with the same number");
                Ok(convert::failure(Failure::new(Code::Unavailable, "", &message)))
            }
            Err(error) => Err(refusal::of_propose(error)),
        }
    }

    /// Block ids, with the policy of the namespace that they are for.
    async fn reserve(&self, client: u64, sequence: u64, ask: pb::ReserveBlocks) -> Result<Wire, Status> {
        let namespace = ask.namespace.clone();
        let mut told = self.change(client, sequence, Op::ReserveBlocks(self.with_groups(ask))).await?;
        if let Wire::Failure(failure) = &mut told
            && failure.code() == pb::failure::Code::NoGroups
            && let Some(reason) = self.why_no_groups(&namespace)
        {
            failure.message = reason;
        }
        if let Wire::BlocksReserved(reserved) = &mut told
            && let Some(space) = self.files.local().0.namespace.space(&namespace)
        {
            (reserved.unit_log2, reserved.key_domain) = (space.unit_log2.into(), space.key_domain);
        }
        Ok(told)
    }

    /// A namespace goes into a key domain that there is. A region without a key service has no domains to look among.
    fn check_key_domain(&self, ask: &pb::SetSpace) -> Result<(), Failure> {
        let Some(id) = ask.key_domain else { return Ok(()) };
        let keys = self.cluster.local().0.keys;
        if keys.iter().next().is_none() || keys.domain(id).is_some_and(|it| it.current().is_some()) {
            return Ok(());
        }
        let message = match keys.domain(id) {
            Some(_) => "the key domain was dropped; take another (`nova key ls`)",
            None => "there is no such key domain; make it first (`nova key create`)",
        };
        Err(Failure::new(Code::Invalid, &format!("/{}", ask.name), message))
    }

    /// How many copies the new blocks of a namespace have.
    fn replicas_of(&self, namespace: &str) -> Replicas {
        let namespaces = self.files.local().0.namespace;
        namespaces.space(namespace).map_or(Replicas::DEFAULT, |space| space.replicas)
    }

    /// A namespace wants no more copies than there are hosts for them: it could take no files. A count that groups keep
    /// already may be had, also while hosts of theirs are away.
    fn check_replicas(&self, ask: &pb::SetSpace) -> Result<(), Failure> {
        // One that is out of range is refused by the namespace itself.
        let Some(replicas) = ask.replicas.and_then(Replicas::new) else { return Ok(()) };
        let state = self.cluster.local().0;
        let hosts = health::hosts_for_replicas(&state, None);
        if hosts >= replicas.count() || state.groups.keeps(replicas) {
            return Ok(());
        }
        let message = format!(
            "{replicas} copies lie on as many storage hosts, and {hosts} could hold them: add hosts first, or keep \
             fewer copies"
        );
        Err(Failure::new(Code::Invalid, &format!("/{}", ask.name), &message))
    }

    /// Why a namespace takes no blocks, when it is not only for a moment.
    fn why_no_groups(&self, namespace: &str) -> Option<String> {
        let replicas = self.replicas_of(namespace);
        let state = self.cluster.local().0;
        let hosts = health::hosts_for_replicas(&state, None);
        let unmade = !state.groups.keeps(replicas) && hosts < replicas.count();
        unmade.then(|| {
            format!(
                "/{namespace} keeps {replicas} copies of a block, each on another host, and {hosts} storage hosts \
                 could hold them: add hosts, or let it keep fewer (`nova fs space --replicas COUNT {namespace}`)"
            )
        })
    }

    /// Bytes of the devices that serve.
    fn device_bytes(&self) -> u64 {
        let state = self.cluster.local();
        let devices = state.0.groups.devices().filter(|(_, device)| device.state != DeviceState::Failed);
        devices.map(|(_, device)| device.bytes_total).sum()
    }

    async fn query(&self, ask: impl FnOnce(&Namespace) -> Result<Wire, Failure>) -> Result<Wire, Status> {
        let state = self.reads.read().await.map_err(refusal::of_read)?;
        Ok(ask(&state.0.namespace).unwrap_or_else(convert::failure))
    }

    /// A renewal changes nothing in the log: the leader notes when it heard the session. A deposed leader notes
    /// nothing, because its read fails.
    async fn renew(&self, session: SessionId) -> Result<Wire, Status> {
        let heard = clock::monotonic();
        let state = self.reads.read().await.map_err(refusal::of_read)?;
        let open = state.0.namespace.session(session).is_some();
        if !open {
            let message = "the writer session has ended; open another and write again";
            return Ok(convert::failure(Failure::new(Code::Fenced, "", message)));
        }
        self.renewals.lock().unwrap_or_else(PoisonError::into_inner).renew(session, heard);
        Ok(Wire::Done(pb::Done {}))
    }

    fn with_groups(&self, ask: pb::ReserveBlocks) -> ReserveBlocks {
        let state = self.cluster.local();
        let replicas = self.replicas_of(&ask.namespace);
        let mut groups: Vec<u32> = state.0.groups.writable(&ask.namespace, replicas).map(|id| id.0).collect();
        if !groups.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % groups.len();
            groups.rotate_left(turn);
            groups.truncate(GROUPS_PER_RESERVATION_MAX);
        }
        ReserveBlocks { session: ask.session, count: ask.count, groups }
    }
}

fn stat(namespace: &Namespace, ask: &pb::Stat) -> Result<Wire, Failure> {
    let mut entry = convert::entry(&namespace.stat(ask.base, &ask.path)?);
    if ask.with_path {
        entry.path = namespace.path(InodeId(entry.inode))?;
    }
    Ok(Wire::Entry(entry))
}

fn list(namespace: &Namespace, ask: &pb::List) -> Result<Wire, Failure> {
    let by_cookie = ask.by_cookie || ask.after_cookie != 0;
    let page = namespace.list(&ListAsk {
        base: ask.base,
        path: &ask.path,
        after: &ask.after,
        after_cookie: by_cookie.then_some(ask.after_cookie),
        limit: ask.limit,
        with_blocks: ask.with_blocks,
    })?;
    Ok(Wire::Listing(convert::listing(&page)))
}

fn resolve(namespace: &Namespace, ask: &pb::Resolve) -> Result<Wire, Failure> {
    let (inode, view) = if ask.path.is_empty() && ask.base == 0 {
        namespace.open_inode(InodeId(ask.inode))?
    } else {
        namespace.open(ask.base, &ask.path)?
    };
    Ok(Wire::Resolved(convert::resolved(&inode, &view)))
}

fn list_trash(namespace: &Namespace, ask: &pb::ListTrash) -> Result<Wire, Failure> {
    let after = if ask.after.is_empty() { Ok(0) } else { ask.after.parse() };
    let Ok(after) = after else {
        return Err(Failure::new(Code::Invalid, &ask.after, "after is the id of an entry, in decimal"));
    };
    let page = namespace.list_trash(&ask.namespace, after, ask.limit)?;
    Ok(Wire::Trash(convert::trash(&page)))
}
