//! TLS of one shard.

use core::cell::{Cell, RefCell};
use core::fmt;
use std::rc::Rc;

use nova_buf::Pool;
use nova_device::sync::timeout_at;
use nova_device::{Clock, Lane};

use crate::counters::Tally;
use crate::handshake::Shaken;
use crate::memory::Memory;
use crate::{HANDSHAKE_TIMEOUT, RECORDS_PER_KEY, TlsConfig, TlsCounters, TlsError, TlsLane, handshake};

/// Handshakes under way at once in one direction of a shard: each takes a millisecond of processor.
pub const HANDSHAKES_MAX: usize = 64;

/// How connections behave.
#[derive(Clone, Copy, Debug)]
pub struct TlsOptions {
    /// Records that one key seals: [`RECORDS_PER_KEY`], less in tests. rustls has a limit of its own.
    pub records_per_key: u64,
    /// Who seals and opens records.
    pub sealed_by: SealedBy,
}

/// Who seals and opens records once the handshake has ended. What is on the wire is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SealedBy {
    /// This crate: out of place, a pass over the bytes in each direction.
    #[default]
    Here,
    /// rustls, which copies what it is given and what it gives. The reference: slower, and nothing of it is ours.
    Rustls,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self { records_per_key: RECORDS_PER_KEY, sealed_by: SealedBy::Here }
    }
}

/// Makes secure lanes of plain ones. A clone is another handle; it belongs to one thread.
#[derive(Clone)]
pub struct Tls {
    inner: Rc<Inner>,
}

struct Inner {
    config: RefCell<TlsConfig>,
    options: TlsOptions,
    /// Sealed bytes on their way in and out. Apart from payload: who holds a buffer of it waits for the network only, so
    /// that no connection can wait in a ring with another one's payload.
    memory: Memory,
    tally: Rc<Tally>,
    accepting: Cell<usize>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("config", &self.inner.config.borrow()).finish_non_exhaustive()
    }
}

impl Tls {
    /// TLS with these certificates, whose sealed bytes lie in `memory`.
    #[must_use]
    pub fn new(config: TlsConfig, options: TlsOptions, memory: Pool) -> Self {
        let inner = Inner {
            config: RefCell::new(config),
            options,
            memory: Memory::new(memory),
            tally: Rc::default(),
            accepting: Cell::new(0),
        };
        Self { inner: Rc::new(inner) }
    }

    /// Totals over all lanes that it made.
    #[must_use]
    pub fn counters(&self) -> TlsCounters {
        self.inner.tally.read()
    }

    /// Counts bytes that whoever uses a lane copied to give them to it, or to take them from it.
    pub fn count_copied(&self, bytes: usize) {
        self.inner.tally.count(|tally| tally.bytes_copied += bytes as u64);
    }

    /// Uses other certificates from the next connection on; connections that stand go on.
    pub fn replace(&self, config: TlsConfig) {
        self.inner.config.replace(config);
    }

    /// Secures a lane that this end opened.
    ///
    /// # Errors
    /// See [`TlsError`]. The lane is gone.
    ///
    /// # Cancel safety
    /// Safe: the lane is closed.
    pub async fn connect<L: Lane>(&self, lane: L, clock: &impl Clock) -> Result<TlsLane<L>, TlsError> {
        let config = self.inner.config.borrow().clone();
        let shaking = handshake::connect(&lane, &config, &self.inner.memory.pool);
        let shaken = timeout_at(clock, clock.now() + HANDSHAKE_TIMEOUT, shaking)
            .await
            .map_err(|_| TlsError::TimedOut)??;
        self.inner.secured(lane, shaken)
    }

    /// Secures a lane that another end opened.
    ///
    /// # Errors
    /// See [`TlsError`]; [`TlsError::Busy`] when [`HANDSHAKES_MAX`] are under way. The lane is gone.
    ///
    /// # Cancel safety
    /// Safe: the lane is closed.
    pub async fn accept<L: Lane>(&self, lane: L, clock: &impl Clock) -> Result<TlsLane<L>, TlsError> {
        let _place = Place::take(&self.inner.accepting)?;
        let config = self.inner.config.borrow().clone();
        let shaking = handshake::accept(&lane, &config, &self.inner.memory.pool);
        let shaken = timeout_at(clock, clock.now() + HANDSHAKE_TIMEOUT, shaking)
            .await
            .map_err(|_| TlsError::TimedOut)??;
        self.inner.secured(lane, shaken)
    }
}

impl Inner {
    fn secured<L: Lane>(&self, lane: L, shaken: Shaken) -> Result<TlsLane<L>, TlsError> {
        let tally = Rc::clone(&self.tally);
        TlsLane::new(lane, shaken, self.options, self.memory.clone(), tally)
    }
}

/// One of the handshakes that may be under way.
struct Place<'c>(&'c Cell<usize>);

impl<'c> Place<'c> {
    fn take(taken: &'c Cell<usize>) -> Result<Self, TlsError> {
        if taken.get() >= HANDSHAKES_MAX {
            return Err(TlsError::Busy("64 TLS handshakes are under way on this shard"));
        }
        taken.set(taken.get() + 1);
        Ok(Self(taken))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
