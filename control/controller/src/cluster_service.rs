//! The service `Cluster`: hosts register, report and are told the map.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nova_api::cluster as pb;
use nova_api::cluster::cluster_server::Cluster as ClusterApi;
use nova_fleet::{Answer, NodeState, Op, Register};
use nova_groups::{CloseDevice, DeviceState, ForgetDevice};
use nova_raft::Group;
use nova_security::{Identity, Role, authorize};
use nova_state::{ClusterCommand, ClusterState, StepAnswer};
use nova_units::{BlockId, BootId, DeviceId, NodeId};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::attendance::{Attendance, ORDERS_WAITING_MAX, Orders};
use crate::check::Check;
use crate::collection::{CRITICAL_PERCENT, PRESSING_PERCENT, used_percent};
use crate::leader::{Leading, replicas_wanted};
use crate::machine::{Cluster, Files};
use crate::map::cluster_map;
use crate::reads::Reads;
use crate::{clock, health, refusal, room};

/// Node lease, counted from when the acknowledged heartbeat was sent (control design, section 2.1). It is over
/// before the controllers give a host up at 30 s.
const NODE_LEASE: Duration = Duration::from_secs(25);
/// A map waits in the stream of a host that is slow to take it; the next one is made when there is room.
const MAPS_WAITING_MAX: usize = 1;
/// Replies of a check that wait for whoever asked for it.
const CHECK_REPLIES_WAITING_MAX: usize = 64;
/// How long Status waits for another controller.
const REACH_TIMEOUT: Duration = Duration::from_millis(500);
/// A host whose reports are refused takes the reason within this, or learns only that its stream ended.
const REFUSAL_WITHIN: Duration = Duration::from_secs(1);

