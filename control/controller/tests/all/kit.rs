//! A region of controllers as child processes, and what talks to them.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nova_api::cluster as pb;
use nova_api::cluster::cluster_client::ClusterClient;
use nova_api::cluster::host_order::Order;
use nova_api::cluster::host_report::Report;
use nova_api::files::files_client::FilesClient;
use nova_api::files::request::Op as Ask;
use nova_api::files::response::Result as Told;
use nova_security::{Authority, Credentials, Identity, Role, Zone};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// Longest wait for something that must come; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Controllers 1 to 3 and the region's certificates.
pub(crate) struct Region {
    folder: tempfile::TempDir,
    pub(crate) members: BTreeMap<u64, String>,
    children: BTreeMap<u64, Child>,
}

impl Region {
    /// Certificates, ports and configurations; nothing runs.
    pub(crate) fn prepare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(&folder.path().join("ca"), "test").unwrap();
        let issue = |name: &str, zone, role| {
            let identity = Identity::new("test", zone, role, name).unwrap();
            authority.issue(&folder.path().join("tls"), name, &identity, &[]).unwrap();
        };
        let mut members = BTreeMap::new();
        // Ports that were free a moment ago, held together so that they differ.
        let held: Vec<TcpListener> = (1..=3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        for (id, listener) in (1..=3).zip(&held) {
            issue(&format!("c{id}"), Zone::Management, Role::Controller);
            members.insert(id, listener.local_addr().unwrap().to_string());
        }
        for host in 1..=4 {
            issue(&format!("h{host}"), Zone::Data, Role::Agent);
        }
        issue("ann", Zone::Management, Role::Operator);
        let region = Self { folder, members, children: BTreeMap::new() };
        for id in 1..=3 {
            std::fs::write(region.config(id), region.config_text(id)).unwrap();
        }
        region
    }

    /// All three run.
    pub(crate) fn start() -> Self {
        let mut region = Self::prepare();
        for id in 1..=3 {
            region.spawn(id);
        }
        region
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self, id: u64) -> PathBuf {
        self.path(&format!("c{id}.toml"))
    }

    pub(crate) fn config_text(&self, id: u64) -> String {
        let path = |name: String| self.path(&name).display().to_string();
        let tls = format!(
            "[tls]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n",
            path("tls/ca.pem".into()),
            path(format!("tls/c{id}.pem")),
            path(format!("tls/c{id}.key"))
        );
        let peers: String = self
            .members
            .iter()
            .map(|(id, addr)| format!("[[peers]]\nid = {id}\naddress = {addr:?}\n"))
            .collect();
        let (listen, folder) = (&self.members[&id], path(format!("c{id}")));
        format!(
            "region = \"test\"\nid = {id}\nlisten = {listen:?}\nfolder = {folder:?}\n\n[collection]\nafter_seconds = 0\n\n{tls}\n{peers}"
        )
    }

