//! Two real processes over one ring, and either of them killed in the middle.
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use nova_ring::abi::{Answer, ClientCommand, Status};
use nova_ring::handshake::{Credentials, Hello};
use nova_ring::{Acceptor, Admission, Counter, Kind, Link, Terms, attach};

const SOCKET: &str = "NOVA_RING_TEST_SOCKET";
const PATIENCE: Duration = Duration::from_secs(10);

struct Door(Mutex<mpsc::Sender<(Credentials, Link)>>);

impl Admission for Door {
    fn admit(&self, hello: &Hello, _: Credentials) -> Result<Terms, String> {
        Ok(Terms {
            capacity: 64,
            area_bytes: hello.area_bytes.min(1 << 20),
            boot: u64::from(std::process::id()),
            generation: 1,
        })
    }
    fn attached(&self, _: Hello, peer: Credentials, link: Link) {
        // The test that waited may be over.
        let _ = self.0.lock().unwrap().send((peer, link));
    }
}

fn listen(path: &Path) -> (Acceptor, mpsc::Receiver<(Credentials, Link)>) {
    let (send, receive) = mpsc::channel();
    (Acceptor::listen(path, 0o600, Arc::new(Door(Mutex::new(send)))).unwrap(), receive)
}

/// Answers every command with its own number until the peer is gone; how many there were.
fn serve(link: &mut Link) -> u64 {
    let mut served = 0;
    loop {
        while let Some(slot) = link.receiver.pop().unwrap() {
            let command = ClientCommand::decode(&slot).unwrap();
            link.sender
                .push(Answer::new(command.request(), Status::Ok).encode())
                .expect("as many answers as slots");
            served += 1;
            link.counters.set(Counter::Commits, served);
        }
        link.sender.ring();
        if link.socket.is_gone() {
            return served;
        }
        link.receiver.wait(Duration::from_millis(20)).unwrap();
    }
}

/// Keeps up to 64 requests in flight until `until`; answers must come in order. How many came.
fn drive(link: &mut Link, until: impl Fn(u64) -> bool) -> u64 {
    let (mut sent, mut answered) = (0u64, 0u64);
    let started = Instant::now();
    while !until(answered) && !link.socket.is_gone() {
        while sent - answered < 64 {
            link.sender
                .push(ClientCommand::OpenWriter { request: sent, key_domain: 0, key_version: 0 }.encode())
                .expect("64 slots");
            sent += 1;
        }
        link.sender.ring();
        while let Some(slot) = link.receiver.pop().unwrap() {
            assert_eq!(Answer::decode(&slot), Ok(Answer::new(answered, Status::Ok)));
            answered += 1;
        }
        link.receiver.wait(Duration::from_millis(20)).unwrap();
        assert!(started.elapsed() < PATIENCE, "stuck at {answered} of {sent}");
    }
    answered
}

fn start(test: &str, socket: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(SOCKET, socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

fn hello() -> Hello {
    Hello::new(Kind::Client, [1; 16], 1 << 16, 1)
}

#[test]
#[ignore = "the other process of a test below"]
fn client_process() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let mut link = attach(Path::new(&socket), &hello()).unwrap();
    drive(&mut link, |_| false);
}

#[test]
#[ignore = "the other process of a test below"]
fn service_process() {
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let (_door, attached) = listen(Path::new(&socket));
    while let Ok((_, mut link)) = attached.recv_timeout(PATIENCE) {
        serve(&mut link);
    }
}

#[test]
fn a_killed_client_is_noticed_and_the_next_one_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ring.sock");
    let (_door, attached) = listen(&socket);
    for round in 0..4u64 {
        let mut child = start("all::two_processes::client_process", &socket);
        let (peer, mut link) = attached.recv_timeout(PATIENCE).unwrap();
        assert_eq!(u32::try_from(peer.pid).unwrap(), child.id());
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(40 + 13 * round));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let served = serve(&mut link);
        assert!(served > 64, "only {served} requests before the end");
        killer.join().unwrap();
    }
}

#[test]
fn a_killed_service_is_noticed_and_its_successor_attached() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ring.sock");
    let mut boots = Vec::new();
    for _ in 0..3 {
        let mut child = start("all::two_processes::service_process", &socket);
        let started = Instant::now();
        let mut link = loop {
            match attach(&socket, &hello()) {
                Ok(link) => break link,
                Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(drive(&mut link, |answered| answered >= 1000) >= 1000);
        assert!(link.counters.get(Counter::Commits) >= 1000);
        boots.push(link.terms.boot);
        child.kill().unwrap();
        child.wait().unwrap();
        let answered = drive(&mut link, |_| false);
        assert!(answered <= 64, "answers from the dead: {answered}");
    }
    boots.dedup();
    assert_eq!(boots.len(), 3, "every start is another boot");
}
