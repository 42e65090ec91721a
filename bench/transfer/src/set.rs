//! What is copied: made from a seed, so that every run has the same files.

mod log;

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use nova_path::compare::{self, Pair};
use nova_path::interrupt::Interrupt;

/// The seed of all files.
const SEED: u64 = 20_270_105;
/// Bytes that are written at a time.
const CHUNK_BYTES: u64 = 1 << 20;
/// Small files of one folder.
const FOLDER_FILES: u64 = 200;
/// Small files have between 2^8 and 2^16 bytes, and as many between any two powers of two.
const SMALL_BITS: std::ops::Range<f64> = 8.0..16.0;

/// Which files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// One file that nothing can compress.
    Large,
    /// One file of a log, which is a quarter of it when compressed.
    Text,
    /// Many small files in many folders.
    Small,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Text => "text",
            Self::Small => "small",
        }
    }
}

/// How much of each.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Amount {
    /// MiB of the large file.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 16))]
    pub(crate) large_mib: u64,
    /// MiB of log text.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 16))]
    pub(crate) text_mib: u64,
    /// Small files: 12 KB on average.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) small_files: u64,
}

impl Amount {
    /// MiB that a set takes of memory or a disk, at most.
    pub(crate) fn room_mib(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Large => self.large_mib,
            Kind::Text => self.text_mib,
            // Two pages for what describes each, and its bytes.
            Kind::Small => ((self.small_files * (12 + 8)) >> 10) + 1,
        }
    }
}

/// A folder with the files of a set.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) kind: Kind,
    /// It is named as the kind.
    pub(crate) folder: PathBuf,
    /// Names below the folder.
    pub(crate) files: Vec<String>,
    pub(crate) bytes: u64,
}

impl Set {
    /// Makes the files in `above`.
    pub(crate) fn make(kind: Kind, amount: &Amount, above: &Path, interrupt: &Interrupt) -> Result<Self> {
        let folder = above.join(kind.name());
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let mut set = Self { kind, folder, files: Vec::new(), bytes: 0 };
        let mut rng = fastrand::Rng::with_seed(SEED);
        match kind {
            Kind::Large => set.write("file", amount.large_mib << 20, &mut rng, interrupt)?,
            Kind::Text => set.write("file", amount.text_mib << 20, &mut rng, interrupt)?,
            Kind::Small => {
                for number in 0..amount.small_files {
                    let folder = format!("{:04}", number / FOLDER_FILES);
                    if number % FOLDER_FILES == 0 {
                        fs::create_dir(set.folder.join(&folder))?;
                    }
                    let bits = SMALL_BITS.start + rng.f64() * (SMALL_BITS.end - SMALL_BITS.start);
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "at most 2^16"
                    )]
                    let bytes = bits.exp2() as u64;
                    set.write(&format!("{folder}/{number:07}"), bytes, &mut rng, interrupt)?;
                }
            }
        }
        Ok(set)
    }

    fn write(
        &mut self,
        name: &str,
        bytes: u64,
        rng: &mut fastrand::Rng,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let path = self.folder.join(name);
        let mut write = || -> Result<()> {
            let mut file = BufWriter::new(File::create_new(&path)?);
            let mut left = bytes;
            let mut chunk = Vec::new();
            while left > 0 {
                interrupt.check()?;
                let next = usize::try_from(left.min(CHUNK_BYTES))?;
                match self.kind {
                    Kind::Text => log::fill(&mut chunk, next, rng),
                    Kind::Large | Kind::Small => {
                        chunk.resize(next, 0);
                        rng.fill(&mut chunk);
                    }
                }
                file.write_all(&chunk)?;
                left -= next as u64;
            }
            file.flush()?;
            Ok(())
        };
        write().with_context(|| format!("write {}", path.display()))?;
        self.files.push(name.to_owned());
        self.bytes += bytes;
        Ok(())
    }

    pub(crate) fn count(&self) -> u64 {
        self.files.len() as u64
    }

    /// Error unless `copy` has the same files with the same bytes, and no others.
    pub(crate) fn check(&self, copy: &Path, interrupt: &Interrupt) -> Result<()> {
        let pairs =
            self.files.iter().map(|name| Pair { source: self.folder.join(name), copy: copy.join(name) });
        let found = compare::compare(&pairs.collect::<Vec<_>>(), interrupt)?;
        ensure!(
            found.different == 0,
            "{} of {} files differ from their source: {}",
            found.different,
            self.files.len(),
            found.described.join("; ")
        );
        let there = count_files(copy).with_context(|| format!("look through {}", copy.display()))?;
        ensure!(there == self.count(), "{there} files arrived where {} were sent", self.count());
        Ok(())
    }
}

fn count_files(folder: &Path) -> Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMOUNT: Amount = Amount { large_mib: 1, text_mib: 1, small_files: 300 };

    #[test]
    fn a_set_is_the_same_in_every_run_and_has_the_size_that_was_asked_for() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for kind in [Kind::Large, Kind::Text, Kind::Small] {
            let make = |folder: &Path| Set::make(kind, &AMOUNT, folder, &Interrupt::default()).unwrap();
            let (set, again) = (make(one.path()), make(two.path()));
            set.check(&again.folder, &Interrupt::default()).unwrap();
            match kind {
                Kind::Small => {
                    assert!((set.count(), set.bytes / 300 / 1000) >= (300, 6), "{} bytes", set.bytes)
                }
                _ => assert_eq!((set.count(), set.bytes), (1, 1 << 20)),
            }
        }
    }

    #[test]
    fn a_copy_with_a_wrong_byte_a_missing_file_or_one_too_many_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            Set::make(Kind::Small, &AMOUNT, &folder.path().join(name), &Interrupt::default()).unwrap()
        };
        let (set, copy) = (make("one"), make("two").folder);
        let check = || set.check(&copy, &Interrupt::default());
        let path = copy.join(&set.files[7]);
        let whole = fs::read(&path).unwrap();
        fs::write(copy.join("more"), "").unwrap();
        assert!(check().unwrap_err().to_string().contains("301 files arrived"));
        fs::remove_file(copy.join("more")).unwrap();
        let mut wrong = whole.clone();
        wrong[100] ^= 1;
        fs::write(&path, wrong).unwrap();
        assert!(check().unwrap_err().to_string().contains("1 of 300 files differ"));
        fs::remove_file(&path).unwrap();
        assert!(check().is_err());
        fs::write(&path, whole).unwrap();
        check().unwrap();
    }
}