    pub(crate) fn spawn(&mut self, id: u64) {
        let log = File::options().create(true).append(true).open(self.path(&format!("c{id}.log"))).unwrap();
        let child = nova_control(&self.config(id)).stdin(Stdio::null()).stderr(log).spawn().unwrap();
        self.children.insert(id, child);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, id: u64) {
        let mut child = self.children.remove(&id).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; gives the exit code.
    pub(crate) fn terminate(&mut self, id: u64) -> Option<i32> {
        let mut child = self.children.remove(&id).unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap().code()
    }

    /// Who leads the cluster's group. A follower that was asked may not have heard it yet.
    pub(crate) async fn cluster_leader(&self) -> u64 {
        let begun = Instant::now();
        loop {
            let status = self.status().await;
            let leader =
                status.raft.iter().find(|group| group.name == "cluster").map_or(0, |group| group.leader);
            if leader != 0 {
                return leader;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody leads: {:?}", status.raft);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn credentials(&self, name: &str) -> Credentials {
        Credentials::load(&self.path("tls"), name).unwrap()
    }

    pub(crate) fn channel(&self, id: u64, name: &str) -> Channel {
        Endpoint::from_shared(format!("https://{}", self.members[&id]))
            .unwrap()
            .tls_config(self.credentials(name).client_tls(Role::Controller))
            .unwrap()
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(10))
            .connect_lazy()
    }

    fn id_of(&self, addr: &str) -> Option<u64> {
        self.members.iter().find(|(_, member)| *member == addr).map(|(id, _)| *id)
    }

    /// Asks one controller after the other, and the one that is named as leader next, until it is answered.
    /// Gives the answer and who gave it.
    pub(crate) async fn ask<T, F: Future<Output = Result<T, Status>>>(
        &self,
        ask: impl Fn(u64) -> F,
    ) -> (u64, T) {
        let began = Instant::now();
        let mut next = *self.children.keys().next().unwrap();
        loop {
            let status = match ask(next).await {
                Ok(answer) => return (next, answer),
                Err(status) => status,
            };
            let again = matches!(
                status.code(),
                Code::FailedPrecondition | Code::Unavailable | Code::Cancelled | Code::Unknown
            );
            assert!(again, "controller {next}: {status}");
            assert!(began.elapsed() < PATIENCE, "nobody answers: {status}\n{}", self.logs());
            let named =
                status.metadata().get("nova-leader").and_then(|addr| self.id_of(addr.to_str().unwrap()));
            next = named.unwrap_or(next % 3 + 1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn logs(&self) -> String {
        (1..=3)
            .map(|id| {
                let log = std::fs::read_to_string(self.path(&format!("c{id}.log"))).unwrap_or_default();
                let from = log.len().saturating_sub(3000);
                format!("--- c{id}\n{}\n", log.get(from..).unwrap_or(&log))
            })
            .collect()
    }

    pub(crate) async fn status(&self) -> pb::StatusResponse {
        let ask = |id| async move {
            let mut client = ClusterClient::new(self.channel(id, "ann"));
            client.status(pb::StatusRequest { stored: true }).await.map(tonic::Response::into_inner)
        };
        self.ask(ask).await.1
    }

    /// A request about files, asked of the leader by host 1.
    pub(crate) async fn files(&self, client: u64, sequence: u64, op: Ask) -> (u64, Told) {
        let request = nova_api::files::Request { client, sequence, op: Some(op) };
        let ask = |id| {
            let request = request.clone();
            async move {
                let mut files = FilesClient::new(self.channel(id, "h1"));
                files.execute(request).await.map(|response| response.into_inner().result.unwrap())
            }
        };
        self.ask(ask).await
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            // It may have ended by itself; the test has said so then.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn nova_control(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nova-control"));
    command.arg("--config").arg(config);
    command
}

/// Waits for `look` to give something.
pub(crate) async fn wait<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Between two beats of a host, as of an agent.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// A played agent with its data plane.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) id: u64,
    pub(crate) boot: u64,
    pub(crate) incarnation: u64,
    pub(crate) mount_counter: u64,
    sequence: u64,
    stream: Option<(mpsc::Sender<pb::HostReport>, Streaming<pb::HostOrder>)>,
}

impl Host {
    /// Registers `h<number>` under `boot` and attends.
    pub(crate) async fn join(region: &Region, number: u64, boot: u64) -> Self {
        let name = format!("h{number}");
        let mut host =
            Self { name, id: 0, boot, incarnation: 0, mount_counter: 0, sequence: 0, stream: None };
        host.attend(region).await;
        host
    }

    /// Registers (again) with whoever leads, opens a stream and heartbeats once.
    pub(crate) async fn attend(&mut self, region: &Region) {
        let request = pb::RegisterRequest {
            name: self.name.clone(),
            roles: vec!["storage".into()],
            data_addr: format!("127.0.0.1:{}", 9000 + self.boot % 100),
            boot: self.boot,
            zone: "a".into(),
        };
        let (name, request) = (&self.name, &request);
        let ask = |id| async move {
            let mut client = ClusterClient::new(region.channel(id, name));
            let registered = client.register(request.clone()).await?.into_inner();
            let (reports, stream) = mpsc::channel(64);
            let orders = client.attend(ReceiverStream::new(stream)).await?.into_inner();
            Ok((registered, reports, orders))
        };
        let (_, (registered, reports, orders)) = region.ask(ask).await;
        assert_eq!(registered.region_era, 1);
        assert!(self.id == 0 || self.id == registered.node, "a host keeps its id");
        self.id = registered.node;
        self.stream = Some((reports, orders));
        self.heartbeat().await;
    }

    pub(crate) async fn report(&mut self, report: Report) -> u64 {
        self.sequence += 1;
        let report =
            pb::HostReport { node: self.id, boot: self.boot, sequence: self.sequence, report: Some(report) };
        // A stream that ended is noticed when orders are read.
        let _ = self.stream.as_ref().unwrap().0.send(report).await;
        self.sequence
    }

    pub(crate) async fn heartbeat(&mut self) -> u64 {
        let beat =
            pb::Heartbeat { bytes_total: 1000, bytes_free: 400, novad_up: true, ..pb::Heartbeat::default() };
        self.report(Report::Heartbeat(beat)).await
    }

    pub(crate) async fn order(&mut self) -> Result<pb::HostOrder, Status> {
        let next = tokio::time::timeout(PATIENCE, self.stream.as_mut().unwrap().1.message());
        next.await.expect("an order in time")?.ok_or_else(|| Status::cancelled("the stream ended"))
    }

    /// Heartbeats until report `sequence` is acknowledged; gives the lease.
    pub(crate) async fn acknowledged(&mut self, sequence: u64) -> u64 {
        loop {
            let order = self.order().await.unwrap();
            if order.acknowledged >= sequence {
                return order.lease_ms;
            }
        }
    }

    /// Mounts the device with a higher counter; gives whether it is to be emptied.
    pub(crate) async fn mount(&mut self) -> bool {
        self.mount_counter += 1;
        let mounted = pb::DeviceMounted {
            device: vec![u8::try_from(self.id).unwrap(); 16].into(),
            mount_counter: self.mount_counter,
            incarnation: self.incarnation,
            bytes_total: 1 << 30,
            place: 0,
            trail: vec![self.mount_counter - 1, self.mount_counter],
        };
        let mounted = pb::DevicesMounted { devices: vec![mounted], ..pb::DevicesMounted::default() };
        self.report(Report::DevicesMounted(mounted)).await;
        loop {
            if let Some(Order::Incarnate(incarnate)) = self.order().await.unwrap().order {
                assert_eq!(incarnate.device.as_ref(), [u8::try_from(self.id).unwrap(); 16]);
                self.incarnation = incarnate.incarnation;
                return incarnate.wipe;
            }
        }
    }
}

/// The maps that a host is sent.
pub(crate) struct Maps(Streaming<pb::ClusterMap>);

impl Maps {
    pub(crate) async fn watch(region: &Region, name: &str) -> Self {
        let ask = |id| async move {
            let mut client = ClusterClient::new(region.channel(id, name));
            let request = pb::WatchMapRequest::default();
            client.watch_map(request).await.map(|response| Self(response.into_inner()))
        };
        region.ask(ask).await.1
    }

    /// The first map from now on that `good` is content with.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        good: impl Fn(&pb::ClusterMap) -> bool,
    ) -> pb::ClusterMap {
        let look = async {
            let mut version = 0;
            loop {
                let map = self.0.message().await.unwrap().expect("the stream goes on");
                assert!(map.version >= version, "versions grow");
                version = map.version;
                if good(&map) {
                    return map;
                }
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    /// The same while these hosts beat, as agents do: on a busy machine a host that beat once is silent before anything
    /// is planned for it.
    pub(crate) async fn until_with(
        &mut self,
        hosts: &mut [Host],
        what: &str,
        good: impl Fn(&pb::ClusterMap) -> bool,
    ) -> pb::ClusterMap {
        let beats = async {
            loop {
                for host in &mut *hosts {
                    host.heartbeat().await;
                }
                tokio::time::sleep(BEAT_EVERY).await;
            }
        };
        tokio::select! {
            map = self.until(what, good) => map,
            never = beats => never,
        }
    }
}