/// Serves the cluster while this controller leads its group.
#[derive(Clone, Debug)]
pub(crate) struct ClusterService {
    pub(crate) id: u64,
    pub(crate) members: Arc<BTreeMap<u64, String>>,
    pub(crate) cluster: Group<Cluster>,
    pub(crate) files: Group<Files>,
    pub(crate) reads: Reads<Cluster>,
    pub(crate) attendance: Arc<Attendance>,
    pub(crate) leading: watch::Receiver<Leading>,
    /// A full pass of the collection is under way here.
    pub(crate) collecting: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl ClusterApi for ClusterService {
    type AttendStream = ReceiverStream<Result<pb::HostOrder, Status>>;
    type WatchMapStream = ReceiverStream<Result<pb::ClusterMap, Status>>;
    type CheckStream = ReceiverStream<Result<pb::CheckReply, Status>>;

    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterResponse>, Status> {
        let identity = authorize(&request, &[Role::Agent])?;
        let ask = request.into_inner();
        if identity.node() != ask.name {
            return Err(Status::permission_denied(format!(
                "{identity} may not register host {:?}",
                ask.name
            )));
        }
        let (name, roles, addr) = (ask.name, ask.roles, ask.data_addr);
        let register = Register { name, roles, addr, boot: ask.boot, zone: ask.zone };
        let command = nova_fleet::Command { at_ms: clock::wall().0, op: Some(Op::Register(register)) };
        let batch = ClusterCommand { steps: vec![command.into()] };
        let answers = self.cluster.propose(batch).await.map_err(refusal::of_propose)?;
        match answers.as_slice() {
            [StepAnswer::Fleet(Answer::Registered(node))] => {
                let region_era = self.files.local().0.namespace.era().into();
                Ok(Response::new(pb::RegisterResponse { node: node.0, region_era }))
            }
            [StepAnswer::Fleet(Answer::Refused(reason))] => Err(Status::invalid_argument(*reason)),
            other => Err(Status::internal(format!("a registration was answered with {other:?}"))),
        }
    }

    async fn attend(
        &self,
        request: Request<Streaming<pb::HostReport>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let identity = authorize(&request, &[Role::Agent])?;
        self.check_leading()?;
        let (orders, stream) = mpsc::channel(ORDERS_WAITING_MAX);
        tokio::spawn(self.clone().attend_host(identity, request.into_inner(), orders));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn watch_map(
        &self,
        request: Request<pb::WatchMapRequest>,
    ) -> Result<Response<Self::WatchMapStream>, Status> {
        authorize(&request, &[Role::Agent, Role::Operator, Role::Gateway, Role::Monitor, Role::Controller])?;
        self.check_leading()?;
        let (maps, stream) = mpsc::channel(MAPS_WAITING_MAX);
        tokio::spawn(self.clone().send_maps(maps));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn drain(&self, request: Request<pb::DrainRequest>) -> Result<Response<pb::DrainResponse>, Status> {
        authorize(&request, &[Role::Operator])?;
        let pb::DrainRequest { name, undrain } = request.into_inner();
        let state = self.reads.read().await.map_err(refusal::of_read)?;
        let node = node_named(&state.0, &name)?;
        let groups = health::replicas_on(&state.0, node);
        if !undrain && groups > 0 {
            let others = health::hosts_for_replicas(&state.0, Some(node));
            let needed = health::most_replicas_on(&state.0, node);
            if others < needed {
                return Err(Status::invalid_argument(format!(
                    "{name} holds replicas of {groups} groups, and {others} other storage hosts could take them: \
                     blocks there have up to {needed} copies on different hosts, so {needed} others must be \
                     ready. Add a storage host, then drain this one"
                )));
            }
            let without = room::groups_without(&state.0, &self.attendance.vitals(), node);
            if without > 0 {
                return Err(Status::invalid_argument(format!(
                    "{name} holds replicas of {groups} groups, and no other storage host has room for {without} of \
                     them. Remove files or add a storage host, then drain this one"
                )));
            }
        }
        let drain = nova_fleet::Drain { node: node.0, on: !undrain };
        let command = nova_fleet::Command { at_ms: clock::wall().0, op: Some(Op::Drain(drain)) };
        let batch = ClusterCommand { steps: vec![command.into()] };
        let answers = self.cluster.propose(batch).await.map_err(refusal::of_propose)?;
        match answers.as_slice() {
            [StepAnswer::Fleet(Answer::Changed(_))] => {
                tracing::info!(name, undrain, groups, "an operator drains a host, or no longer");
                let groups = u32::try_from(groups).unwrap_or(u32::MAX);
                Ok(Response::new(pb::DrainResponse { node: node.0, groups }))
            }
            [StepAnswer::Fleet(Answer::Refused(reason))] => Err(Status::invalid_argument(*reason)),
            other => Err(Status::internal(format!("a drain was answered with {other:?}"))),
        }
    }

    async fn forget_device(
        &self,
        request: Request<pb::ForgetDeviceRequest>,
    ) -> Result<Response<pb::ForgetDeviceResponse>, Status> {
        authorize(&request, &[Role::Operator])?;
        let pb::ForgetDeviceRequest { name, device } = request.into_inner();
        let state = self.reads.read().await.map_err(refusal::of_read)?;
        let node = node_named(&state.0, &name)?;
        let id = device_of(&state.0, node, &name, &device)?;
        let forget = nova_groups::Op::ForgetDevice(ForgetDevice { device: device.to_vec() });
        self.change_groups(forget).await?;
        tracing::info!(name, %id, "an operator had a device forgotten");
        Ok(Response::new(pb::ForgetDeviceResponse {}))
    }

    async fn open_devices(
        &self,
        request: Request<pb::OpenDevicesRequest>,
    ) -> Result<Response<pb::OpenDevicesResponse>, Status> {
        authorize(&request, &[Role::Operator])?;
        self.check_leading()?;
        let pb::OpenDevicesRequest { name } = request.into_inner();
        let state = self.reads.read().await.map_err(refusal::of_read)?;
        let node = node_named(&state.0, &name)?;
        let known = state.0.groups.all_devices_of(node).map(|(id, device)| pb::KnownDevice {
            device: id.0.to_be_bytes().to_vec().into(),
            failed: device.state == DeviceState::Failed,
        });
        let order = self.attendance.order_open(node, known.collect()).ok_or_else(|| away(&name))?;
        tracing::info!(name, order, "an operator has a host open its devices");
        Ok(Response::new(pb::OpenDevicesResponse { order }))
    }

    async fn close_device(
        &self,
        request: Request<pb::CloseDeviceRequest>,
    ) -> Result<Response<pb::CloseDeviceResponse>, Status> {
        authorize(&request, &[Role::Operator])?;
        self.check_leading()?;
        let pb::CloseDeviceRequest { name, device } = request.into_inner();
        let state = self.reads.read().await.map_err(refusal::of_read)?;
        let node = node_named(&state.0, &name)?;
        let id = device_of(&state.0, node, &name, &device)?;
        let close = nova_groups::Op::CloseDevice(CloseDevice { device: device.to_vec() });
        self.change_groups(close).await?;
        // From here on nothing is served from it. A host that is not told now is told when it is asked for again.
        let order = self.attendance.order_close(node, id).ok_or_else(|| away(&name))?;
        tracing::info!(name, %id, order, "an operator has a host close a device");
        Ok(Response::new(pb::CloseDeviceResponse { order }))
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        authorize(&request, &[Role::Operator, Role::Agent, Role::Gateway, Role::Monitor, Role::Controller])?;
        // Without a leader an operator needs the answer most: any controller then tells what it knows.
        let (state, mut notes) = match self.cluster.metrics().leader {
            Some(_) => (self.reads.read().await.map_err(refusal::of_read)?, Vec::new()),
            None => (
                self.cluster.local(),
                vec!["no controller leads the cluster group: what is shown may be old".into()],
            ),
        };
        notes.extend(self.notes(&state.0));
        let term = self.cluster.metrics().term;
        let map = cluster_map(&state.0, term, Some(&self.attendance.vitals()));
        let controllers = self.controllers().await;
        let raft =
            vec![raft_group("cluster", &self.cluster.metrics()), raft_group("files", &self.files.metrics())];
        let collection = Some(self.collection());
        let fills = self.attendance.fills(&state.0);
        let lost = self.lost(&state.0).await?;
        let stored = if request.get_ref().stored { self.stored().await? } else { Vec::new() };
        let map = Some(map);
        let response = pb::StatusResponse { map, controllers, raft, notes, collection, fills, lost, stored };
        Ok(Response::new(response))
    }

    async fn check(&self, request: Request<pb::CheckRequest>) -> Result<Response<Self::CheckStream>, Status> {
        authorize(&request, &[Role::Operator])?;
        self.check_leading()?;
        let (replies, stream) = mpsc::channel(CHECK_REPLIES_WAITING_MAX);
        let check =
            Check::new(self.cluster.clone(), self.files.clone(), Arc::clone(&self.attendance), replies);
        let (mut leading, cluster) = (self.leading.clone(), self.cluster.clone());
        tokio::spawn(async move {
            let replies = check.replies();
            tokio::select! {
                () = check.run() => {}
                () = replies.closed() => {}
                () = Leading::lost(&mut leading) => {
                    // Whoever asked may be gone.
                    let _ = replies.send(Err(refusal::not_leader(cluster.leader()))).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn node_named(state: &ClusterState, name: &str) -> Result<NodeId, Status> {
    state.fleet.by_name(name).ok_or_else(|| Status::not_found(format!("there is no host {name:?}")))
}

/// The device of this host with this id.
fn device_of(state: &ClusterState, node: NodeId, name: &str, device: &[u8]) -> Result<DeviceId, Status> {
    let is_its = |id: &DeviceId| id.0.to_be_bytes() == *device;
    let found = state.groups.all_devices_of(node).map(|(id, _)| id).find(is_its);
    found.ok_or_else(|| {
        Status::not_found(format!("{name} has no device of this id: `nova node ls` lists those that it has"))
    })
}

fn away(name: &str) -> Status {
    Status::unavailable(format!("{name} takes no orders now: is its agent running? Try again in a moment"))
}

fn raft_group(name: &str, metrics: &nova_raft::Metrics) -> pb::RaftGroup {
    pb::RaftGroup {
        name: name.to_owned(),
        leader: metrics.leader.as_ref().map_or(0, |(id, _)| *id),
        term: metrics.term,
        committed: metrics.committed.unwrap_or(0),
        applied: metrics.applied.unwrap_or(0),
    }
}

/// What became of one report.
enum Taken {
    /// It was taken, and the data plane of its host is up.
    Up,
    /// It was taken; the host gets no lease.
    Down,
}

impl ClusterService {
    /// Has a change of the groups that an operator asked for applied.
    async fn change_groups(&self, op: nova_groups::Op) -> Result<(), Status> {
        let command = nova_groups::Command { at_ms: clock::wall().0, op: Some(op) };
        let batch = ClusterCommand { steps: vec![command.into()] };
        let answers = self.cluster.propose(batch).await.map_err(refusal::of_propose)?;
        match answers.as_slice() {
            [StepAnswer::Groups(nova_groups::Answer { refused: None, .. })] => Ok(()),
            [StepAnswer::Groups(nova_groups::Answer { refused: Some(reason), .. })] => {
                Err(Status::invalid_argument(*reason))
            }
            other => Err(Status::internal(format!("a change of the groups was answered with {other:?}"))),
        }
    }

    fn check_leading(&self) -> Result<(), Status> {
        if self.leading.borrow().leads() { Ok(()) } else { Err(refusal::not_leader(self.cluster.leader())) }
    }

    /// Takes the reports of one host until its stream ends or this controller leads no more.
    async fn attend_host(self, identity: Identity, mut reports: Streaming<pb::HostReport>, orders: Orders) {
        let (taken, to_acknowledge) = watch::channel((0_u64, false));
        let acknowledge = tokio::spawn(self.clone().acknowledge(to_acknowledge, orders.clone()));
        let mut leading = self.leading.clone();
        let mut entered = None;
        let ended = loop {
            let report = tokio::select! {
                report = reports.message() => report,
                () = Leading::lost(&mut leading) => break Some(refusal::not_leader(self.cluster.leader())),
                () = orders.closed() => break None,
            };
            let report = match report {
                Ok(Some(report)) => report,
                Ok(None) | Err(_) => break None,
            };
            let (node, sequence) = (NodeId(report.node), report.sequence);
            match self.take_report(&identity, report, &orders, &mut entered).await {
                Ok(outcome) => {
                    let up = matches!(outcome, Taken::Up);
                    taken.send_modify(|(highest, lease)| (*highest, *lease) = (sequence.max(*highest), up));
                }
                Err(status) => {
                    tracing::info!(node = node.0, %status, "a host's reports were refused");
                    break Some(status);
                }
            }
        };
        acknowledge.abort();
        if let Some(node) = entered {
            self.attendance.leave(node, &orders);
        }
        if let Some(status) = ended {
            // The host may be gone already, or take nothing: then the end of the stream is all that it learns.
            let _ = timeout(REFUSAL_WITHIN, orders.send(Err(status))).await;
        }
    }

    async fn take_report(
        &self,
        identity: &Identity,
        report: pb::HostReport,
        orders: &Orders,
        entered: &mut Option<NodeId>,
    ) -> Result<Taken, Status> {
        let (id, boot) = (NodeId(report.node), BootId(report.boot));
        let mut state = self.cluster.local();
        let registered = |state: &Cluster| state.0.fleet.node(id).is_some_and(|node| node.boot == boot);
        if !registered(&state) {
            // It may have registered with an earlier leader a moment ago.
            state = self.reads.read().await.map_err(refusal::of_read)?;
        }
        let node = state.0.fleet.node(id).ok_or_else(|| Status::not_found("no such host; register first"))?;
        if node.name != identity.node() {
            return Err(Status::permission_denied(format!(
                "{identity} may not report for host {:?}",
                node.name
            )));
        }
        if node.boot != boot {
            return Err(Status::aborted("another start of this host is registered; register again"));
        }
        if *entered != Some(id) {
            *entered = Some(id);
            self.attendance.enter(id, orders.clone());
        }
        Ok(if self.attendance.take(id, boot, report.report) { Taken::Up } else { Taken::Down })
    }

    /// Acknowledges what was taken once a majority confirmed, in a round begun afterwards, that this controller
    /// leads: a deposed leader extends no lease.
    async fn acknowledge(self, mut taken: watch::Receiver<(u64, bool)>, orders: Orders) {
        while taken.changed().await.is_ok() {
            let (acknowledged, up) = *taken.borrow_and_update();
            if self.reads.read().await.is_err() {
                continue;
            }
            let lease_ms = if up { u64::try_from(NODE_LEASE.as_millis()).unwrap_or(0) } else { 0 };
            let order = pb::HostOrder { acknowledged, lease_ms, order: None };
            if orders.send(Ok(order)).await.is_err() {
                return;
            }
        }
    }

    /// Sends the map now and after every change; changes that come while one is on its way make one message.
    async fn send_maps(self, maps: mpsc::Sender<Result<pb::ClusterMap, Status>>) {
        let mut applied = self.cluster.watch();
        let mut leading = self.leading.clone();
        let mut state = match self.reads.read().await {
            Ok(state) => state,
            Err(error) => {
                let _ = maps.send(Err(refusal::of_read(error))).await;
                return;
            }
        };
        loop {
            let sent = state.0.version;
            let map = cluster_map(&state.0, self.cluster.metrics().term, None);
            if maps.send(Ok(map)).await.is_err() {
                return;
            }
            while state.0.version == sent {
                tokio::select! {
                    changed = applied.changed() => if changed.is_err() { return },
                    () = Leading::lost(&mut leading) => {
                        let _ = maps.send(Err(refusal::not_leader(self.cluster.leader()))).await;
                        return;
                    }
                    () = maps.closed() => return,
                }
                state = self.cluster.local();
            }
        }
    }

    fn notes(&self, state: &ClusterState) -> Vec<String> {
        let mut notes = Vec::new();
        let serving =
            state.fleet.iter().filter(|(id, node)| node.stores() && state.groups.stores(*id)).count();
        let unmade =
            replicas_wanted(&self.files).into_iter().filter(|replicas| !state.groups.keeps(*replicas));
        for replicas in unmade.filter(|replicas| serving < replicas.count()) {
            notes.push(format!(
                "{serving} of {replicas} storage hosts with a device: groups of {replicas} replicas need as many to be \
                 made, and namespaces that want so many copies take no files before"
            ));
        }
        let frozen = state.groups.iter().filter(|(_, group)| group.frozen()).count();
        if frozen > 0 {
            notes.push(format!(
                "{frozen} replica groups have one member in sync: they take no writes until another joins"
            ));
        }
        notes.extend(health::notes(state, &self.attendance.vitals()));
        if self.cluster.is_leader() {
            notes.extend(self.space_notes(state));
            notes.extend(health::stalled_notes(state, &self.attendance.fills(state)));
            notes.extend(health::novad_notes(state, &self.attendance.without_novad()));
            let hanging = self.attendance.hanging();
            notes.extend(health::hanging_notes(state, &self.attendance.vitals(), &hanging));
            let storms = self.attendance.storms(state).into_iter();
            notes.extend(
                storms
                    .map(|zone| format!("many hosts of zone {zone:?} are silent at once: none is given up")),
            );
        }
        notes
    }

    /// What files have in every group.
    async fn stored(&self) -> Result<Vec<pb::Stored>, Status> {
        let namespace = self.files.local().0.namespace;
        let stored = |(group, (blocks, bytes)): (nova_units::GroupId, (u64, u64))| pb::Stored {
            group: group.0,
            blocks,
            bytes,
        };
        spawn_blocking(move || namespace.stored_by_group().into_iter().map(stored).collect())
            .await
            .map_err(|_| Status::internal("count the blocks of groups"))
    }

    /// Units of which no host in reach has a good copy, as members in sync tell them, with the files they are of.
    async fn lost(&self, state: &ClusterState) -> Result<Vec<pb::LostUnit>, Status> {
        let mut lost = health::lost(state, &self.attendance.vitals());
        if !lost.is_empty() {
            let blocks = lost.iter().map(|unit| BlockId(unit.block)).collect();
            let namespace = self.files.local().0.namespace;
            let found = spawn_blocking(move || {
                let owners = namespace.owners(&blocks).into_iter();
                owners
                    .map(|(block, inode)| (block.0, (inode.0, namespace.path(inode).unwrap_or_default())))
                    .collect()
            });
            let owners: BTreeMap<u64, (u64, String)> =
                found.await.map_err(|_| Status::internal("look for the files of lost units"))?;
            for unit in &mut lost {
                (unit.inode, unit.path) = owners.get(&unit.block).cloned().unwrap_or_default();
            }
        }
        Ok(lost)
    }

    /// Spec E.2: hosts whose space is short.
    fn space_notes(&self, state: &ClusterState) -> Vec<String> {
        let vitals = self.attendance.vitals();
        let storing = state.fleet.iter().filter(|(_, node)| node.stores() && node.state == NodeState::Ready);
        let full = storing.filter_map(|(id, node)| {
            let said = vitals.get(&id)?;
            let percent = said.rooms().filter_map(|(total, free)| used_percent(total, free)).max()?;
            let name = &node.name;
            if percent > CRITICAL_PERCENT {
                Some(format!(
                    "SPACE IS RUNNING OUT: a device of {name} is {percent} % full. Remove files or add storage hosts now; a full \
                     device refuses writes, and only removing files makes room"
                ))
            } else if percent > PRESSING_PERCENT {
                Some(format!("a device of {name} is {percent} % full: blocks of removed files are collected at once"))
            } else {
                None
            }
        });
        full.collect()
    }

    fn collection(&self) -> pb::Collection {
        let namespace = self.files.local().0.namespace;
        let sum = namespace.collection();
        pb::Collection {
            blocks_waiting: namespace.orphans().map(|(_, orphan)| u64::from(orphan.count)).sum(),
            blocks: sum.blocks,
            bytes: sum.bytes,
            full_pass_ms: sum.full_pass.0,
            full_pass_running: *self.collecting.borrow(),
        }
    }

    async fn controllers(&self) -> Vec<pb::Controller> {
        let looks = self.members.iter().map(|(id, addr)| async {
            let reachable = *id == self.id || is_reachable(addr).await;
            pb::Controller { id: *id, addr: addr.clone(), reachable }
        });
        futures::future::join_all(looks).await
    }
}

/// Something listens there.
pub(crate) async fn is_reachable(addr: &str) -> bool {
    matches!(timeout(REACH_TIMEOUT, TcpStream::connect(addr)).await, Ok(Ok(_)))
}
