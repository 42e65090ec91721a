//! A client that turns its doorbells against the service: no call of the service waits for it.
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use nova_ring::abi::{Answer, ClientCommand, Status};
use nova_ring::handshake::{Credentials, Hello};
use nova_ring::{Acceptor, Admission, Kind, Link, PushError, Terms, attach};
use rustix::fs::OFlags;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// More rings than any socket or counter holds.
const RINGS: u32 = 20_000;
/// A service that waits for its client is found out after this.
const PATIENCE: Duration = Duration::from_secs(10);

struct Door(Mutex<mpsc::Sender<Link>>);

impl Admission for Door {
    fn admit(&self, _: &Hello, _: Credentials) -> Result<Terms, String> {
        Ok(Terms { capacity: 16, area_bytes: 4096, boot: 1, generation: 1 })
    }
    fn attached(&self, _: Hello, _: Credentials, link: Link) {
        self.0.lock().unwrap().send(link).unwrap();
    }
}

/// A door, and a way to attach through it.
struct Service {
    door: Acceptor,
    attached: mpsc::Receiver<Link>,
    _folder: tempfile::TempDir,
}

impl Service {
    fn listen() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (send, attached) = mpsc::channel();
        let door = Door(Mutex::new(send));
        let door = Acceptor::listen(&folder.path().join("ring.sock"), 0o600, Arc::new(door)).unwrap();
        Self { door, attached, _folder: folder }
    }

    /// The service's half and the client's.
    fn attach(&self) -> (Link, Link) {
        let client = attach(self.door.path(), &Hello::new(Kind::Client, [0; 16], 0, 1)).unwrap();
        (self.attached.recv_timeout(PATIENCE).unwrap(), client)
    }
}

/// Every eventfd of this process, by number.
fn eventfds() -> BTreeSet<i32> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let number = |path: &Path| path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    open.filter(|path| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("eventfd")))
        .map(|path| number(&path))
        .collect()
}

/// Makes every plain read or write of the doorbells that came after `before` wait: the flag belongs to whoever holds
/// them. Gives a descriptor of one.
fn spoil(before: &BTreeSet<i32>) -> OwnedFd {
    let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let mut last = None;
    for number in eventfds().difference(before) {
        // A second descriptor of the same file, without unsafe.
        let bell = pidfd_getfd(&own, *number, PidfdGetfdFlags::empty()).unwrap();
        let flags = rustix::fs::fcntl_getfl(&bell).unwrap();
        rustix::fs::fcntl_setfl(&bell, flags.difference(OFlags::NONBLOCK)).unwrap();
        last = Some(bell);
    }
    last.expect("an attachment has a doorbell")
}

/// Runs `work` on a thread of its own; fails when it does not end.
fn ends<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, heard) = mpsc::channel();
    std::thread::spawn(move || done.send(work()).unwrap());
    heard.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what} waits for the client"))
}

#[test]
fn a_service_drains_a_doorbell_whose_client_made_it_blocking() {
    let service = Service::listen();
    let before = eventfds();
    let (ours, theirs) = service.attach();
    let bell = spoil(&before);
    let ours = ends("a drain of a silent doorbell", move || {
        ours.receiver.drain_doorbell();
        ours
    });
    // Full: another write would wait.
    rustix::io::write(&bell, &(u64::MAX - 1).to_le_bytes()).unwrap();
    ends("a drain of a full doorbell", move || {
        let mut ours = ours;
        for _ in 0..3 {
            ours.receiver.drain_doorbell();
            ours.receiver.wait(Duration::ZERO).unwrap();
        }
    });
    drop(theirs);
}

#[test]
fn a_service_rings_a_client_that_never_listens() {
    let service = Service::listen();
    let before = eventfds();
    let (ours, mut theirs) = service.attach();
    let bell = spoil(&before);
    rustix::io::write(&bell, &(u64::MAX - 1).to_le_bytes()).unwrap();
    let (asleep, rung) = (mpsc::sync_channel(0), mpsc::sync_channel(0));
    let ringing = std::thread::spawn(move || {
        for () in asleep.1 {
            ours.sender.ring();
            rung.0.send(()).unwrap();
        }
    });
    for ring in 0..RINGS {
        assert!(theirs.receiver.prepare_sleep().unwrap(), "nothing was sent");
        asleep.0.send(()).unwrap();
        rung.1.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("ring {ring} waits for the client"));
    }
    drop(asleep.0);
    ringing.join().unwrap();
    // The rings that found room are there, and one more wakes after they were taken.
    assert!(!theirs.socket.is_gone());
    theirs.receiver.wait(Duration::ZERO).unwrap();
}

#[test]
fn a_service_goes_on_serving_others_beside_a_hostile_client() {
    let service = Service::listen();
    let before = eventfds();
    let (first, mut hostile) = service.attach();
    let bell = spoil(&before);
    let (second, mut honest) = service.attach();
    let serving = std::thread::spawn(move || {
        let mut links = [first, second];
        while !links[1].socket.is_gone() {
            for link in &mut links {
                while let Some(slot) = link.receiver.pop().unwrap() {
                    let request = ClientCommand::decode(&slot).unwrap().request();
                    match link.sender.push(Answer::new(request, Status::Ok).encode()) {
                        // Who takes no answers gets none.
                        Ok(()) | Err(PushError::Full(_)) => {}
                        Err(PushError::Broken(broken)) => panic!("{broken}"),
                    }
                }
                link.sender.ring();
                link.receiver.drain_doorbell();
                link.receiver.wait(Duration::from_millis(1)).unwrap();
            }
        }
    });
    rustix::io::write(&bell, &(u64::MAX - 1).to_le_bytes()).unwrap();
    for request in 0..200 {
        // As many commands as fit, answers never taken, always said to be asleep.
        for _ in 0..16 {
            let _ = hostile
                .sender
                .push(ClientCommand::OpenWriter { request, key_domain: 0, key_version: 0 }.encode());
        }
        let _ = hostile.receiver.prepare_sleep();

        honest
            .sender
            .push(ClientCommand::OpenWriter { request, key_domain: 0, key_version: 0 }.encode())
            .unwrap();
        honest.sender.ring();
        let asked = Instant::now();
        let answer = loop {
            if let Some(slot) = honest.receiver.pop().unwrap() {
                break slot;
            }
            assert!(asked.elapsed() < PATIENCE, "request {request} was never answered");
            honest.receiver.wait(Duration::from_millis(10)).unwrap();
        };
        assert_eq!(Answer::decode(&answer), Ok(Answer::new(request, Status::Ok)));
    }
    drop(honest);
    serving.join().unwrap();
}
