//! Where the bytes of a file on its way in come from, and where it has none: what is not stored at the source is not
//! written either.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use nova_api::files::Resolved;
use nova_units::BLOCK_BYTES_MAX;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::client::Client;
use crate::data::CHUNK_BYTES;
use crate::error::ClientError;
use crate::get::Plain;
use crate::progress::Progress;

/// A shorter hole is written as zeros: a block begins behind each hole, and a block has its cost in metadata.
const HOLE_BYTES_MIN: u64 = 1 << 20;
/// After so many holes of one file only those of a whole block's size are left out: this bounds its blocks.
const HOLES_SHORT_MAX: u32 = 2048;

/// What comes next in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// So many zeros that are stored nowhere.
    Hole(u64),
    /// The chunk has bytes; fewer than [`CHUNK_BYTES`] only before a hole, the end of a block at the source, or the end.
    Data,
    /// Nothing.
    End,
}

/// The bytes of a file, from its begin to its end.
pub(crate) trait Content {
    /// What comes next; data are in `chunk` then.
    fn next(&mut self, chunk: &mut Vec<u8>) -> Result<Next, ClientError>;
}

/// How long a hole must be to be left out.
#[derive(Debug, Default)]
struct Holes {
    short: u32,
}

impl Holes {
    /// Whether a hole of so many bytes is left out.
    fn take(&mut self, bytes: u64) -> bool {
        let short = bytes < BLOCK_BYTES_MAX;
        let taken = !short || (bytes >= HOLE_BYTES_MIN && self.short < HOLES_SHORT_MAX);
        self.short += u32::from(short && taken);
        taken
    }
}

/// Whether there are only zeros.
pub(crate) fn is_zeros(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|page| page.iter().fold(0, |seen, byte| seen | byte) == 0)
}

/// A local file, up to the length that it had when it was opened. Where its file system tells nothing of holes it has
/// none. One without a length, as those of /proc, is read to its end.
#[derive(Debug)]
pub(crate) struct LocalContent<'f> {
    file: &'f File,
    path: &'f Path,
    /// Its length when it was opened.
    bytes: u64,
    at: u64,
    /// Where the stretch with data ends that `at` lies in; `None`: its end is found by reading.
    data_end: Option<u64>,
    holes: Holes,
}

impl<'f> LocalContent<'f> {
    pub(crate) fn new(file: &'f File, path: &'f Path, bytes: u64) -> Self {
        let tells = bytes > 0 && matches!(seek(file, SeekFrom::Data(0)), Ok(_) | Err(Errno::NXIO));
        let data_end = tells.then_some(0);
        Self { file, path, bytes, at: 0, data_end, holes: Holes::default() }
    }

    fn seek(&self, to: SeekFrom) -> Result<Option<u64>, ClientError> {
        match seek(self.file, to) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(ClientError::local("look for holes in", self.path)(errno.into())),
        }
    }

    /// The next stretch with data behind `at`, over holes that are not worth leaving out.
    fn stretch(&mut self) -> Result<Option<(u64, u64)>, ClientError> {
        let begin = self.seek(SeekFrom::Data(self.at))?.filter(|begin| *begin < self.bytes);
        let Some(begin) = begin else { return Ok(None) };
        let begin = if begin > self.at && !self.holes.take(begin - self.at) { self.at } else { begin };
        let Some(mut end) = self.seek(SeekFrom::Hole(begin))? else { return Ok(None) };
        while end < self.bytes
            && let Some(next) = self.seek(SeekFrom::Data(end))?
        {
            // What is taken here comes up as the hole before the next stretch; it is counted there.
            let short = next - end < HOLE_BYTES_MIN
                || (next - end < BLOCK_BYTES_MAX && self.holes.short >= HOLES_SHORT_MAX);
            if !short {
                break;
            }
            match self.seek(SeekFrom::Hole(next))? {
                Some(later) if later > end => end = later,
                _ => break,
            }
        }
        Ok(Some((begin, end.clamp(begin, self.bytes))))
    }

    fn read(&mut self, most: u64, chunk: &mut Vec<u8>) -> Result<(), ClientError> {
        chunk.resize(usize::try_from(most).expect("at most 1 MiB"), 0);
        let mut done = 0;
        while done < chunk.len() {
            let at = self.at + u64::try_from(done).expect("a length fits 64 bits");
            match self.file.read_at(&mut chunk[done..], at) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ClientError::local("read", self.path)(error)),
            }
        }
        chunk.truncate(done);
        self.at += u64::try_from(done).expect("a length fits 64 bits");
        Ok(())
    }
}

