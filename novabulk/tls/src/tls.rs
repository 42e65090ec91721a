//! TLS of one shard.

use core::cell::{Cell, RefCell};
use core::fmt;
use std::rc::Rc;

use nova_buf::Pool;
use nova_device::sync::timeout_at;
use nova_device::{Clock, Lane};

use crate::handshake::Shaken;
use crate::wide::WideStages;
use crate::{HANDSHAKE_TIMEOUT, RECORDS_PER_KEY, TlsConfig, TlsError, TlsLane, handshake};

/// Handshakes under way at once in one direction of a shard: each takes a millisecond of processor.
pub const HANDSHAKES_MAX: usize = 64;

/// How connections behave.
#[derive(Clone, Copy, Debug)]
pub struct TlsOptions {
    /// Records that one key seals: [`RECORDS_PER_KEY`], less in tests.
    pub records_per_key: u64,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self { records_per_key: RECORDS_PER_KEY }
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
    memory: Pool,
    wide: WideStages,
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
        let wide = WideStages::of(&memory);
        let inner =
            Inner { config: RefCell::new(config), options, memory, wide, accepting: Cell::new(0) };
        Self { inner: Rc::new(inner) }
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
        let shaking = handshake::connect(&lane, &config, &self.inner.memory);
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
        let shaking = handshake::accept(&lane, &config, &self.inner.memory);
        let shaken = timeout_at(clock, clock.now() + HANDSHAKE_TIMEOUT, shaking)
            .await
            .map_err(|_| TlsError::TimedOut)??;
        self.inner.secured(lane, shaken)
    }
}

impl Inner {
    fn secured<L: Lane>(&self, lane: L, shaken: Shaken) -> Result<TlsLane<L>, TlsError> {
        TlsLane::new(lane, shaken, self.options, self.memory.clone(), self.wide.clone())
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
