//! The way out: records sealed out of what is sent, a wire buffer at a time.

use nova_buf::SharedBuf;
use nova_device::{Lane, LaneError};

use crate::record::{Content, OVERHEAD_BYTES, RECORD_PLAIN_BYTES_MAX, RecordKey, sealed_bytes};

use super::Shared;

/// Sealed at once and given to the lane: it is still in the cache of the core when the kernel copies it.
const WIRE_BYTES: usize = 256 << 10;
/// What is sealed to no more than this goes by memory of the sender's own.
const SMALL_BYTES: usize = 16 << 10;
/// A key update (RFC 8446, 4.6.3): its type, its length, and that none is asked for in return. Each end counts its own
/// records, so neither needs to ask.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// `close_notify`, a warning.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

pub(super) struct Sender {
    key: RecordKey,
    small: Vec<u8>,
}

impl Sender {
    pub(super) fn new(key: RecordKey) -> Self {
        Self { key, small: Vec::new() }
    }

    /// Seals and sends `head`, then `body`.
    pub(super) async fn send(
        &mut self,
        lane: &impl Lane,
        shared: &Shared,
        head: &[u8],
        body: Option<SharedBuf>,
    ) -> Result<(), LaneError> {
        let body = body.as_deref().unwrap_or_default();
        let mut records =
            head.chunks(RECORD_PLAIN_BYTES_MAX).chain(body.chunks(RECORD_PLAIN_BYTES_MAX)).peekable();
        let bytes = sealed_bytes(head.len()) + sealed_bytes(body.len());
        if bytes <= SMALL_BYTES {
            let mut small = core::mem::take(&mut self.small);
            // Room for a key update before every record, which is far more than there are.
            small.resize(bytes + (OVERHEAD_BYTES + KEY_UPDATE.len()) * 4, 0);
            let end = self.seal_records(shared, &mut records, &mut small)?;
            // A lane copies what it is given as a head.
            shared.copied(end);
            shared.tally.count(|tally| tally.sends += 1);
            lane.send(&small[..end], None).await?;
            self.small = small;
            return Ok(());
        }
        let mut left = bytes;
        while records.peek().is_some() {
            let room = (left + OVERHEAD_BYTES + KEY_UPDATE.len()).clamp(SMALL_BYTES * 2, WIRE_BYTES);
            let mut wire = shared.memory.pool.take(room).await;
            let end = self.seal_records(shared, &mut records, &mut wire)?;
            wire.set_len(end);
            left = left.saturating_sub(end);
            shared.tally.count(|tally| tally.sends += 1);
            lane.send(&[], Some(wire.freeze())).await?;
        }
        Ok(())
    }

    /// Seals as many records as `out` has room for; answers how many bytes that makes.
    fn seal_records<'p>(
        &mut self,
        shared: &Shared,
        records: &mut core::iter::Peekable<impl Iterator<Item = &'p [u8]>>,
        out: &mut [u8],
    ) -> Result<usize, LaneError> {
        let mut end = 0;
        while let Some(plain) = records.peek() {
            let update = shared.update_owed.get() || self.key.sequence() >= shared.records_per_key;
            let update_bytes = if update { KEY_UPDATE.len() + OVERHEAD_BYTES } else { 0 };
            if end + update_bytes + plain.len() + OVERHEAD_BYTES > out.len() {
                break;
            }
            if update {
                end += self.key.seal(Content::Handshake, &KEY_UPDATE, &mut out[end..]);
                self.key = shared.next_to_send()?;
                shared.update_owed.set(false);
            }
            end += self.key.seal(Content::Data, plain, &mut out[end..]);
            shared.tally.count(|tally| tally.bytes_sealed += plain.len() as u64);
            records.next();
        }
        Ok(end)
    }

    /// Says that nothing more comes.
    pub(super) async fn close(&mut self, lane: &impl Lane) -> Result<(), LaneError> {
        let mut out = [0; CLOSE_NOTIFY.len() + OVERHEAD_BYTES];
        let bytes = self.key.seal(Content::Alert, &CLOSE_NOTIFY, &mut out);
        lane.send(&out[..bytes], None).await
    }
}
