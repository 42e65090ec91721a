//! A slot there and back over shared memory, both sides parked between slots as on a shared machine.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nova_ring::abi::{SLOT_BYTES, Slot};
use nova_ring::handshake::{Credentials, Hello};
use nova_ring::{Acceptor, Admission, CAPACITY_DEFAULT, Kind, LOOK_AGAIN, Link, Terms, attach};

use crate::report::Report;

const ARENA_BYTES: u64 = 1 << 20;

/// Lets everyone in, and hands the attachment to the thread that echoes.
struct Door(Mutex<mpsc::Sender<Link>>);

impl Admission for Door {
    fn admit(&self, hello: &Hello, _: Credentials) -> Result<Terms, String> {
        Ok(Terms { capacity: CAPACITY_DEFAULT, area_bytes: hello.area_bytes, boot: 1, generation: 1 })
    }

    fn attached(&self, _: Hello, _: Credentials, link: Link) {
        // The bench that wanted it may have given up.
        let _ = self.0.lock().expect("no holder of this lock panics").send(link);
    }
}

pub(crate) fn run(report: &mut Report, slice: Duration) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("nova-micro-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("make a folder for the socket")?;
    let (sender, attached) = mpsc::channel();
    let acceptor = Acceptor::listen(&folder.join("ring"), 0o600, Arc::new(Door(Mutex::new(sender))))?;
    let mut near = attach(acceptor.path(), &Hello::new(Kind::Client, [0; 16], ARENA_BYTES, 0))?;
    let mut far = attached.recv_timeout(Duration::from_secs(2)).context("the other half of the ring")?;
    let echo = std::thread::spawn(move || {
        while !far.socket.is_gone() {
            match far.receiver.pop() {
                Ok(Some(slot)) if far.sender.push(slot).is_ok() => far.sender.ring(),
                Ok(None) if far.receiver.wait(LOOK_AGAIN).is_ok() => {}
                _ => return,
            }
        }
    });
    let until = Instant::now() + slice;
    while Instant::now() < until {
        let begun = Instant::now();
        near.sender.push(Slot([1; SLOT_BYTES])).map_err(|error| anyhow::anyhow!("send a slot: {error:?}"))?;
        near.sender.ring();
        while near.receiver.pop()?.is_none() {
            near.receiver.wait(LOOK_AGAIN)?;
        }
        report.note(
            "ring round trip, parked",
            0,
            "14 us on a quiet machine (0.6 us spinning)",
            begun.elapsed(),
        );
    }
    near.socket.end();
    echo.join().map_err(|_| anyhow::anyhow!("the echoing thread panicked"))?;
    drop(acceptor);
    std::fs::remove_dir_all(&folder).context("remove the folder of the socket")
}
