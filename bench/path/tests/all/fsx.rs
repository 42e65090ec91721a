//! What fsx(1) does: any operation on a file after any other, by every way programs have, and the file is what memory says.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, OFlags};
use rustix::io::Errno;

use super::mapped_file::MappedFile;

/// Longest the file gets: over several transfers and many units.
pub(crate) const BYTES_MAX: usize = 5 << 20;
/// Longest range of most operations, and of a few.
const RANGE_BYTES: usize = 20_000;
const RANGE_BYTES_MAX: usize = 1_500_000;
/// Operations shown of those that touched a byte that is wrong.
const SHOWN: usize = 12;

/// One step. Places and lengths are in bytes; what is written follows from the seed and the number of the step.
#[derive(Clone, Copy, Debug)]
enum Operation {
    /// Through one of two handles.
    Write {
        by: usize,
        at: usize,
        bytes: usize,
    },
    Read {
        by: usize,
        at: usize,
        bytes: usize,
    },
    /// Through a handle with `O_APPEND`.
    Append {
        bytes: usize,
    },
    /// Through a handle with `O_DIRECT`.
    DirectWrite {
        at: usize,
        bytes: usize,
    },
    DirectRead {
        at: usize,
        bytes: usize,
    },
    /// Through a shared mapping of another program.
    MapWrite {
        at: usize,
        bytes: usize,
    },
    MapRead {
        at: usize,
        bytes: usize,
    },
    MapSync {
        at: usize,
        bytes: usize,
    },
    MapAgain,
    /// `copy_file_range` within the file.
    Copy {
        from: usize,
        to: usize,
        bytes: usize,
    },
    /// `ftruncate`, down and up.
    Resize {
        to: usize,
    },
    /// An open with `O_TRUNC`.
    Empty,
    /// `fallocate`, which makes it longer.
    Extend {
        at: usize,
        bytes: usize,
    },
    /// `fallocate` with `PUNCH_HOLE`, which a mount refuses.
    Punch {
        at: usize,
        bytes: usize,
    },
    Sync {
        by: usize,
    },
    /// Closes a handle and opens it anew.
    Reopen {
        which: usize,
    },
    /// Closes everything, so that the writer's place is given up, and opens it anew.
    CloseAll,
    /// Has the kernel forget its pages, so that reads are answered by the mount.
    Forget,
    /// Compares all bytes.
    Whole,
}

impl Operation {
    /// The next operation on a file of `length`.
    fn draw(random: &mut fastrand::Rng, length: usize) -> Self {
        let at = random.usize(0..BYTES_MAX);
        let most = if random.u8(0..12) == 0 { RANGE_BYTES_MAX } else { RANGE_BYTES };
        let bytes = random.usize(1..most).min(BYTES_MAX - at).max(1);
        // Many programs write at places that are round.
        let at = if random.bool() { at & !0xfff } else { at };
        let by = random.usize(0..2);
        let kind = random.u8(0..100);
        // A mapping is used inside the file only.
        let inside = |at: usize| (at % length, bytes.min(length - at % length));
        match kind {
            0..20 => Self::Write { by, at, bytes },
            20..34 => Self::Read { by, at, bytes },
            34..38 => Self::Append { bytes: bytes.min(BYTES_MAX.saturating_sub(length)).min(RANGE_BYTES) },
            38..43 => Self::DirectWrite { at, bytes },
            43..48 => Self::DirectRead { at, bytes },
            48..72 if length == 0 => Self::Write { by, at: 0, bytes },
            48..58 => Self::MapWrite { at: inside(at).0, bytes: inside(at).1 },
            58..66 => Self::MapRead { at: inside(at).0, bytes: inside(at).1 },
            66..69 => Self::MapSync { at: inside(at).0, bytes: inside(at).1 },
            69..72 => {
                let (from, bytes) = inside(at);
                let to = random.usize(0..BYTES_MAX);
                // The system refuses ranges that overlap.
                let bytes = bytes.min(from.abs_diff(to)).min(BYTES_MAX - to);
                Self::Copy { from, to, bytes }
            }
            72..74 => Self::MapAgain,
            74..82 => {
                let to = if random.bool() { at } else { length * random.usize(0..110) / 100 };
                Self::Resize { to: to.min(BYTES_MAX) }
            }
            82 => Self::Empty,
            83..85 => Self::Extend { at, bytes },
            85 => Self::Punch { at, bytes },
            86..90 => Self::Sync { by },
            90..93 => Self::Reopen { which: random.usize(0..4) },
            93 => Self::CloseAll,
            94..98 => Self::Forget,
            _ => Self::Whole,
        }
    }

