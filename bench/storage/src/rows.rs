//! What is measured: each row does some work through the client and says what it cost.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nova_path::region::Region;
use novafs_client::{Client, Progress, PutOptions, Source};
use rustix::time::{ClockId, clock_gettime};

use crate::figure::{Roles, Work};

/// Large files of the sequential rows.
pub(crate) const LARGE_FILES: u64 = 4;
/// Size of a small file, and of a random read.
pub(crate) const SMALL_BYTES: u64 = 4 << 10;
/// Random reads on their way at once, unless the command line says otherwise.
pub(crate) const READERS_DEFAULT: u64 = 16;
/// Unit size of the file that is read at random: a read then opens what it needs and no more.
const SMALL_UNIT_LOG2: u8 = 12;

/// Names of the rows.
pub(crate) const WRITE: &str = "write, 3 replicas, sealed, SHA-256";
pub(crate) const READ: &str = "sequential read, verified";
pub(crate) const RANDOM: &str = "random read 4 KiB";
pub(crate) const CREATE: &str = "durable creates of 4 KiB";
const READ_HERE: &str = "sequential read, verified, on a host with the data";
const RANDOM_HERE: &str = "random read 4 KiB, on a host with the data";

/// What a row is to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    /// Three-replica writes.
    Write { mb_per_server_cpu_s: f64, share_of_raw: f64 },
    /// Verified sequential reads.
    Read { mb_per_cpu_s: f64 },
    /// Small operations.
    Operations { per_server_cpu_s: f64 },
}

/// Where the program that asks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On a host without blocks: every byte comes over a socket.
    Compute,
    /// On a host with a replica of everything, as a task of a job is where its data are.
    Storage,
}

/// A row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    pub(crate) bar: Bar,
    pub(crate) run: fn(&Stage, &Client, &Region, u32) -> Result<Work>,
}

/// Rows in the order in which a round takes them: what one writes the next reads.
pub(crate) const ROWS: [Row; 6] = {
    const WRITES: Bar = Bar::Write { mb_per_server_cpu_s: 400.0, share_of_raw: 0.35 };
    const READS: Bar = Bar::Read { mb_per_cpu_s: 3000.0 };
    const RANDOMS: Bar = Bar::Operations { per_server_cpu_s: 60_000.0 };
    const CREATES: Bar = Bar::Operations { per_server_cpu_s: 4_000.0 };
    [
        Row { name: WRITE, place: Place::Compute, bar: WRITES, run: write_large },
        Row { name: READ, place: Place::Compute, bar: READS, run: read_large },
        Row { name: READ_HERE, place: Place::Storage, bar: READS, run: read_large },
        Row { name: RANDOM, place: Place::Compute, bar: RANDOMS, run: read_random },
        Row { name: RANDOM_HERE, place: Place::Storage, bar: RANDOMS, run: read_random },
        Row { name: CREATE, place: Place::Compute, bar: CREATES, run: create_small },
    ]
};

/// How much a round does.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Amount {
    /// MiB that the sequential rows move in each round.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(16..=65_536))]
    pub(crate) mib: u64,
    /// Files that the row of creates makes in each round.
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    pub(crate) files: u64,
    /// Seconds of the rows that have no end of their own, in each round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Random reads on their way at once, of every system.
    #[arg(long, default_value_t = READERS_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) readers: u64,
}

/// Inputs of the rows.
pub(crate) struct Stage {
    pub(crate) large: Vec<PathBuf>,
    pub(crate) small: Vec<PathBuf>,
    /// Length of each large file.
    pub(crate) large_bytes: u64,
    pub(crate) seconds: u64,
    /// Random reads on their way at once.
    pub(crate) readers: u64,
}

impl Stage {
    /// Makes the inputs in `folder`: bytes that nothing below can compress or share.
    pub(crate) fn prepare(folder: &Path, work: &Amount) -> Result<Self> {
        let &Amount { mib, files, seconds, readers } = work;
        let mut rng = fastrand::Rng::with_seed(mib);
        let mut make = |name: String, bytes: u64| -> Result<PathBuf> {
            let path = folder.join(name);
            let mut file = fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
            let mut piece = vec![0; 1 << 20];
            let mut left = bytes;
            while left > 0 {
                rng.fill(&mut piece);
                let count = left.min(1 << 20);
                file.write_all(&piece[..usize::try_from(count).expect("at most 1 MiB")])?;
                left -= count;
            }
            Ok(path)
        };
        let large_bytes = (mib << 20) / LARGE_FILES;
        let large =
            (0..LARGE_FILES).map(|file| make(format!("large-{file}"), large_bytes)).collect::<Result<_>>()?;
        let small =
            (0..files).map(|file| make(format!("small-{file}"), SMALL_BYTES)).collect::<Result<_>>()?;
        Ok(Self { large, small, large_bytes, seconds, readers })
    }
}

