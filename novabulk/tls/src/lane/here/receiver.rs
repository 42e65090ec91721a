//! The way in: sealed bytes are staged, and every record is opened to where its payload belongs.

use core::ops::Range;

use nova_buf::{DmaBuf, Exhausted, Pool};
use nova_device::{Lane, LaneError};

use crate::memory::{Place, WIDE_STAGE_BYTES};
use crate::record::{Content, HEADER_BYTES, RECORD_BYTES_MAX, RecordKey, record_bytes, sealed_bytes};
use crate::sums::Summer;
use crate::{KEY_UPDATES_MAX, RECORD_PLAIN_BYTES_MAX};

use super::super::{NO_MEMORY, TRUNCATED};
use super::Shared;

/// Stage of a connection on which only short records come.
const STAGE_SMALL_BYTES: usize = 4 << 10;
/// Stage of one on which payload comes: three records, and the front of one.
const STAGE_BYTES: usize = 64 << 10;
/// Longest payload that is received by way of the stage that a connection keeps. For a longer one it borrows a wide one.
const STAGED_PLAIN_BYTES_MAX: usize = 3 * RECORD_PLAIN_BYTES_MAX;
/// Payload of the whole records that a wide stage has room for.
const WIDE_PLAIN_BYTES: usize =
    WIDE_STAGE_BYTES / sealed_bytes(RECORD_PLAIN_BYTES_MAX) * RECORD_PLAIN_BYTES_MAX;
/// `close_notify` (RFC 8446, 6.1).
const CLOSE_NOTIFY: u8 = 0;
/// Handshake message that replaces the peer's key.
const KEY_UPDATE: u8 = 24;

pub(super) struct Receiver {
    key: RecordKey,
    /// Not here while the lane fills it.
    stage: Option<DmaBuf>,
    /// The stage that the connection keeps, while the one in use is borrowed.
    kept: Option<(DmaBuf, Place)>,
    /// Sealed bytes in the stage.
    sealed: Range<usize>,
    /// Opened bytes in the stage, before the sealed ones, that did not fit where they belonged.
    opened: Range<usize>,
    /// Plaintext that came with the handshake.
    early: Vec<u8>,
    updates: u32,
    closed: bool,
}

impl Receiver {
    pub(super) fn new(key: RecordKey, memory: &Pool, early: &[u8], rest: &[u8]) -> Result<Self, Exhausted> {
        let room = if rest.len() <= STAGE_SMALL_BYTES { STAGE_SMALL_BYTES } else { STAGE_BYTES };
        let mut stage = memory.try_take(room)?;
        let Some(front) = stage.get_mut(..rest.len()) else { return Err(Exhausted { bytes: rest.len() }) };
        front.copy_from_slice(rest);
        Ok(Self {
            key,
            stage: Some(stage),
            kept: None,
            sealed: 0..rest.len(),
            opened: 0..0,
            early: early.to_vec(),
            updates: 0,
            closed: false,
        })
    }

    /// Receives at least `min` bytes into the front of `into`, and what else is here and fits. `summer` goes over them while
    /// they are in the cache.
    pub(super) async fn receive(
        &mut self,
        lane: &impl Lane,
        shared: &Shared,
        into: &mut [u8],
        min: usize,
        mut summer: Option<&mut Summer>,
    ) -> Result<usize, LaneError> {
        let (mut filled, mut summed) = (self.take_early(into), 0);
        loop {
            let aside = self.take_opened(&mut into[filled..]);
            shared.copied(aside);
            filled += aside;
            if let Some(summer) = summer.as_deref_mut() {
                summer.add(&into[summed..filled]);
                summed = filled;
            }
            if filled == into.len() || (self.closed && filled >= min) {
                break;
            }
            if self.closed {
                return Err(LaneError::Closed);
            }
            let sealed = self.sealed.clone();
            match record_bytes(&self.stage()[sealed.clone()]).transpose()? {
                Some(bytes) if bytes <= sealed.len() => {
                    filled += self.open(shared, bytes, &mut into[filled..])?;
                }
                _ if filled >= min => break,
                bytes => self.fill(lane, shared, bytes.unwrap_or(HEADER_BYTES), min - filled).await?,
            }
        }
        self.give_back();
        Ok(filled)
    }

    fn stage(&mut self) -> &mut DmaBuf {
        self.stage.as_mut().expect("back after every receive")
    }

    fn take_early(&mut self, into: &mut [u8]) -> usize {
        let bytes = self.early.len().min(into.len());
        into[..bytes].copy_from_slice(&self.early[..bytes]);
        self.early.drain(..bytes);
        bytes
    }

    fn take_opened(&mut self, into: &mut [u8]) -> usize {
        let bytes = self.opened.len().min(into.len());
        let from = self.opened.start..self.opened.start + bytes;
        self.opened.start = from.end;
        into[..bytes].copy_from_slice(&self.stage()[from]);
        bytes
    }