    /// Whether it says something of the byte at `place`.
    fn touches(self, place: usize) -> bool {
        match self {
            Self::Write { at, bytes, .. }
            | Self::DirectWrite { at, bytes }
            | Self::MapWrite { at, bytes }
            | Self::Copy { to: at, bytes, .. }
            | Self::Extend { at, bytes } => (at..at + bytes).contains(&place),
            Self::Resize { .. } | Self::Empty | Self::Append { .. } | Self::CloseAll => true,
            _ => false,
        }
    }
}

/// Every way into the file.
#[derive(Debug)]
struct Ways {
    /// Two usual ones, one with `O_APPEND`, one with `O_DIRECT`.
    handles: [File; 4],
    mapped: MappedFile,
}

const APPENDS: usize = 2;
const DIRECT: usize = 3;

fn open(path: &Path, which: usize) -> Result<File, String> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    match which {
        APPENDS => options.append(true),
        DIRECT => options.custom_flags(OFlags::DIRECT.bits().cast_signed()),
        _ => &mut options,
    };
    options.open(path).map_err(|error| format!("open handle {which}: {error}"))
}

/// A file and what it should hold.
#[derive(Debug)]
pub(crate) struct Exercise {
    seed: u64,
    path: PathBuf,
    /// The program that maps.
    program: PathBuf,
    model: Vec<u8>,
    done: Vec<Operation>,
    ways: Option<Ways>,
}

impl Exercise {
    /// Begins with an empty file at `path`; `program` maps it.
    pub(crate) fn new(seed: u64, path: PathBuf, program: PathBuf) -> Self {
        Self { seed, path, program, model: Vec::new(), done: Vec::new(), ways: None }
    }

    /// The name of its file.
    pub(crate) fn name(&self) -> &OsStr {
        self.path.file_name().expect("it is a file")
    }