/// Does `work`, which answers bytes and operations, and notes what it cost on both sides.
fn costed(region: &Region, work: impl FnOnce() -> Result<(u64, u64)>) -> Result<Work> {
    let roles = || Ok::<_, anyhow::Error>(Roles::of(&region.processor_times()?));
    let (before, client, begun) = (roles()?, own_time(), Instant::now());
    let (bytes, operations) = work()?;
    let took = begun.elapsed();
    let roles = roles()?.since(before);
    Ok(Work {
        bytes,
        operations,
        took,
        servers: roles.sum(),
        roles,
        client: own_time().saturating_sub(client),
    })
}

/// Processor time of this program.
pub(crate) fn own_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn put(client: &Client, sources: &[PathBuf], folder: &str, options: &PutOptions) -> Result<(u64, u64)> {
    let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).unwrap_or("input").to_owned();
    let files: Vec<_> = sources
        .iter()
        .map(|path| Source { local: path.clone(), target: format!("{folder}/{}", name(path)) })
        .collect();
    let report = client.put(files.into_iter(), options, &Progress::default())?;
    if let Some((path, error)) = report.failures.into_iter().next() {
        return Err(anyhow::Error::new(error).context(format!("put {}", path.display())));
    }
    Ok((report.bytes, report.files))
}

fn write_large(stage: &Stage, client: &Client, region: &Region, round: u32) -> Result<Work> {
    let folder = format!("/hot/bench/large-{round}");
    costed(region, || put(client, &stage.large, &folder, &PutOptions::default()))
}

fn read_large(stage: &Stage, client: &Client, region: &Region, round: u32) -> Result<Work> {
    costed(region, || {
        let total = AtomicU64::new(0);
        thread::scope(|scope| {
            let readers: Vec<_> = (0..LARGE_FILES)
                .map(|file| {
                    let (client, total) = (&client, &total);
                    scope.spawn(move || -> Result<()> {
                        let path = format!("/hot/bench/large-{round}/large-{file}");
                        let bytes = client.read(&path, 0..u64::MAX, &mut io::sink(), &Progress::default())?;
                        total.fetch_add(bytes, Ordering::Relaxed);
                        Ok(())
                    })
                })
                .collect();
            readers.into_iter().try_for_each(|reader| reader.join().expect("a reader does not panic"))
        })?;
        let bytes = total.into_inner();
        ensure!(bytes == stage.large_bytes * LARGE_FILES, "{bytes} bytes came back");
        Ok((bytes, bytes >> 20))
    })
}

fn read_random(stage: &Stage, client: &Client, region: &Region, round: u32) -> Result<Work> {
    let folder = format!("/hot/bench/units-{round}");
    let options = PutOptions { unit_log2: Some(SMALL_UNIT_LOG2), ..PutOptions::default() };
    if client.stat(&folder).is_err() {
        put(client, &stage.large[..1], &folder, &options)?;
    }
    let resolved = client.resolve(&format!("{folder}/large-0"))?;
    let slots = stage.large_bytes / SMALL_BYTES;
    costed(region, || {
        let until = Instant::now() + Duration::from_secs(stage.seconds);
        let done = AtomicU64::new(0);
        thread::scope(|scope| {
            let readers: Vec<_> = (0..stage.readers)
                .map(|reader| {
                    let (client, resolved, done) = (&client, &resolved, &done);
                    scope.spawn(move || -> Result<()> {
                        let mut rng = fastrand::Rng::with_seed(u64::from(round) * stage.readers + reader);
                        while Instant::now() < until {
                            let at = rng.u64(..slots) * SMALL_BYTES;
                            let range = at..at + SMALL_BYTES;
                            let name = Path::new("a random read");
                            client.read_resolved(
                                resolved,
                                range,
                                &mut io::sink(),
                                name,
                                &Progress::default(),
                            )?;
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    })
                })
                .collect();
            readers.into_iter().try_for_each(|reader| reader.join().expect("a reader does not panic"))
        })?;
        let done = done.into_inner();
        Ok((done * SMALL_BYTES, done))
    })
}

fn create_small(stage: &Stage, client: &Client, region: &Region, round: u32) -> Result<Work> {
    let folder = format!("/hot/bench/small-{round}");
    costed(region, || put(client, &stage.small, &folder, &PutOptions::default()))
}
