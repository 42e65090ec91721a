//! A novad of its own for one test, with the test in the place of its agent.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nova_ring::abi::{AgentCommand, AgentEvent};
use nova_ring::handshake::Hello;
use nova_ring::snapshot::{HostMap, HostNode, SnapshotWriter};
use nova_ring::{Kind, LOOK_AGAIN, Link, SNAPSHOT_BYTES, attach};

/// Whatever novad does takes less than this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A novad that is an edge and knows no group.
pub(crate) struct Novad {
    child: Child,
    folder: Option<tempfile::TempDir>,
    agent: Link,
    tickets: u8,
    /// All that it said.
    pub(crate) said: Vec<AgentEvent>,
}

/// A folder on a file system with direct I/O.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn ci_profile() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hw-profiles/ci.toml")
}

impl Novad {
    /// Starts it and gives it its first map.
    pub(crate) fn start() -> Self {
        Self::start_with(folder(), "").unwrap_or_else(|log| panic!("novad ended: {log}"))
    }

    /// The same with more in its configuration; its log when it ends.
    pub(crate) fn start_with(folder: tempfile::TempDir, more: &str) -> Result<Self, String> {
        Self::start_at(folder, "127.0.0.1:0", 1, more)
    }

    /// The same with so many shards, the first of which listens at `listen`.
    pub(crate) fn start_at(
        folder: tempfile::TempDir,
        listen: &str,
        shards: u16,
        more: &str,
    ) -> Result<Self, String> {
        let path = |name: &str| folder.path().join(name);
        let key = format!("novaclustr-region-key-1 1 1 {}\n", "ab".repeat(32));
        let mut file =
            fs::File::options().write(true).create_new(true).mode(0o600).open(path("region.key")).unwrap();
        std::io::Write::write_all(&mut file, key.as_bytes()).unwrap();
        let profile = fs::read_to_string(ci_profile()).unwrap();
        let profile = profile.replace("count = 1", &format!("count = {shards}"));
        fs::write(path("profile.toml"), profile).unwrap();
        let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../novabulk/tls/testdata");
        for (from, to) in [("ca.pem", "ca.pem"), ("one.pem", "novad.pem"), ("one.key", "novad.key")] {
            fs::copy(testdata.join(from), path(to)).unwrap();
            fs::set_permissions(path(to), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let config = format!(
            "name = \"one\"\nsocket = {:?}\ndata_listen = {listen:?}\nprofile = {:?}\nregion_key = {:?}\n\
             tls = {{ ca = {:?}, certificate = {:?}, key = {:?} }}\n{more}",
            path("novad.sock"),
            path("profile.toml"),
            path("region.key"),
            path("ca.pem"),
            path("novad.pem"),
            path("novad.key")
        );
        fs::write(path("novad.toml"), config).unwrap();
        let log = fs::File::create(path("novad.log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_novad"))
            .arg("--config")
            .arg(path("novad.toml"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let began = Instant::now();
        let hello = Hello::new(Kind::Agent, [0; 16], 2 * u64::from(SNAPSHOT_BYTES), 0);
        let agent = loop {
            match attach(&path("novad.sock"), &hello) {
                Ok(link) => break link,
                Err(error) => {
                    let log = || fs::read_to_string(path("novad.log")).unwrap();
                    if child.try_wait().unwrap().is_some() {
                        return Err(log());
                    }
                    assert!(began.elapsed() < PATIENCE, "{error}: {}", log());
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut novad = Self { child, folder: Some(folder), agent, tickets: 0, said: Vec::new() };
        let map = HostMap {
            version: 1,
            term: 1,
            self_node: 1,
            nodes: vec![HostNode { node: 1, ..HostNode::default() }],
            ..HostMap::default()
        };
        let configure = SnapshotWriter::new(novad.agent.area.clone()).write(&map).unwrap();
        novad.tell(configure);
        novad.wait_for(|event| matches!(event, AgentEvent::Configured { version: 1 }));
        Ok(novad)
    }

    pub(crate) fn tell(&mut self, command: AgentCommand) {
        self.agent.sender.push(command.encode()).unwrap();
        self.agent.sender.ring();
    }

    pub(crate) fn wait_for(&mut self, wanted: impl Fn(&AgentEvent) -> bool) {
        let began = Instant::now();
        loop {
            while let Some(slot) = self.agent.receiver.pop().unwrap() {
                let event = AgentEvent::decode(&slot).unwrap();
                let found = wanted(&event);
                self.said.push(event);
                if found {
                    return;
                }
            }
            assert!(began.elapsed() < PATIENCE, "novad does not say what was waited for");
            self.agent.receiver.wait(LOOK_AGAIN).unwrap();
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder().join("novad.sock")
    }

    /// Attaches a program.
    pub(crate) fn program(&mut self) -> Link {
        self.tickets += 1;
        let ticket = [self.tickets; 16];
        let uid = rustix::process::geteuid().as_raw();
        self.tell(AgentCommand::AdmitTicket { ticket, uid, valid_ms: 10_000 });
        attach(&self.socket(), &Hello::new(Kind::Client, ticket, 1 << 16, 0)).unwrap()
    }

    /// Ends it in order; answers its folder.
    pub(crate) fn stop(mut self) -> tempfile::TempDir {
        self.tell(AgentCommand::Stop {});
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "novad does not stop");
            std::thread::sleep(Duration::from_millis(10));
        };
        let log = fs::read_to_string(self.folder().join("novad.log")).unwrap();
        assert!(status.success(), "{status}: {log}");
        self.folder.take().expect("there until it is stopped")
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder().join("novad.log")).unwrap()
    }

    /// Ends it by SIGTERM, in order; answers its log.
    pub(crate) fn terminate(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        let log = self.log();
        assert!(status.success(), "{status}: {log}");
        log
    }

    /// A file of its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn folder(&self) -> &Path {
        self.folder.as_ref().expect("there until it is stopped").path()
    }
}

impl Drop for Novad {
    fn drop(&mut self) {
        // It may have ended by itself; the test has said so then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
