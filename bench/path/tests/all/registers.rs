//! Files as registers: each is replaced again and again by one writer, and read by others.
//!
//! Versions are numbered in the order in which their writes began. A read must not return less than what was
//! acknowledged, or read by someone, before it began, nor more than what was begun before it ended, and every byte must
//! be of the version that it claims to be. For registers with one writer that is linearizability.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nova_path::nova::Nova;

/// How long a write or read is waited for.
const CALL_LIMIT: Duration = Duration::from_secs(40);
/// Who writes at once while registers are in use.
const WRITERS: usize = 2;
/// Bytes of a version at most.
const BYTES_MAX: usize = 120_000;

#[derive(Clone, Debug, Default)]
struct Register {
    begun: u64,
    /// Acknowledged, or seen by a read that ended.
    known: u64,
}

/// What happened to the registers.
#[derive(Debug, Default)]
struct History {
    registers: Vec<Register>,
    wrong: Vec<String>,
    writes: u64,
    reads: u64,
    /// Calls that ended with an error: nothing is known of such a write.
    failed: u64,
    acknowledged: Option<Instant>,
    /// The longest time without an acknowledged write.
    stall: Duration,
}

/// A folder of registers in a region.
#[derive(Debug)]
pub(crate) struct Registers {
    nova: Nova,
    local: PathBuf,
    folder: String,
    history: Mutex<History>,
}

/// How much happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    pub(crate) writes: u64,
    pub(crate) reads: u64,
    pub(crate) failed: u64,
}

impl Registers {
    /// Makes `count` registers in `folder`, each with its first version.
    pub(crate) fn make(nova: &Nova, folder: &str, local: PathBuf, count: usize) -> Self {
        nova.call(["fs", "mkdir", "-p", folder]).run().unwrap();
        let history = History { registers: vec![Register::default(); count], ..History::default() };
        let made =
            Self { nova: nova.clone(), local, folder: folder.to_owned(), history: Mutex::new(history) };
        for register in 0..count {
            assert!(made.write(register), "the first version of a register");
        }
        made
    }

    pub(crate) fn count(&self) -> usize {
        self.history.lock().unwrap().registers.len()
    }

    fn path(&self, register: usize) -> String {
        format!("{}/{register}", self.folder)
    }

    /// Replaces a register by its next version; false when that is not known to have happened.
    pub(crate) fn write(&self, register: usize) -> bool {
        let version = {
            let mut history = self.history.lock().unwrap();
            history.registers[register].begun += 1;
            history.registers[register].begun
        };
        let source = self.local.join(format!("{register}.{version}"));
        fs::write(&source, content(register, version)).unwrap();
        let words = ["fs", "put", "--replace", source.to_str().unwrap(), &self.path(register)];
        let ended = self.nova.call(words).limit(CALL_LIMIT).finish();
        let done = ended.is_ok_and(|finished| finished.code == Some(0));
        fs::remove_file(&source).unwrap();
        let mut history = self.history.lock().unwrap();
        if done {
            history.writes += 1;
            history.registers[register].known = history.registers[register].known.max(version);
            let now = Instant::now();
            if let Some(last) = history.acknowledged.replace(now) {
                history.stall = history.stall.max(now - last);
            }
        } else {
            history.failed += 1;
        }
        done
    }

    /// Reads a register and judges what came; false when nothing did.
    pub(crate) fn read(&self, register: usize) -> bool {
        let least = self.history.lock().unwrap().registers[register].known;
        let ended = self.nova.call(["fs", "cat", &self.path(register)]).limit(CALL_LIMIT).finish();
        let bytes = ended.ok().filter(|finished| finished.code == Some(0)).map(|finished| finished.stdout);
        let mut history = self.history.lock().unwrap();
        let Some(bytes) = bytes else {
            history.failed += 1;
            return false;
        };
        history.reads += 1;
        let begun = history.registers[register].begun;
        match version_of(register, &bytes) {
            None => history.wrong.push(format!("register {register}: bytes of no version came")),
            Some(seen) if seen < least => {
                history
                    .wrong
                    .push(format!("register {register}: version {seen} came, at least {least} was due"));
            }
            Some(seen) if seen > begun => {
                history.wrong.push(format!("register {register}: version {seen} of {begun} came"));
            }
            Some(seen) => history.registers[register].known = history.registers[register].known.max(seen),
        }
        true
    }