    /// Makes `steps` operations and closes the file. An error says at which step the file was not what it should be, and
    /// what had touched that place.
    pub(crate) fn run(&mut self, steps: usize) -> Result<(), String> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        for _ in 0..steps {
            let operation = Operation::draw(&mut random, self.model.len());
            self.done.push(operation);
            self.apply(operation).and_then(|()| self.check_length()).map_err(|wrong| self.tell(&wrong))?;
        }
        self.ways = None;
        self.compare(0, &fs::read(&self.path).unwrap()).map_err(|wrong| self.tell(&wrong))
    }

    /// Compares the bytes of another mount.
    pub(crate) fn check(&self, found: &[u8]) -> Result<(), String> {
        let same = self.compare(0, found).and_then(|()| match found.len() == self.model.len() {
            true => Ok(()),
            false => Err(format!("{} bytes, {} should be", found.len(), self.model.len())),
        });
        same.map_err(|wrong| self.tell(&format!("after another mount: {wrong}")))
    }

    fn ways(&mut self) -> Result<&mut Ways, String> {
        if self.ways.is_none() {
            let [one, two, three, four] = [0, 1, APPENDS, DIRECT].map(|which| open(&self.path, which));
            let mapped = MappedFile::start(&self.program, &self.path, BYTES_MAX);
            self.ways = Some(Ways { handles: [one?, two?, three?, four?], mapped });
        }
        Ok(self.ways.as_mut().expect("it was just made"))
    }

    fn apply(&mut self, operation: Operation) -> Result<(), String> {
        let mut data = fastrand::Rng::with_seed(self.seed ^ (self.done.len() as u64) << 32);
        let mut fresh = |bytes: usize| {
            let mut fresh = vec![0; bytes];
            data.fill(&mut fresh);
            fresh
        };
        let length = self.model.len();
        let ways = self.ways()?;
        match operation {
            Operation::Write { by, at, bytes } => {
                let fresh = fresh(bytes);
                ways.handles[by].write_all_at(&fresh, at as u64).map_err(|error| error.to_string())?;
                self.put(at, &fresh);
            }
            Operation::DirectWrite { at, bytes } => {
                let fresh = fresh(bytes);
                ways.handles[DIRECT].write_all_at(&fresh, at as u64).map_err(|error| error.to_string())?;
                self.put(at, &fresh);
            }
            Operation::Append { bytes } => {
                let fresh = fresh(bytes);
                std::io::Write::write_all(&mut &ways.handles[APPENDS], &fresh)
                    .map_err(|error| error.to_string())?;
                self.put(length, &fresh);
            }
            Operation::MapWrite { at, bytes } => {
                let fresh = fresh(bytes);
                ways.mapped.write(at, &fresh)?;
                self.put(at, &fresh);
            }
            Operation::Read { by, at, bytes } => {
                let found = read(&ways.handles[by], at, bytes)?;
                self.compare_read(at, bytes, &found)?;
            }
            Operation::DirectRead { at, bytes } => {
                let found = read(&ways.handles[DIRECT], at, bytes)?;
                self.compare_read(at, bytes, &found)?;
            }
            Operation::MapRead { at, bytes } => {
                let found = ways.mapped.read(at, bytes)?;
                self.compare_read(at, bytes, &found)?;
            }
            Operation::MapSync { at, bytes } => ways.mapped.sync(at, bytes)?,
            Operation::MapAgain => ways.mapped.map_again()?,
            Operation::Copy { from, to, bytes } => {
                copy(&ways.handles, from, to, bytes)?;
                let copied = self.model[from..from + bytes].to_vec();
                self.put(to, &copied);
            }
            Operation::Resize { to } => {
                ways.handles[0].set_len(to as u64).map_err(|error| error.to_string())?;
                self.model.resize(to, 0);
            }
            Operation::Empty => {
                drop(
                    OpenOptions::new()
                        .write(true)
                        .truncate(true)
                        .open(&self.path)
                        .map_err(|error| error.to_string())?,
                );
                self.model.clear();
            }
            Operation::Extend { at, bytes } => {
                allocate(&ways.handles[0], FallocateFlags::empty(), at, bytes)
                    .map_err(|error| error.to_string())?;
                self.model.resize(length.max(at + bytes), 0);
            }
            Operation::Punch { at, bytes } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let punched = allocate(&ways.handles[0], flags, at, bytes);
                if punched != Err(Errno::OPNOTSUPP) {
                    return Err(format!("a hole was punched: {punched:?}"));
                }
            }
            Operation::Sync { by: 0 } => ways.handles[0].sync_all().map_err(|error| error.to_string())?,
            Operation::Sync { by } => ways.handles[by].sync_data().map_err(|error| error.to_string())?,
            Operation::Reopen { which } => {
                let opened = open(&self.path, which)?;
                self.ways()?.handles[which] = opened;
            }
            Operation::CloseAll => self.ways = None,
            Operation::Forget => {
                rustix::fs::fadvise(&ways.handles[0], 0, None, Advice::DontNeed)
                    .map_err(|error| error.to_string())?;
            }
            Operation::Whole => {
                let found = fs::read(&self.path).map_err(|error| error.to_string())?;
                self.compare_read(0, BYTES_MAX, &found)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, at: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.model.resize(self.model.len().max(at + data.len()), 0);
        self.model[at..at + data.len()].copy_from_slice(data);
    }

    /// A read of `bytes` at `at` gets all that is there.
    fn compare_read(&self, at: usize, bytes: usize, found: &[u8]) -> Result<(), String> {
        let due = self.model.len().min(at + bytes).saturating_sub(at);
        if found.len() != due {
            return Err(format!("a read of {bytes} bytes at {at} answered {} of {due}", found.len()));
        }
        self.compare(at, found)
    }

    fn compare(&self, at: usize, found: &[u8]) -> Result<(), String> {
        let due = self.model[at.min(self.model.len())..].iter();
        match found.iter().zip(due).position(|(found, due)| found != due) {
            None => Ok(()),
            Some(place) => {
                let place = at + place;
                let mut told = format!(
                    "byte {place} is {:#04x} and should be {:#04x}; it was touched by\n",
                    found[place - at],
                    self.model[place]
                );
                let touched = self.done.iter().enumerate().filter(|(_, it)| it.touches(place));
                for (step, operation) in touched.rev().take(SHOWN) {
                    writeln!(told, "  step {step}: {operation:?}").unwrap();
                }
                Err(told)
            }
        }
    }

    fn check_length(&self) -> Result<(), String> {
        let shown = fs::metadata(&self.path).map_err(|error| error.to_string())?.len();
        match shown == self.model.len() as u64 {
            true => Ok(()),
            false => Err(format!("its length is {shown} and should be {}", self.model.len())),
        }
    }

    /// What is wrong, with all that a person needs to see it again.
    fn tell(&self, wrong: &str) -> String {
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fsx-{}.operations", self.seed));
        let lines: String =
            self.done.iter().enumerate().map(|(step, it)| format!("{step}: {it:?}\n")).collect();
        fs::write(&log, lines).unwrap();
        format!(
            "seed {}, step {}: {wrong}\nall operations: {}\nagain: NOVA_SEED={} NOVA_FSX_SEEDS=1 NOVA_FSX_STEPS={}",
            self.seed,
            self.done.len() - 1,
            log.display(),
            self.seed,
            self.done.len()
        )
    }
}

