//! A region of three controllers in one process; each has a runtime of its own, so that a kill takes all its tasks.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nova_api::raft as pb;
use nova_api::raft::raft_peer_client::RaftPeerClient;
use nova_raft::{Group, GroupOptions, Peers, ProposeError, RaftError, StateMachine, Timing};
use nova_security::{Authority, Credentials, Identity, Role, Zone};
use tokio::runtime::Runtime;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Status};

/// Puts a value at a key.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Put {
    #[prost(uint64, tag = "1")]
    pub(crate) key: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// A command with this key is applied when [`Gate::open`] was called, and not before.
pub(crate) const GATED: u64 = u64::MAX;
/// Of this process: a test is one.
pub(crate) static GATE: Gate = Gate { state: Mutex::new((0, false)), changed: Condvar::new() };

/// Where commands stand that take long.
pub(crate) struct Gate {
    /// How many stand there, and whether it is open.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        drop(self.changed.wait_while(state, |(_, open)| !*open).unwrap());
    }

    /// How many commands have come to it.
    pub(crate) fn reached(&self) -> usize {
        self.state.lock().unwrap().0
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

/// A map, with the number of commands it has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) values: Arc<BTreeMap<u64, Vec<u8>>>,
    pub(crate) commands: u64,
}

impl StateMachine for Map {
    type Command = Put;
    /// The value that stood there before.
    type Answer = Option<Vec<u8>>;

    fn apply(&mut self, _index: u64, command: Put) -> Option<Vec<u8>> {
        if command.key == GATED {
            GATE.pass();
        }
        self.commands += 1;
        Arc::make_mut(&mut self.values).insert(command.key, command.value)
    }

    fn encode(&self, out: &mut dyn FnMut(&[u8])) {
        out(&self.commands.to_le_bytes());
        for (key, value) in self.values.iter() {
            out(&key.to_le_bytes());
            out(&u64::try_from(value.len()).unwrap().to_le_bytes());
            out(value);
        }
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let number = |bytes: &mut &[u8]| -> Result<u64, String> {
            let (head, rest) = bytes.split_first_chunk().ok_or("cut short")?;
            *bytes = rest;
            Ok(u64::from_le_bytes(*head))
        };
        let commands = number(&mut bytes)?;
        let mut values = BTreeMap::new();
        while !bytes.is_empty() {
            let key = number(&mut bytes)?;
            let count = usize::try_from(number(&mut bytes)?).map_err(|e| e.to_string())?;
            let value = bytes.get(..count).ok_or("cut short")?.to_vec();
            bytes = &bytes[count..];
            values.insert(key, value);
        }
        Ok(Self { values: Arc::new(values), commands })
    }
}

/// A controller that runs.
pub(crate) struct Node {
    pub(crate) group: Group<Map>,
    peers: Peers,
    runtime: Runtime,
}

/// Three controllers and what they need.
pub(crate) struct Region {
    folder: tempfile::TempDir,
    members: BTreeMap<u64, String>,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) timing: Timing,
    bootstrap: bool,
}

