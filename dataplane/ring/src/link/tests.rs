use std::sync::{Arc, Mutex, mpsc};

use super::{Link, attach};
use crate::abi::{Answer, ClientCommand, SLOT_BYTES, Slot, Status};
use crate::accept::{Acceptor, Admission};
use crate::handshake::{Credentials, Hello};
use crate::layout::{Kind, Layout, Terms};

const TERMS: Terms = Terms { capacity: 8, area_bytes: 64 << 10, boot: 7, generation: 1 };

struct Door(Mutex<mpsc::Sender<Link>>);

impl Admission for Door {
    fn admit(&self, hello: &Hello, _: Credentials) -> Result<Terms, String> {
        if hello.ticket == [9; 16] { Err("this ticket was used up".into()) } else { Ok(TERMS) }
    }
    fn attached(&self, _: Hello, _: Credentials, link: Link) {
        self.0.lock().unwrap().send(link).unwrap();
    }
}

fn pair() -> (Link, Link) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring.sock");
    let (send, receive) = mpsc::channel();
    let _door = Acceptor::listen(&path, 0o600, Arc::new(Door(Mutex::new(send)))).unwrap();
    let client = attach(&path, &Hello::new(Kind::Client, [0; 16], 0, 1)).unwrap();
    (receive.recv().unwrap(), client)
}

#[test]
fn slots_cross_in_both_directions_and_in_order() {
    let (mut service, mut client) = pair();
    for round in 0..100u64 {
        for request in 0..8 {
            client
                .sender
                .push(
                    ClientCommand::OpenWriter { request: round * 8 + request, key_domain: 0, key_version: 0 }
                        .encode(),
                )
                .unwrap();
        }
        assert!(client.sender.push(Slot([0; SLOT_BYTES])).is_err(), "eight slots hold eight");
        for request in 0..8 {
            let slot = service.receiver.pop().unwrap().unwrap();
            assert_eq!(
                ClientCommand::decode(&slot),
                Ok(ClientCommand::OpenWriter { request: round * 8 + request, key_domain: 0, key_version: 0 })
            );
            service.sender.push(Answer::new(request, Status::Full).encode()).unwrap();
        }
        assert_eq!(service.receiver.pop().unwrap(), None);
        for request in 0..8 {
            let slot = client.receiver.pop().unwrap().unwrap();
            assert_eq!(Answer::decode(&slot), Ok(Answer::new(request, Status::Full)));
        }
    }
}

#[test]
fn the_arena_copies_what_lies_inside_and_refuses_the_rest() {
    let (service, client) = pair();
    client.area.copy_in(65_530, b"orange").unwrap();
    let mut out = [0; 6];
    service.area.copy_out(65_530, &mut out).unwrap();
    assert_eq!(&out, b"orange");
    for (offset, count) in [(65_531, 6), (65_536, 1), (u64::MAX, 1), (u64::MAX - 3, 6), (0, 65_537)] {
        assert!(service.area.copy_out(offset, &mut vec![0; count]).is_err(), "{offset}+{count}");
        assert!(service.area.copy_in(offset, &vec![0; count]).is_err(), "{offset}+{count}");
        assert!(service.area.check(offset, count as u64).is_err(), "{offset}+{count}");
    }
    assert!(service.area.check(65_536, 0).is_ok());
}

#[test]
fn a_punched_hole_reads_as_zeros_and_never_faults() {
    let (service, client) = pair();
    client.area.copy_in(0, &[0xAA; 8192]).unwrap();
    let layout = Layout::new(&TERMS).unwrap();
    let at = client.area.mapping().at(layout.area, 4096);
    // SAFETY: a whole page of the shared mapping made by `attach`; dropping its backing leaves it readable as zeros.
    unsafe { rustix::mm::madvise(at.as_ptr().cast(), 4096, rustix::mm::Advice::LinuxRemove) }.unwrap();
    let mut out = vec![1; 8192];
    service.area.copy_out(0, &mut out).unwrap();
    assert!(out[..4096].iter().all(|&byte| byte == 0));
    assert!(out[4096..].iter().all(|&byte| byte == 0xAA));
}

#[test]
fn the_end_of_the_socket_is_seen_by_the_other_side() {
    let (service, client) = pair();
    assert!(!service.socket.is_gone() && !client.socket.is_gone());
    drop(client);
    assert!(service.socket.is_gone());
}

