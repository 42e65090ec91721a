//! Small writes of one file, gathered until they are worth a transfer.

use crate::data::CHUNK_BYTES;

/// One contiguous range of a file, not yet sent. It ends at the latest at the next multiple of 1 MiB, so that what
/// is sent after it begins with a whole unit.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    offset: u64,
    data: Vec<u8>,
}

impl Buffer {
    pub(super) fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }

    /// First byte behind it.
    pub(super) fn end(&self) -> u64 {
        self.offset + u64::try_from(self.data.len()).expect("at most 1 MiB")
    }

    fn limit(&self) -> u64 {
        (self.offset / CHUNK_BYTES + 1) * CHUNK_BYTES
    }

    pub(super) fn is_full(&self) -> bool {
        !self.is_empty() && self.end() == self.limit()
    }

    /// Takes from the front of `data` what continues or lies within the range; answers how many bytes. 0: there is a
    /// gap, or it is full.
    pub(super) fn take(&mut self, offset: u64, data: &[u8]) -> usize {
        if self.is_empty() {
            self.offset = offset;
        }
        if offset < self.offset || offset > self.end() {
            return 0;
        }
        let narrow = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let at = narrow(offset - self.offset);
        let count = data.len().min(narrow(self.limit() - offset));
        let kept = count.min(self.data.len() - at);
        self.data[at..at + kept].copy_from_slice(&data[..kept]);
        self.data.extend_from_slice(&data[kept..count]);
        count
    }

    /// Puts what it holds of `[offset, offset + into.len())` there.
    pub(super) fn overlay(&self, offset: u64, into: &mut [u8]) {
        let end = offset + u64::try_from(into.len()).expect("a length fits 64 bits");
        let (begin, end) = (offset.max(self.offset), end.min(self.end()));
        if begin < end {
            let narrow = |bytes: u64| usize::try_from(bytes).expect("inside a slice");
            let source = narrow(begin - self.offset)..narrow(end - self.offset);
            into[narrow(begin - offset)..narrow(end - offset)].copy_from_slice(&self.data[source]);
        }
    }

    /// The part of it inside a range, to be laid over what is read.
    pub(super) fn part(&self, begin: u64, end: u64) -> Self {
        let (begin, end) = (begin.max(self.offset), end.min(self.end()));
        if begin >= end {
            return Self::default();
        }
        let mut data = vec![0; usize::try_from(end - begin).expect("at most 1 MiB")];
        self.overlay(begin, &mut data);
        Self { offset: begin, data }
    }

    /// Forgets what it holds and keeps its room; answers how many bytes that was.
    pub(super) fn clear(&mut self) -> u64 {
        let bytes = self.end() - self.offset;
        self.data.clear();
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_that_touch_are_one_range_and_a_gap_is_refused() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.take(100, b"abc"), 3);
        assert_eq!(buffer.take(103, b"defg"), 4);
        assert_eq!(buffer.take(101, b"XY"), 2, "inside");
        assert_eq!(buffer.take(106, b"!!!"), 3, "over the end");
        assert_eq!((buffer.take(99, b"z"), buffer.take(110, b"z")), (0, 0));
        assert_eq!((buffer.offset(), buffer.data()), (100, &b"aXYdef!!!"[..]));
    }

    #[test]
    fn it_ends_at_a_multiple_of_a_transfer() {
        let mut buffer = Buffer::default();
        assert_eq!(buffer.take(CHUNK_BYTES - 2, &[1; 10]), 2);
        assert!(buffer.is_full());
        assert_eq!(buffer.take(CHUNK_BYTES, &[1; 10]), 0);
        assert_eq!(buffer.clear(), 2);
        assert_eq!(buffer.take(CHUNK_BYTES, &[1; 10]), 10);
    }

    #[test]
    fn its_bytes_lie_over_what_was_read() {
        let mut buffer = Buffer::default();
        buffer.take(10, b"abcdef");
        let mut read = *b"........";
        buffer.overlay(12, &mut read);
        assert_eq!(&read, b"cdef....");
        buffer.part(0, 12).overlay(8, &mut read);
        assert_eq!(&read, b"cdab....");
        assert!(buffer.part(16, 20).is_empty());
    }
}