impl Region {
    /// Certificates, addresses and folders for members 1 to 3; none runs yet.
    pub(crate) fn prepare(timing: Timing) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(&folder.path().join("ca"), "test").unwrap();
        let mut members = BTreeMap::new();
        for id in 1..=3 {
            issue(&authority, &folder.path().join("tls"), Role::Controller, &format!("c{id}"));
            // A port that was free a moment ago; the node binds it when it starts.
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            members.insert(id, free.to_string());
        }
        Self { folder, members, nodes: BTreeMap::new(), timing, bootstrap: true }
    }

    /// All three, with a leader.
    pub(crate) fn start(timing: Timing) -> Self {
        let mut region = Self::prepare(timing);
        for id in 1..=3 {
            region.start_node(id);
        }
        region.leader();
        region
    }

    pub(crate) fn folder_of(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("c{id}"))
    }

    fn options(&self, id: u64, peers: Peers) -> GroupOptions {
        GroupOptions {
            name: "cluster".to_owned(),
            id,
            members: self.members.clone(),
            folder: self.folder_of(id),
            credentials: Credentials::load(&self.folder.path().join("tls"), &format!("c{id}")).unwrap(),
            peers,
            bootstrap: self.bootstrap,
            timing: self.timing,
        }
    }

    /// Opens the group of member `id` and serves it.
    pub(crate) fn try_start_node(&mut self, id: u64) -> Result<(), RaftError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let peers = Peers::new();
        let options = self.options(id, peers.clone());
        let (address, tls) = (self.members[&id].clone(), options.credentials.server_tls());
        let group = runtime.block_on(async {
            let listener = bind(&address).await;
            let server = Server::builder().tls_config(tls).unwrap().add_service(peers.service());
            tokio::spawn(server.serve_with_incoming(incoming(listener)));
            Group::open(options, Map::default()).await
        })?;
        self.nodes.insert(id, Node { group, peers, runtime });
        Ok(())
    }

    /// Opens a second group, `files`, on every member that runs, behind the same service.
    pub(crate) fn open_second_group(&self) -> Vec<(u64, Group<Map>)> {
        let open = |(id, node): (&u64, &Node)| {
            let options = GroupOptions {
                name: "files".to_owned(),
                folder: self.folder_of(*id).join("files"),
                ..self.options(*id, node.peers.clone())
            };
            (*id, node.run(Group::open(options, Map::default())).unwrap())
        };
        self.nodes.iter().map(open).collect()
    }

    /// Starts a member the group does not know yet; gives its address.
    pub(crate) fn start_newcomer(&mut self, id: u64) -> String {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let authority = Authority::open(&self.folder.path().join("ca")).unwrap();
        issue(&authority, &self.folder.path().join("tls"), Role::Controller, &format!("c{id}"));
        self.members.insert(id, address.clone());
        self.bootstrap = false;
        self.start_node(id);
        address
    }

    /// Asks member `id` for a vote as somebody of this role would.
    pub(crate) fn call(
        &self,
        id: u64,
        role: Role,
        group: &str,
        target: &str,
    ) -> Result<pb::VoteReply, Status> {
        let tls = self.folder.path().join("tls");
        let authority = Authority::open(&self.folder.path().join("ca")).unwrap();
        issue(&authority, &tls, role, "caller");
        let credentials = Credentials::load(&tls, "caller").unwrap();
        let endpoint = Endpoint::from_shared(format!("https://{}", self.members[&id])).unwrap();
        let endpoint = endpoint.tls_config(credentials.client_tls(Role::Controller)).unwrap();
        let mut request =
            Request::new(pb::VoteRequest { vote: Some(pb::Vote::default()), ..Default::default() });
        request.metadata_mut().insert("nova-raft-group", group.parse().unwrap());
        request.metadata_mut().insert("nova-raft-target", target.parse().unwrap());
        self.node(id).run(async {
            let mut client = RaftPeerClient::new(endpoint.connect_lazy());
            client.vote(request).await.map(tonic::Response::into_inner)
        })
    }

    /// As [`Region::try_start_node`]; waits for a killed predecessor to let go of its folder.
    pub(crate) fn start_node(&mut self, id: u64) {
        let began = Instant::now();
        loop {
            match self.try_start_node(id) {
                Ok(()) => return,
                Err(RaftError::InUse { .. }) if began.elapsed() < Duration::from_secs(5) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => panic!("start member {id}: {error}"),
            }
        }
    }

    /// Takes away all tasks and connections of member `id` at once.
    pub(crate) fn kill(&mut self, id: u64) {
        let node = self.nodes.remove(&id).unwrap();
        node.runtime.shutdown_background();
    }

    /// Stops member `id` in good order.
    pub(crate) fn stop(&mut self, id: u64) {
        let node = self.nodes.remove(&id).unwrap();
        node.runtime.block_on(node.group.shutdown()).unwrap();
        node.runtime.shutdown_background();
    }

    /// The member that leads, in its own eyes and with a majority behind it.
    pub(crate) fn leader(&self) -> u64 {
        wait("a leader", || {
            self.nodes
                .iter()
                .find(|(_, node)| node.group.is_leader() && node.runtime.block_on(node.group.read()).is_ok())
                .map(|(id, _)| *id)
        })
    }

    /// Has a command carried out by whoever leads, asking again while nobody does.
    pub(crate) fn put(&self, key: u64, value: &[u8]) -> Option<Vec<u8>> {
        wait("an answer", || {
            let (_, node) = self.nodes.iter().find(|(_, node)| node.group.is_leader())?;
            let put = Put { key, value: value.to_vec() };
            match node.runtime.block_on(node.group.propose(put)) {
                Ok(answer) => Some(answer),
                Err(ProposeError::NotLeader { .. } | ProposeError::Unknown { .. }) => None,
                Err(error) => panic!("propose: {error}"),
            }
        })
    }

    /// What the leader of the moment answers to a linearizable read, asking again while nobody does.
    pub(crate) fn read(&self) -> Map {
        wait("a read", || {
            self.nodes
                .values()
                .filter(|node| node.group.is_leader())
                .find_map(|node| node.runtime.block_on(node.group.read()).ok())
        })
    }

    pub(crate) fn node(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }

    /// Waits until every running member has applied the same.
    pub(crate) fn settle(&self) -> Map {
        wait("members to agree", || {
            let mut states = self.nodes.values().map(|node| node.group.local());
            let first = states.next()?;
            states.all(|state| state == first).then_some(first)
        })
    }
}

impl Drop for Region {
    /// Before the folders go: a log whose files vanish ends the process.
    fn drop(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop(id);
        }
    }
}

impl Node {
    pub(crate) fn run<T>(&self, task: impl Future<Output = T>) -> T {
        self.runtime.block_on(task)
    }
}

fn issue(authority: &Authority, folder: &Path, role: Role, node: &str) {
    let identity = Identity::new("test", Zone::Management, role, node).unwrap();
    authority.issue(folder, node, &identity, &[]).unwrap();
}

/// Connections without Nagle's delay. The server's own option for it is not used for a listener made outside, and a
/// follower's small answers would wait 40 ms for an acknowledgement.
fn incoming(listener: tokio::net::TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

async fn bind(address: &str) -> tokio::net::TcpListener {
    // A killed predecessor may hold the port for a moment.
    for _ in 0..250 {
        if let Ok(listener) = tokio::net::TcpListener::bind(address).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{address} stays taken");
}

/// Looks again and again until `found` finds something; 20 s at most.
pub(crate) fn wait<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
