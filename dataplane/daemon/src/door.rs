//! The Unix socket of novad: who may attach, and how an attachment reaches the shard.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nova_ring::handshake::{Credentials, Hello};
use nova_ring::{Admission, CAPACITY_DEFAULT, Kind, Link, SNAPSHOT_BYTES, Terms};

use crate::tickets::Tickets;

/// Programs attached at once (design: control 4.2).
pub(crate) const PROGRAMS_MAX: usize = 128;
/// Largest arena of one program.
pub(crate) const ARENA_BYTES_MAX: u64 = 64 << 20;

/// An attachment on its way to the shard.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// The host's agent.
    Agent(Link),
    /// A local program.
    Program(Link),
}

/// The door's side that the shard sees: arrivals, and an eventfd that says there are some.
#[derive(Debug)]
pub(crate) struct Door {
    boot: u64,
    /// True once this host can serve programs.
    open: AtomicBool,
    generation: AtomicU64,
    pub(crate) programs: AtomicUsize,
    pub(crate) tickets: Tickets,
    arrivals: Mutex<VecDeque<Arrival>>,
    stop: AtomicBool,
    bell: OwnedFd,
}

impl Door {
    pub(crate) fn new(boot: u64) -> std::io::Result<Arc<Self>> {
        use rustix::event::{EventfdFlags, eventfd};
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Arc::new(Self {
            boot,
            open: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            programs: AtomicUsize::new(0),
            tickets: Tickets::default(),
            arrivals: Mutex::default(),
            stop: AtomicBool::new(false),
            bell,
        }))
    }

    /// Lets programs in from now on, or no more.
    pub(crate) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
    }

    /// Asks the shard to stop.
    pub(crate) fn ask_stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.ring_bell();
    }

    /// Whether somebody asked.
    pub(crate) fn stop_asked(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn ring_bell(&self) {
        // The counter of an eventfd holds 2^64 - 2 rings before a write would fail.
        let _ = rustix::io::write(&self.bell, &1u64.to_le_bytes());
    }

    /// The next arrival, if there is one.
    pub(crate) fn next(&self) -> Option<Arrival> {
        self.arrivals.lock().expect("no holder of this lock panics").pop_front()
    }

    /// Readable while an arrival may be waiting.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Makes the bell silent until the next arrival. Look for arrivals after this, not before.
    pub(crate) fn silence_bell(&self) {
        // Nothing to read means it was silent already.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }
}

impl Admission for Door {
    fn admit(&self, hello: &Hello, peer: Credentials) -> Result<Terms, String> {
        let area_bytes = match hello.kind {
            Kind::Agent => {
                // The agent runs as root or as the user that runs novad; nobody else speaks for this host.
                if peer.uid != 0 && peer.uid != rustix::process::geteuid().as_raw() {
                    return Err(format!("uid {} is not the agent of this host", peer.uid));
                }
                2 * u64::from(SNAPSHOT_BYTES)
            }
            Kind::Client => {
                if !self.open.load(Ordering::Acquire) {
                    return Err("this host cannot serve programs yet: try again in a moment".into());
                }
                self.tickets.redeem(&hello.ticket, peer.uid, Instant::now()).map_err(str::to_owned)?;
                if hello.area_bytes > ARENA_BYTES_MAX {
                    return Err(format!(
                        "an arena of {} bytes is over the limit of {ARENA_BYTES_MAX}",
                        hello.area_bytes
                    ));
                }
                if self.programs.fetch_add(1, Ordering::AcqRel) >= PROGRAMS_MAX {
                    self.programs.fetch_sub(1, Ordering::AcqRel);
                    return Err(format!("{PROGRAMS_MAX} programs are attached to this host, its limit"));
                }
                hello.area_bytes
            }
            Kind::Metadata => return Err("metadata is the agent's: attach to the agent's socket".into()),
        };
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Terms { capacity: CAPACITY_DEFAULT, area_bytes, boot: self.boot, generation })
    }

    fn attached(&self, hello: Hello, _: Credentials, link: Link) {
        let arrival = match hello.kind {
            Kind::Agent => Arrival::Agent(link),
            _ => Arrival::Program(link),
        };
        self.arrivals.lock().expect("no holder of this lock panics").push_back(arrival);
        self.ring_bell();
    }
}