fn read(file: &File, at: usize, bytes: usize) -> Result<Vec<u8>, String> {
    let mut found = vec![0; bytes];
    let mut count = 0;
    while count < bytes {
        let got = file.read_at(&mut found[count..], (at + count) as u64);
        match got.map_err(|error| format!("read {bytes} bytes at {at}: {error}"))? {
            0 => break,
            got => count += got,
        }
    }
    found.truncate(count);
    Ok(found)
}

fn copy(handles: &[File], from: usize, to: usize, bytes: usize) -> Result<(), String> {
    let (mut from, mut to, mut left) = (from as u64, to as u64, bytes);
    while left > 0 {
        let copied =
            rustix::fs::copy_file_range(&handles[0], Some(&mut from), &handles[1], Some(&mut to), left);
        match copied.map_err(|error| format!("copy_file_range: {error}"))? {
            0 => return Err(format!("copy_file_range stopped {left} bytes before its end")),
            count => left -= count,
        }
    }
    Ok(())
}

fn allocate(file: &File, flags: FallocateFlags, at: usize, bytes: usize) -> Result<(), Errno> {
    rustix::fs::fallocate(file, flags, at as u64, bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::super::mapped_file;
    use super::*;

    fn exercise(folder: &Path) -> Exercise {
        Exercise::new(7, folder.join("file"), mapped_file::build(folder))
    }

    #[test]
    fn a_byte_that_is_wrong_is_told_with_what_touched_it() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut made = exercise(folder.path());
        made.done.push(Operation::Write { by: 0, at: 100, bytes: 50 });
        made.apply(Operation::Write { by: 0, at: 100, bytes: 50 }).unwrap();
        made.done.push(Operation::MapWrite { at: 120, bytes: 5 });
        made.apply(Operation::MapWrite { at: 120, bytes: 5 }).unwrap();
        assert_eq!(made.check_length(), Ok(()));
        assert_eq!(made.apply(Operation::Whole), Ok(()));
        made.model[122] ^= 1;
        let told = made.apply(Operation::Whole).unwrap_err();
        assert!(told.contains("byte 122 ") && told.contains("MapWrite") && told.contains("step 0"), "{told}");
        made.model[122] ^= 1;
        made.model.push(0);
        assert!(made.check_length().is_err() && made.apply(Operation::Whole).is_err());
        assert!(made.tell("x").contains("NOVA_SEED=7"));
    }
}
