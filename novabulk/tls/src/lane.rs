//! A lane whose bytes are sealed.

mod by_rustls;
mod here;

use core::fmt;
use std::rc::Rc;

use nova_buf::{DmaBuf, SharedBuf};
use nova_device::{Lane, LaneError, check_room};

use crate::counters::Tally;
use crate::handshake::Shaken;
use crate::memory::Memory;
use crate::sums::Summer;
use crate::{PeerName, SealedBy, TlsError, TlsOptions};

use by_rustls::ByRustls;
use here::Here;

/// `ENOMEM`.
const NO_MEMORY: i32 = 12;
/// `ECONNRESET`: the stream has ended, and the peer has not said so.
const TRUNCATED: i32 = 104;

/// What seals what leaves and opens what comes, once traffic keys stand. Either implementation understands the other one.
trait Records {
    /// Seals `head`, then `body`, and sends them over `lane`.
    async fn send(&self, lane: &impl Lane, head: &[u8], body: Option<SharedBuf>) -> Result<(), LaneError>;

    /// Receives over `lane` at least `min` bytes into the front of `into`, and what else is here and fits; shows them to
    /// `summer`.
    async fn receive(
        &self,
        lane: &impl Lane,
        into: &mut [u8],
        min: usize,
        summer: Option<&mut Summer>,
    ) -> Result<usize, LaneError>;

    /// Says over `lane` that nothing more comes.
    async fn close(&self, lane: &impl Lane) -> Result<(), LaneError>;
}

/// A lane under TLS 1.3. To whoever uses it, it is a [`Lane`] like the one below.
pub struct TlsLane<L> {
    lane: L,
    peer: PeerName,
    records: Kind,
}

enum Kind {
    Here(Box<Here>),
    Rustls(Box<ByRustls>),
}

impl<L: Lane> TlsLane<L> {
    pub(crate) fn new(
        lane: L,
        shaken: Shaken,
        options: TlsOptions,
        memory: Memory,
        tally: Rc<Tally>,
    ) -> Result<Self, TlsError> {
        let Shaken { peer, end, early, rest } = shaken;
        let records = match options.sealed_by {
            SealedBy::Here => {
                Kind::Here(Box::new(Here::new(end, &early, &rest, options.records_per_key, memory, tally)?))
            }
            SealedBy::Rustls => Kind::Rustls(Box::new(ByRustls::new(end, early, rest, memory, tally))),
        };
        Ok(Self { lane, peer, records })
    }

    /// The lane below, whose bytes are sealed. Whoever sends over it breaks this one.
    pub fn below(&self) -> &L {
        &self.lane
    }

    /// Who the peer is, by its certificate.
    pub fn peer(&self) -> &PeerName {
        &self.peer
    }
}

impl<L: Lane> Lane for TlsLane<L> {
    async fn send(&self, head: &[u8], body: Option<SharedBuf>) -> Result<(), LaneError> {
        match &self.records {
            Kind::Here(records) => records.send(&self.lane, head, body).await,
            Kind::Rustls(records) => records.send(&self.lane, head, body).await,
        }
    }

    async fn recv_behind(
        &self,
        mut into: DmaBuf,
        filled: usize,
        min: usize,
    ) -> (Result<usize, LaneError>, DmaBuf) {
        check_room(&into, filled, min);
        // Only who takes all of a buffer knows its pages.
        let mut summer = if filled == 0 && min == into.len() { Summer::of(min) } else { None };
        let room = &mut into[filled..];
        let result = match &self.records {
            Kind::Here(records) => records.receive(&self.lane, room, min, summer.as_mut()).await,
            Kind::Rustls(records) => records.receive(&self.lane, room, min, summer.as_mut()).await,
        };
        if let (Ok(_), Some(summer)) = (result, summer) {
            into.set_page_sums(summer.finish());
        }
        (result, into)
    }

    async fn shutdown(&self) -> Result<(), LaneError> {
        // The peer may have gone first, or a send was given up; then nobody waits for the end.
        let _ = match &self.records {
            Kind::Here(records) => records.close(&self.lane).await,
            Kind::Rustls(records) => records.close(&self.lane).await,
        };
        self.lane.shutdown().await
    }
}

impl<L> fmt::Debug for TlsLane<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsLane").field("peer", &self.peer).finish_non_exhaustive()
    }
}