    /// Opens the next record, which is here as a whole: to `into` when that has room for all that was sealed, else where
    /// it lies. Answers how many bytes of `into` it filled.
    fn open(&mut self, shared: &Shared, bytes: usize, into: &mut [u8]) -> Result<usize, LaneError> {
        let record = self.sealed.start..self.sealed.start + bytes;
        self.sealed.start = record.end;
        let stage = self.stage.as_mut().expect("back after every receive");
        if into.len() >= RecordKey::opened_bytes(bytes) {
            let (content, plain) = self.key.open_to(&stage[record], into)?;
            if content == Content::Data {
                self.updates = 0;
                shared.tally.count(|tally| tally.bytes_opened += plain as u64);
                return Ok(plain);
            }
            let message: [u8; 5] = short(&into[..plain]);
            self.heed(shared, content, message, plain)?;
            return Ok(0);
        }
        let begin = record.start + HEADER_BYTES;
        let (content, plain) = self.key.open_here(&mut stage[record])?;
        if content == Content::Data {
            self.updates = 0;
            shared.tally.count(|tally| tally.bytes_opened += plain as u64);
            self.opened = begin..begin + plain;
        } else {
            let message: [u8; 5] = short(&stage[begin..begin + plain]);
            self.heed(shared, content, message, plain)?;
        }
        Ok(0)
    }

    /// Does what a record that carries no data asks for.
    fn heed(
        &mut self,
        shared: &Shared,
        content: Content,
        message: [u8; 5],
        bytes: usize,
    ) -> Result<(), LaneError> {
        match (content, message, bytes) {
            (Content::Alert, [_, CLOSE_NOTIFY, ..], 2) => self.closed = true,
            (Content::Handshake, [KEY_UPDATE, 0, 0, 1, asked @ (0 | 1)], 5) => {
                self.updates += 1;
                if self.updates > KEY_UPDATES_MAX {
                    return Err(LaneError::Forged);
                }
                self.key = shared.next_to_receive()?;
                if asked == 1 {
                    shared.update_owed.set(true);
                }
            }
            // Alerts are fatal (RFC 8446, 6.2), and nothing else of a handshake is wanted after it.
            _ => return Err(LaneError::Forged),
        }
        Ok(())
    }

    /// Receives until `record` sealed bytes are here, and what else must come for `plain` more bytes of payload, as far as the
    /// stage has room: nothing that is still to be sent can be shorter than full records.
    async fn fill(
        &mut self,
        lane: &impl Lane,
        shared: &Shared,
        record: usize,
        plain: usize,
    ) -> Result<(), LaneError> {
        self.fit(shared, record, plain)?;
        let here = self.sealed.len();
        let mut stage = self.stage.take().expect("back after every receive");
        if self.sealed.start > 0 {
            stage.copy_within(self.sealed.clone(), 0);
            shared.copied(here);
        }
        self.opened = 0..0;
        self.sealed = 0..here;
        let room = stage.capacity();
        let wanted = if self.kept.is_some() {
            // Exactly this and no more, so that nothing keeps the stage from going back.
            let wanted = sealed_bytes(plain.min(WIDE_PLAIN_BYTES)).max(record);
            stage.set_len(wanted);
            wanted
        } else {
            stage.set_len(room);
            sealed_bytes(plain.min(STAGED_PLAIN_BYTES_MAX)).max(record).min(room)
        };
        shared.tally.count(|tally| tally.receives += 1);
        let (received, mut stage) = lane.recv_behind(stage, here, wanted - here).await;
        stage.set_len(room);
        self.stage = Some(stage);
        match received {
            Ok(received) => self.sealed.end += received,
            // An end that nobody announced may be somebody else's (RFC 8446, 6.1).
            Err(LaneError::Closed) => return Err(LaneError::Broken { errno: TRUNCATED }),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Sees to it that the stage has room for this.
    fn fit(&mut self, shared: &Shared, record: usize, plain: usize) -> Result<(), LaneError> {
        let room = self.stage().capacity();
        if self.kept.is_some() {
            return Ok(());
        }
        if plain > STAGED_PLAIN_BYTES_MAX
            && let Some((wide, place)) = shared.memory.try_take_wide()
        {
            let stage = self.change_stage(shared, wide);
            self.kept = Some((stage, place));
            return Ok(());
        }
        if room < STAGE_BYTES && (record > room || plain > room) {
            // A stage is held as long as its connection lives, so one that waits for it might wait for ever.
            let larger = shared.memory.pool.try_take(STAGE_BYTES);
            drop(self.change_stage(shared, larger.map_err(|_| LaneError::NoResources { errno: NO_MEMORY })?));
        }
        Ok(())
    }

    /// Goes on in another stage; answers the one before.
    fn change_stage(&mut self, shared: &Shared, mut other: DmaBuf) -> DmaBuf {
        let sealed = core::mem::replace(&mut self.sealed, 0..0);
        let before = self.stage.take().expect("back after every receive");
        self.sealed = 0..sealed.len();
        self.opened = 0..0;
        shared.copied(sealed.len());
        other[..sealed.len()].copy_from_slice(&before[sealed]);
        self.stage = Some(other);
        before
    }

    /// A borrowed stage goes back when it is empty.
    fn give_back(&mut self) {
        if self.sealed.is_empty()
            && self.opened.is_empty()
            && let Some((stage, _place)) = self.kept.take()
        {
            self.stage = Some(stage);
            (self.sealed, self.opened) = (0..0, 0..0);
        }
    }
}

const _: () = assert!(STAGE_BYTES >= sealed_bytes(STAGED_PLAIN_BYTES_MAX));
const _: () = assert!(STAGE_BYTES >= RECORD_BYTES_MAX && WIDE_STAGE_BYTES >= RECORD_BYTES_MAX);

/// The front of a message; zeros where it is shorter.
fn short(message: &[u8]) -> [u8; 5] {
    let mut front = [0; 5];
    let bytes = message.len().min(5);
    front[..bytes].copy_from_slice(&message[..bytes]);
    front
}
