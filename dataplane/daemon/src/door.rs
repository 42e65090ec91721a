//! The Unix socket of novad: who may attach, and how an attachment reaches its shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use nova_ring::handshake::{Credentials, Hello};
use nova_ring::{Admission, CAPACITY_DEFAULT, Kind, Link, SNAPSHOT_BYTES, Terms};

use crate::switchboard::{FRONT, Post, Switchboard};
use crate::tickets::Tickets;

/// Programs attached at once (design: control 4.2).
pub(crate) const PROGRAMS_MAX: usize = 128;
/// Largest arena of one program.
pub(crate) const ARENA_BYTES_MAX: u64 = 64 << 20;

/// Who may attach. Shared between the threads that let them in and the shards.
#[derive(Debug)]
pub(crate) struct Door {
    boot: u64,
    switchboard: Arc<Switchboard>,
    generation: AtomicU64,
    pub(crate) programs: AtomicUsize,
    pub(crate) tickets: Tickets,
}

impl Door {
    pub(crate) fn new(boot: u64, switchboard: Arc<Switchboard>) -> Arc<Self> {
        let (generation, programs, tickets) = (AtomicU64::new(0), AtomicUsize::new(0), Tickets::default());
        Arc::new(Self { boot, switchboard, generation, programs, tickets })
    }

    /// A program left the shard that was its home.
    pub(crate) fn program_left(&self, shard: usize) {
        self.switchboard.seats.give_back(shard);
        self.programs.fetch_sub(1, Ordering::AcqRel);
    }

    /// A program has its rings: it goes to its home shard. Where there is none any more, its link ends here, and it sees
    /// that.
    fn seat(&self, link: Link) {
        let Some(shard) = self.switchboard.seats.take() else {
            self.programs.fetch_sub(1, Ordering::AcqRel);
            return;
        };
        if self.switchboard.mailbox(shard).post(Post::Program(link)).is_err() {
            tracing::error!(shard, "a shard does not take what is left for it: a program is let go");
            self.program_left(shard);
        }
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
                if !self.switchboard.seats.are_open() {
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
        match hello.kind {
            Kind::Agent => {
                if self.switchboard.mailbox(FRONT).post(Post::Agent(link)).is_err() {
                    tracing::error!("the first shard does not take what is left for it: the agent is let go");
                }
            }
            _ => self.seat(link),
        }
    }
}
