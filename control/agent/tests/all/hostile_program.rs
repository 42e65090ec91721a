//! A program that turns its ring against the agent: the others go on being served.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nova_ring::abi::{MetadataReply, MetadataRequest, Status};
use nova_ring::handshake::Hello;
use nova_ring::{Kind, LOOK_AGAIN, Link, attach};
use nova_security::{Authority, Identity, Role, Zone};
use rustix::fs::OFlags;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// Whatever the agent does takes less than this.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long an honest program is served beside the other one: so that its ring is looked at a few times unasked.
const BESIDE: Duration = Duration::from_millis(500);
/// Slots of each ring, and requests or waiting replies that the agent keeps for one program.
const RING_SLOTS: usize = 256;
const KEPT_MAX: usize = 64;

/// An agent whose novad and controllers are away.
struct Agent {
    child: Child,
    folder: tempfile::TempDir,
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let identity = Identity::new("test", Zone::Data, Role::Agent, "h1").unwrap();
        let authority = Authority::create(&path("ca"), "test").unwrap();
        authority.issue(&path("tls"), "agent", &identity, &[]).unwrap();
        let config = format!(
            "name = \"h1\"\nroles = [\"compute\"]\ndata_addr = \"127.0.0.1:1\"\nnovad_socket = {:?}\n\
             socket = {:?}\ncontrollers = [\"127.0.0.1:1\"]\n[tls]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n",
            path("novad.sock"),
            path("agent.sock"),
            path("tls/ca.pem"),
            path("tls/agent.pem"),
            path("tls/agent.key")
        );
        fs::write(path("agent.toml"), config).unwrap();
        let log = fs::File::create(path("agent.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_nova-agent"))
            .arg("--config")
            .arg(path("agent.toml"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    /// Attaches a program.
    fn program(&mut self) -> Link {
        let began = Instant::now();
        loop {
            match attach(
                &self.folder.path().join("agent.sock"),
                &Hello::new(Kind::Metadata, [0; 16], 1 << 16, 0),
            ) {
                Ok(link) => return link,
                Err(error) => {
                    let log = || fs::read_to_string(self.folder.path().join("agent.log")).unwrap();
                    assert!(self.child.try_wait().unwrap().is_none(), "the agent ended: {}", log());
                    assert!(began.elapsed() < PATIENCE, "{error}: {}", log());
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself; the test has said so then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every eventfd of this process, by number.
fn eventfds() -> BTreeSet<i32> {
    let open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    open.filter(|path| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("eventfd")))
        .map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap())
        .collect()
}

/// Fills the doorbells that came after `before`, and makes every plain call on them wait.
fn spoil_doorbells(before: &BTreeSet<i32>) {
    let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let after = eventfds();
    assert!(after.len() > before.len(), "an attachment has a doorbell");
    for number in after.difference(before) {
        // A second descriptor of the same file, without unsafe.
        let bell = pidfd_getfd(&own, *number, PidfdGetfdFlags::empty()).unwrap();
        let flags = rustix::fs::fcntl_getfl(&bell).unwrap();
        rustix::io::write(&bell, &(u64::MAX - 1).to_le_bytes()).unwrap();
        rustix::fs::fcntl_setfl(&bell, flags.difference(OFlags::NONBLOCK)).unwrap();
    }
}

/// A request that is answered at once: there is no data plane to be let into.
fn request(number: u64) -> MetadataRequest {
    MetadataRequest::OpenData { request: number, reply_offset: 0, reply_bytes_max: 4096 }
}

fn ask(program: &mut Link, number: u64) {
    program.sender.push(request(number).encode()).unwrap();
    program.sender.ring();
    let asked = Instant::now();
    let slot = loop {
        if let Some(slot) = program.receiver.pop().unwrap() {
            break slot;
        }
        assert!(asked.elapsed() < PATIENCE, "request {number} was not answered");
        program.receiver.wait(LOOK_AGAIN).unwrap();
    };
    let expected = MetadataReply::Reply { request: number, status: Status::Unavailable, bytes: 0 };
    assert_eq!(MetadataReply::decode(&slot), Ok(expected));
}

#[test]
fn a_hostile_program_neither_stops_the_agent_nor_takes_its_memory() {
    let mut agent = Agent::start();
    drop(agent.program());
    let before = eventfds();
    let mut hostile = agent.program();
    ask(&mut hostile, 0);
    spoil_doorbells(&before);
    let mut honest = agent.program();
    let mut pushed = 0;
    let began = Instant::now();
    for number in (0..).take_while(|_| began.elapsed() < BESIDE) {
        // As many requests as there is room for, replies never taken, always said to be asleep.
        while hostile.sender.push(request(number).encode()).is_ok() {
            pushed += 1;
        }
        let _ = hostile.receiver.prepare_sleep();
        ask(&mut honest, number);
    }
    assert!(pushed > RING_SLOTS, "its ring was never looked at");
    assert!(pushed <= 2 * RING_SLOTS + KEPT_MAX, "{pushed} requests of a program that takes no reply");
}