    /// Forgets the longest stall so far.
    pub(crate) fn reset_stall(&self) {
        let mut history = self.history.lock().unwrap();
        (history.stall, history.acknowledged) = (Duration::ZERO, Some(Instant::now()));
    }

    /// The longest time without an acknowledged write, the one under way included.
    pub(crate) fn stall(&self) -> Duration {
        let history = self.history.lock().unwrap();
        history.stall.max(history.acknowledged.map_or(Duration::ZERO, |last| last.elapsed()))
    }

    /// Writes acknowledged so far.
    pub(crate) fn writes(&self) -> u64 {
        self.history.lock().unwrap().writes
    }

    /// Writes and reads without a pause while `disturb` runs; answers what that does.
    pub(crate) fn in_use<T>(&self, disturb: impl FnOnce() -> T) -> T {
        let stop = AtomicBool::new(false);
        let write = |writer: usize| {
            while !stop.load(Ordering::Relaxed) {
                for register in (writer..self.count()).step_by(WRITERS) {
                    self.write(register);
                }
            }
        };
        let read = || {
            let mut random = fastrand::Rng::with_seed(9);
            while !stop.load(Ordering::Relaxed) {
                self.read(random.usize(..self.count()));
            }
        };
        thread::scope(|scope| {
            let _stops = Stops(&stop);
            let (write, read) = (&write, &read);
            for writer in 0..WRITERS {
                scope.spawn(move || write(writer));
            }
            scope.spawn(read);
            disturb()
        })
    }

    /// Waits until every register could be written once more, on average.
    ///
    /// # Panics
    /// When that takes longer than `limit`.
    pub(crate) fn wait_writable(&self, limit: Duration) {
        let (begun, before) = (Instant::now(), self.writes());
        while self.writes() < before + self.count() as u64 {
            assert!(begun.elapsed() < limit, "writes do not go on {limit:?} after everything was healed");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Reads every register once more; all must come, and nothing may ever have been wrong.
    pub(crate) fn settle(&self) -> Totals {
        self.judge().unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    /// The same, with what is wrong as an error.
    pub(crate) fn judge(&self) -> Result<Totals, String> {
        for register in 0..self.count() {
            if !self.read(register) {
                return Err(format!("register {register} cannot be read at rest"));
            }
        }
        let history = self.history.lock().unwrap();
        if !history.wrong.is_empty() {
            return Err(format!("{:#?}", history.wrong));
        }
        let History { writes, reads, failed, .. } = *history;
        Ok(Totals { writes, reads, failed })
    }
}

/// Says stop when it goes: a panic must not leave writers that never end.
pub(crate) struct Stops<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The bytes of a version: it says which it is, and the rest follows from that.
fn content(register: usize, version: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(version.wrapping_mul(1_000_003) ^ register as u64);
    let mut bytes = version.to_le_bytes().to_vec();
    bytes.resize(8 + random.usize(..BYTES_MAX), 0);
    random.fill(&mut bytes[8..]);
    bytes
}

/// The version that the bytes are, when they are those of one.
fn version_of(register: usize, bytes: &[u8]) -> Option<u64> {
    let version = u64::from_le_bytes(*bytes.first_chunk()?);
    (bytes == content(register, version)).then_some(version)
}

#[test]
fn a_version_is_known_by_all_of_its_bytes() {
    let mut bytes = content(3, 7);
    assert_eq!(version_of(3, &bytes), Some(7));
    assert_eq!(version_of(4, &bytes), None, "of another register");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert_eq!((version_of(3, &bytes), version_of(3, b"short")), (None, None));
}