#[test]
fn a_peer_that_speaks_after_its_hello_is_not_heard_and_not_gone() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring.sock");
    let (send, receive) = mpsc::channel();
    let _door = Acceptor::listen(&path, 0o600, Arc::new(Door(Mutex::new(send)))).unwrap();
    let mut peer = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let hello = Hello::new(Kind::Client, [0; 16], 0, 1).encode();
    peer.write_all(&[&hello[..], &[0xEE; 5000]].concat()).unwrap();
    let (answer, fds) = crate::handshake::read_answer(&peer).unwrap();
    assert_eq!((answer, fds.len()), (crate::handshake::Answer::Welcome(TERMS), 2));
    let service = receive.recv().unwrap();
    assert_eq!(peer.write(b"more").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    let unread = rustix::net::recv(&service.socket, &mut [0; 1], rustix::net::RecvFlags::DONTWAIT);
    assert_eq!(unread.map(|(_, bytes)| bytes), Ok(0), "nothing of it is left to be received");
    assert!(!service.socket.is_gone());
    drop(peer);
    assert!(service.socket.is_gone());
}

#[test]
fn a_sleeping_peer_wakes_when_its_service_is_gone() {
    let (service, mut client) = pair();
    drop(service);
    // Its time-out is far longer than the test: the end of the socket is what wakes it.
    let asked = std::time::Instant::now();
    for _ in 0..1000 {
        client.receiver.wait(crate::LOOK_AGAIN).unwrap();
    }
    assert!(asked.elapsed() < 10 * crate::LOOK_AGAIN && client.socket.is_gone());
}

#[test]
fn a_refusal_arrives_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring.sock");
    let (send, _receive) = mpsc::channel();
    let _door = Acceptor::listen(&path, 0o600, Arc::new(Door(Mutex::new(send)))).unwrap();
    let refused = |hello: Hello| attach(&path, &hello).unwrap_err().to_string();
    let good = Hello::new(Kind::Client, [9; 16], 0, 1);
    assert_eq!(refused(good), "the service refused: this ticket was used up");
    let newer = refused(Hello { abi: 77, ..good });
    assert!(newer.contains("you speak ring ABI 77") && newer.contains("same release"), "{newer}");
    assert!(refused(Hello { layout_hash: 1, ..good }).contains("lays out the ring in another way"));
    drop(_door);
    assert!(attach(&path, &good).unwrap_err().to_string().contains("is the service running"));
}

#[test]
fn a_living_service_is_not_replaced_and_a_dead_ones_socket_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring.sock");
    let door = || Arc::new(Door(Mutex::new(mpsc::channel().0)));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead process leaves its socket behind");
    let first = Acceptor::listen(&path, 0o600, door()).unwrap();
    assert!(Acceptor::listen(&path, 0o600, door()).unwrap_err().to_string().contains("another process"));
    drop(first);
    assert!(!path.exists());
}

#[test]
fn a_door_closes_although_its_socket_file_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring.sock");
    let door = Acceptor::listen(&path, 0o600, Arc::new(Door(Mutex::new(mpsc::channel().0)))).unwrap();
    std::fs::remove_file(&path).unwrap();
    let (closed, heard) = mpsc::channel();
    std::thread::spawn(move || {
        drop(door);
        closed.send(()).unwrap();
    });
    heard.recv_timeout(std::time::Duration::from_secs(5)).expect("the door hangs");
}

/// xorshift64*.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

#[test]
fn random_bytes_in_the_shared_pages_break_the_peer_and_nothing_else() {
    let mut random = Seeded(0x51_0BAD);
    let layout = Layout::new(&TERMS).unwrap();
    let mut broken = 0;
    for _ in 0..40 {
        let (mut service, client) = pair();
        for _ in 0..200 {
            // Header, indices and slots: everything in front of the area, mostly small numbers near the truth.
            let words = layout.area / 8;
            let word = usize::try_from(random.next() % words as u64).unwrap();
            let at = client.area.mapping().at(word * 8, 8).cast::<core::sync::atomic::AtomicU64>();
            let value = if random.next().is_multiple_of(2) { random.next() % 16 } else { random.next() };
            // SAFETY: inside the mapping and aligned; the service reads these words as atomics too.
            unsafe { at.as_ref() }.store(value, core::sync::atomic::Ordering::Relaxed);
            for _ in 0..3 {
                match service.receiver.pop() {
                    Ok(Some(slot)) => {
                        let _ = ClientCommand::decode(&slot);
                    }
                    Ok(None) => {}
                    Err(_) => broken += 1,
                }
            }
            let _ = service.receiver.prepare_sleep();
            let _ = service.sender.push(Answer::new(1, Status::Ok).encode());
            service.sender.ring();
            service.receiver.drain_doorbell();
        }
    }
    assert!(broken > 0, "the lies never reached an index");
}
