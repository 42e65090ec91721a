//! Records sealed and opened here (docs/adr/0026): out of place, a pass over the bytes in each direction.

mod receiver;
mod sender;

use core::cell::{Cell, RefCell};
use std::rc::Rc;

use nova_buf::SharedBuf;
use nova_device::{Lane, LaneError};

use crate::TlsError;
use crate::counters::Tally;
use crate::end::End;
use crate::memory::Memory;
use crate::record::{Forged, RecordKey};
use crate::secrets::Schedule;
use crate::sums::Summer;

use super::Records;
use receiver::Receiver;
use sender::Sender;

pub(super) struct Here {
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
    memory: Memory,
    tally: Rc<Tally>,
}

impl Shared {
    fn next_to_send(&self) -> Result<RecordKey, LaneError> {
        keyed(&self.schedule.borrow_mut().next_to_send())
    }

    fn next_to_receive(&self) -> Result<RecordKey, LaneError> {
        keyed(&self.schedule.borrow_mut().next_to_receive())
    }

    /// Counts bytes that were copied beside sealing and opening.
    fn copied(&self, bytes: usize) {
        self.tally.count(|tally| tally.bytes_copied += bytes as u64);
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

impl Here {
    /// Takes the keys over from rustls, with what came behind the handshake: opened bytes, then sealed ones.
    pub(super) fn new(
        end: End,
        early: &[u8],
        rest: &[u8],
        records_per_key: u64,
        memory: Memory,
        tally: Rc<Tally>,
    ) -> Result<Self, TlsError> {
        let (secrets, schedule) = end.into_keys()?;
        let unknown =
            || TlsError::Refused(rustls::Error::General("a cipher suite without records here".to_owned()));
        let send = RecordKey::new(&secrets.tx).ok_or_else(unknown)?;
        let receive = RecordKey::new(&secrets.rx).ok_or_else(unknown)?;
        let receiver = Receiver::new(receive, &memory.pool, early, rest)
            .map_err(|_| TlsError::Busy("no memory for another TLS connection"))?;
        Ok(Self {
            shared: Shared {
                schedule: RefCell::new(schedule),
                update_owed: Cell::new(false),
                records_per_key: records_per_key.max(1),
                memory,
                tally,
            },
            sender: Cell::new(Some(Box::new(Sender::new(send)))),
            receiver: Cell::new(Some(Box::new(receiver))),
        })
    }
}

impl Records for Here {
    async fn send(&self, lane: &impl Lane, head: &[u8], body: Option<SharedBuf>) -> Result<(), LaneError> {
        let mut sender = self.sender.take().ok_or(LaneError::Poisoned)?;
        sender.send(lane, &self.shared, head, body).await?;
        self.sender.set(Some(sender));
        Ok(())
    }

    async fn receive(
        &self,
        lane: &impl Lane,
        into: &mut [u8],
        min: usize,
        summer: Option<&mut Summer>,
    ) -> Result<usize, LaneError> {
        let mut receiver = self.receiver.take().ok_or(LaneError::Poisoned)?;
        let result = receiver.receive(lane, &self.shared, into, min, summer).await;
        if result.is_ok() || result == Err(LaneError::Closed) {
            self.receiver.set(Some(receiver));
        }
        result
    }

    async fn close(&self, lane: &impl Lane) -> Result<(), LaneError> {
        let mut sender = self.sender.take().ok_or(LaneError::Poisoned)?;
        sender.close(lane).await
    }
}
