//! A lane whose bytes are sealed.

mod receiver;
mod sender;

use core::cell::{Cell, RefCell};
use core::fmt;

use nova_buf::{DmaBuf, Pool, SharedBuf};
use nova_device::{Lane, LaneError, check_room};

use crate::handshake::Shaken;
use crate::record::{Forged, RecordKey};
use crate::secrets::Schedule;
use crate::sums::Summer;
use crate::wide::WideStages;
use crate::{PeerName, TlsError, TlsOptions};

use receiver::Receiver;
use sender::Sender;

/// A lane under TLS 1.3. To whoever uses it, it is a [`Lane`] like the one below.
pub struct TlsLane<L> {
    lane: L,
    peer: PeerName,
    shared: Shared,
    /// Not here while a send is under way, or when one was dropped half way or failed.
    sender: Cell<Option<Box<Sender>>>,
    /// The same of a receive.
    receiver: Cell<Option<Box<Receiver>>>,
}

/// What both directions use.
struct Shared {
    schedule: RefCell<Schedule>,
    /// The peer asked for another key; it is told of one before it gets more data.
    update_owed: Cell<bool>,
    records_per_key: u64,
    memory: Pool,
    wide: WideStages,
}

impl Shared {
    fn next_to_send(&self) -> Result<RecordKey, LaneError> {
        keyed(&self.schedule.borrow_mut().next_to_send())
    }

    fn next_to_receive(&self) -> Result<RecordKey, LaneError> {
        keyed(&self.schedule.borrow_mut().next_to_receive())
    }
}

fn keyed(
    secrets: &Result<(u64, rustls::ConnectionTrafficSecrets), rustls::Error>,
) -> Result<RecordKey, LaneError> {
    secrets.as_ref().ok().and_then(RecordKey::new).ok_or(LaneError::Forged)
}

impl From<Forged> for LaneError {
    fn from(_: Forged) -> Self {
        Self::Forged
    }
}

impl<L: Lane> TlsLane<L> {
    pub(crate) fn new(
        lane: L,
        shaken: Shaken,
        options: TlsOptions,
        memory: Pool,
        wide: WideStages,
    ) -> Result<Self, TlsError> {
        let Shaken { peer, secrets, schedule, early, rest } = shaken;
        let unknown =
            || TlsError::Refused(rustls::Error::General("a cipher suite without records here".to_owned()));
        let send = RecordKey::new(&secrets.tx).ok_or_else(unknown)?;
        let receive = RecordKey::new(&secrets.rx).ok_or_else(unknown)?;
        let receiver = Receiver::new(receive, &memory, &early, &rest)
            .map_err(|_| TlsError::Busy("no memory for another TLS connection"))?;
        Ok(Self {
            lane,
            peer,
            shared: Shared {
                schedule: RefCell::new(schedule),
                update_owed: Cell::new(false),
                records_per_key: options.records_per_key.max(1),
                memory,
                wide,
            },
            sender: Cell::new(Some(Box::new(Sender::new(send)))),
            receiver: Cell::new(Some(Box::new(receiver))),
        })
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
        let mut sender = self.sender.take().ok_or(LaneError::Poisoned)?;
        sender.send(&self.lane, &self.shared, head, body).await?;
        self.sender.set(Some(sender));
        Ok(())
    }

    async fn recv_behind(
        &self,
        mut into: DmaBuf,
        filled: usize,
        min: usize,
    ) -> (Result<usize, LaneError>, DmaBuf) {
        check_room(&into, filled, min);
        let Some(mut receiver) = self.receiver.take() else { return (Err(LaneError::Poisoned), into) };
        // Only who takes all of a buffer knows its pages.
        let mut summer = if filled == 0 && min == into.len() { Summer::of(min) } else { None };
        let room = &mut into[filled..];
        let result = receiver.receive(&self.lane, &self.shared, room, min, summer.as_mut()).await;
        if result.is_ok() || result == Err(LaneError::Closed) {
            self.receiver.set(Some(receiver));
        }
        if let (Ok(_), Some(summer)) = (result, summer) {
            into.set_page_sums(summer.finish());
        }
        (result, into)
    }

    async fn shutdown(&self) -> Result<(), LaneError> {
        if let Some(mut sender) = self.sender.take() {
            // The peer may have gone first; then nobody waits for it.
            let _ = sender.close(&self.lane).await;
        }
        self.lane.shutdown().await
    }
}

impl<L> fmt::Debug for TlsLane<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsLane").field("peer", &self.peer).finish_non_exhaustive()
    }
}