impl Content for LocalContent<'_> {
    fn next(&mut self, chunk: &mut Vec<u8>) -> Result<Next, ClientError> {
        chunk.clear();
        if self.data_end.is_some_and(|end| self.at >= end) {
            match self.stretch()? {
                None if self.at < self.bytes => {
                    let hole = self.bytes - self.at;
                    self.at = self.bytes;
                    return Ok(Next::Hole(hole));
                }
                None => return Ok(Next::End),
                Some((begin, end)) => {
                    self.data_end = Some(end);
                    if begin > self.at {
                        let hole = begin - self.at;
                        self.at = begin;
                        return Ok(Next::Hole(hole));
                    }
                }
            }
        }
        let end = self.data_end.unwrap_or(if self.bytes == 0 { u64::MAX } else { self.bytes });
        let most = CHUNK_BYTES.min(end - self.at);
        self.read(most, chunk)?;
        Ok(if chunk.is_empty() { Next::End } else { Next::Data })
    }
}

/// A file of NovaFS. What no block holds is a hole, and so are zeros of a block that may have holes itself.
#[derive(Debug)]
pub(crate) struct StoredContent<'c> {
    client: &'c Client,
    resolved: &'c Resolved,
    /// The first block that may hold bytes behind `at`.
    block: usize,
    at: u64,
    holes: Holes,
}

impl<'c> StoredContent<'c> {
    pub(crate) fn new(client: &'c Client, resolved: &'c Resolved) -> Self {
        Self { client, resolved, block: 0, at: 0, holes: Holes::default() }
    }
}

impl Content for StoredContent<'_> {
    fn next(&mut self, chunk: &mut Vec<u8>) -> Result<Next, ClientError> {
        chunk.clear();
        let bytes = self.resolved.entry.as_ref().map_or(0, |entry| entry.bytes);
        if self.at >= bytes {
            return Ok(Next::End);
        }
        let end_of = |block: &nova_api::files::Block| block.offset.saturating_add(block.bytes);
        while self.resolved.blocks.get(self.block).is_some_and(|block| end_of(block) <= self.at) {
            self.block += 1;
        }
        let Some(block) = self.resolved.blocks.get(self.block).filter(|block| block.offset < bytes) else {
            let hole = bytes - self.at;
            self.at = bytes;
            return Ok(Next::Hole(hole));
        };
        if block.offset > self.at {
            let hole = block.offset - self.at;
            self.at = block.offset;
            return Ok(Next::Hole(hole));
        }
        let end = end_of(block).min(bytes).min(self.at + CHUNK_BYTES);
        let name = Path::new("memory");
        self.client.read_blocks(
            std::slice::from_ref(block),
            self.at..end,
            &mut Plain(chunk),
            name,
            &Progress::default(),
        )?;
        let count = end - self.at;
        self.at = end;
        if block.sparse && is_zeros(chunk) && self.holes.take(count) {
            chunk.clear();
            return Ok(Next::Hole(count));
        }
        Ok(Next::Data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file with data at these places looks like.
    fn seen(stretches: &[(u64, u64)], bytes: u64) -> Vec<Next> {
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        file.set_len(bytes).unwrap();
        for (at, count) in stretches {
            file.write_all_at(&vec![7; usize::try_from(*count).unwrap()], *at).unwrap();
        }
        let mut content = LocalContent::new(&file, Path::new("it"), bytes);
        let (mut found, mut chunk, mut total) = (Vec::new(), Vec::new(), 0);
        loop {
            let next = content.next(&mut chunk).unwrap();
            match next {
                Next::Hole(hole) => total += hole,
                Next::Data => total += chunk.len() as u64,
                Next::End => break,
            }
            found.push(next);
        }
        assert_eq!(total, bytes);
        found
    }

    #[test]
    fn holes_are_told_and_short_ones_are_data() {
        const MIB: u64 = 1 << 20;
        assert_eq!(seen(&[], 0), []);
        assert_eq!(seen(&[], 5 << 40), [Next::Hole(5 << 40)]);
        assert_eq!(seen(&[(0, 10)], 10), [Next::Data]);
        assert_eq!(
            seen(&[(64 * MIB, MIB)], 80 * MIB),
            [Next::Hole(64 * MIB), Next::Data, Next::Hole(15 * MIB)]
        );
        assert_eq!(seen(&[(0, 4096), (MIB / 2, MIB / 2)], MIB), [Next::Data], "a short hole between data");
        assert_eq!(seen(&[(MIB / 2, MIB / 2)], MIB), [Next::Data], "and one before them");
    }

    #[test]
    fn the_holes_of_a_file_are_bounded_unless_each_is_a_block_long() {
        let mut holes = Holes::default();
        assert!(!holes.take(HOLE_BYTES_MIN - 1));
        assert!((0..HOLES_SHORT_MAX).all(|_| holes.take(HOLE_BYTES_MIN)));
        assert!(!holes.take(HOLE_BYTES_MIN));
        assert!(holes.take(BLOCK_BYTES_MAX));
    }

    #[test]
    fn zeros_are_told_from_anything_else() {
        assert!(is_zeros(&[0; 10_000]) && is_zeros(&[]));
        let mut bytes = vec![0; 10_000];
        bytes[9_999] = 1;
        assert!(!is_zeros(&bytes));
    }
}
