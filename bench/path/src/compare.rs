//! Two trees, byte for byte by their SHA-256.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;
use sha2::{Digest, Sha256};

use crate::interrupt::Interrupt;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// How many differences are described; all are counted.
const DESCRIBED_MAX: usize = 10;

/// A file and what should be its copy.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The file.
    pub source: PathBuf,
    /// Its copy.
    pub copy: PathBuf,
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Files whose copy has the same SHA-256.
    pub verified: u64,
    /// Files whose copy differs or is missing.
    pub different: u64,
    /// The first few of those, described.
    pub described: Vec<String>,
}

/// Compares every pair, on as many threads as there are processors.
///
/// # Errors
/// When we are asked to stop.
pub fn compare(pairs: &[Pair], interrupt: &Interrupt) -> Result<Comparison> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Comparison::default();
        while let Some(pair) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) {
            interrupt.check()?;
            match difference(pair) {
                None => found.verified += 1,
                Some(text) => found.add_difference(text),
            }
        }
        Ok(found)
    };
    let parts: Vec<Result<Comparison>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("comparing does not panic")).collect()
    });
    let mut all = Comparison::default();
    for part in parts {
        let part = part?;
        all.verified += part.verified;
        all.different += part.different;
        all.described.extend(part.described);
    }
    all.described.sort();
    all.described.truncate(DESCRIBED_MAX);
    Ok(all)
}

impl Comparison {
    fn add_difference(&mut self, text: String) {
        self.different += 1;
        if self.described.len() < DESCRIBED_MAX {
            self.described.push(text);
        }
    }
}

fn difference(pair: &Pair) -> Option<String> {
    let source = match digest(&pair.source) {
        Ok(digest) => digest,
        Err(error) => return Some(format!("{}: the source cannot be read: {error}", pair.source.display())),
    };
    match digest(&pair.copy) {
        Ok(copy) if copy == source => None,
        Ok(_) => Some(format!("{} differs from {}", pair.copy.display(), pair.source.display())),
        Err(error) => Some(format!("{}: {error}", pair.copy.display())),
    }
}

/// SHA-256 of a file, read piece by piece.
///
/// # Errors
/// When the file cannot be read.
pub fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&chunk[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn equal_different_and_missing_copies_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let large: Vec<u8> = vec![7; CHUNK_BYTES + 1];
        fs::write(at("a"), &large).unwrap();
        fs::write(at("same"), &large).unwrap();
        fs::write(at("shorter"), &large[1..]).unwrap();
        let pair = |copy: &str| Pair { source: at("a"), copy: at(copy) };
        let found =
            compare(&[pair("same"), pair("shorter"), pair("missing")], &Interrupt::default()).unwrap();
        assert_eq!((found.verified, found.different), (1, 2));
        assert!(
            found.described[0].contains("missing") && found.described[1].contains("shorter differs"),
            "{found:?}"
        );
    }

    #[test]
    fn the_digest_is_sha_256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        assert_eq!(digest(&path).unwrap()[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
