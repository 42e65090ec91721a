//! The block layer against `fio` on the same file, in turns: operations a second, bytes a second, processor time per
//! operation, and their ratios, a JSON line for each pattern.
//!
//! `fio` runs with io_uring, registered buffers and a registered file, which is the most it has for one thread. Where it
//! is not installed nothing is measured, for a figure without its peer says nothing on a shared machine.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use nova_device::sync::join_all;
use nova_device::uring::{CreateOptions, create_disk};
use nova_device::{Disk, Durability, Position, Shard};
use nova_shard::{RealShard, ShardOptions};
use nova_units::{DiskIndex, IoClass};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Requests on their way at once, here and in `fio`.
const DEPTH: usize = 32;

/// Measures the block layer beside fio.
#[derive(Debug, Parser)]
#[command(name = "block", version, after_help = "Example:\n  block --folder /var/tmp --seconds 3 --rounds 3")]
struct Arguments {
    /// A folder on the disk to be measured; a file is made there and removed.
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// Size of that file in MiB.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    mib: u64,
    /// How long each pattern runs in each round, for each of the two.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds; who begins alternates.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// What is done to the device.
#[derive(Clone, Copy, Debug)]
struct Pattern {
    name: &'static str,
    bytes: usize,
    writes: bool,
    random: bool,
}

const PATTERNS: [Pattern; 4] = [
    Pattern { name: "random read 4 KiB", bytes: 4 << 10, writes: false, random: true },
    Pattern { name: "random write 4 KiB", bytes: 4 << 10, writes: true, random: true },
    Pattern { name: "sequential read 1 MiB", bytes: 1 << 20, writes: false, random: false },
    Pattern { name: "sequential write 1 MiB", bytes: 1 << 20, writes: true, random: false },
];

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figure {
    operations_per_second: f64,
    /// Processor time of the whole process, in microseconds.
    processor_us_per_operation: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let fio = Command::new("fio").arg("--version").output();
    let version = fio.context("fio is not installed; on Debian: apt-get install fio")?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let scratch = Scratch(arguments.folder.join(format!("nova-block-{}.device", std::process::id())));
    create_disk(&scratch.0, CreateOptions { bytes: arguments.mib << 20 }, |_| {}).context("make the file")?;
    let slice = Duration::from_secs(arguments.seconds);
    // Blocks of a preallocated file are converted at their first write; neither side is to pay for that.
    ours(&scratch.0, PATTERNS[3], Duration::ZERO, arguments.mib << 20)?;
    for pattern in PATTERNS {
        let mut pairs = Vec::new();
        for round in 0..arguments.rounds {
            let (us, them) = if round % 2 == 0 {
                let them = theirs(&scratch.0, pattern, arguments.seconds)?;
                (ours(&scratch.0, pattern, slice, 0)?, them)
            } else {
                let us = ours(&scratch.0, pattern, slice, 0)?;
                (us, theirs(&scratch.0, pattern, arguments.seconds)?)
            };
            pairs.push((us, them));
        }
        println!("{}", line(pattern, &version, &pairs));
    }
    Ok(())
}

/// Removes the file however the run ends.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is ours and of no use to anyone; that it cannot be removed changes no figure.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn line(pattern: Pattern, version: &str, pairs: &[(Figure, Figure)]) -> Value {
    let median = |pick: &dyn Fn(&(Figure, Figure)) -> f64| {
        let mut values: Vec<f64> = pairs.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    json!({
        "bench": format!("block layer, {}", pattern.name),
        "depth": DEPTH,
        "rounds": pairs.len(),
        "operations_per_second": median(&|pair| pair.0.operations_per_second),
        "processor_us_per_operation": median(&|pair| pair.0.processor_us_per_operation),
        "peer": format!("{version}, io_uring, fixed buffers, registered file"),
        "peer_operations_per_second": median(&|pair| pair.1.operations_per_second),
        "peer_processor_us_per_operation": median(&|pair| pair.1.processor_us_per_operation),
        "rate_ratio": median(&|pair| pair.0.operations_per_second / pair.1.operations_per_second),
        "rate_ratio_wanted": 0.95,
        "processor_ratio": median(&|pair| pair.0.processor_us_per_operation / pair.1.processor_us_per_operation),
        "processor_ratio_wanted": 1.1,
    })
}

fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Runs a pattern through our disk for `slice`, and for at least `bytes_min`.
fn ours(path: &Path, pattern: Pattern, slice: Duration, bytes_min: u64) -> anyhow::Result<Figure> {
    let options = ShardOptions { disks: vec![path.to_owned()], ..ShardOptions::default() };
    let ended = nova_shard::run(options, async |shard| {
        let disk = shard.disk(DiskIndex(0));
        let slots = disk.bytes() / pattern.bytes as u64;
        let (next, done) = (Cell::new(0_u64), Cell::new(0_u64));
        let (begun, processor) = (Instant::now(), processor_time());
        let lanes = (0..DEPTH as u64)
            .map(|lane| work(&shard, pattern, slots, lane, &next, &done, begun + slice, bytes_min));
        for outcome in join_all(lanes).await {
            outcome?;
        }
        anyhow::Ok(figure(done.get(), begun.elapsed(), processor_time().saturating_sub(processor)))
    });
    ended.context("run a shard")?
}

#[expect(clippy::too_many_arguments, reason = "the shared state of one measurement")]
async fn work(
    shard: &RealShard,
    pattern: Pattern,
    slots: u64,
    lane: u64,
    next: &Cell<u64>,
    done: &Cell<u64>,
    until: Instant,
    bytes_min: u64,
) -> anyhow::Result<()> {
    let disk = shard.disk(DiskIndex(0));
    let mut rng = fastrand::Rng::with_seed(lane);
    let mut buffer = shard.pool().take(pattern.bytes).await;
    rng.fill(&mut buffer);
    let mut shared = None;
    if pattern.writes {
        shared = Some(buffer.freeze());
        buffer = shard.pool().take(4096).await;
    }
    while Instant::now() < until || next.get() * (pattern.bytes as u64) < bytes_min {
        let turn = next.replace(next.get() + 1);
        let slot = if pattern.random { rng.u64(..slots) } else { turn % slots };
        let at = Position(slot * pattern.bytes as u64);
        match &shared {
            Some(from) => disk.write(IoClass::Client, at, from.clone(), Durability::Cached).await?,
            None => {
                let (outcome, back) = disk.read(IoClass::Client, at, buffer).await;
                outcome?;
                buffer = back;
            }
        }
        done.set(done.get() + 1);
    }
    Ok(())
}

fn theirs(path: &Path, pattern: Pattern, seconds: u64) -> anyhow::Result<Figure> {
    let kind = match (pattern.random, pattern.writes) {
        (true, false) => "randread",
        (true, true) => "randwrite",
        (false, false) => "read",
        (false, true) => "write",
    };
    let output = Command::new("fio")
        .args([
            "--name=peer",
            "--ioengine=io_uring",
            "--direct=1",
            "--fixedbufs",
            "--registerfiles",
            "--thread",
        ])
        .args(["--time_based", "--norandommap", "--output-format=json"])
        .arg(format!("--filename={}", path.display()))
        .arg(format!("--rw={kind}"))
        .arg(format!("--bs={}", pattern.bytes))
        .arg(format!("--iodepth={DEPTH}"))
        .arg(format!("--runtime={seconds}"))
        .output()
        .context("run fio")?;
    ensure!(output.status.success(), "fio failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    let told: Value = serde_json::from_slice(&output.stdout).context("read what fio told")?;
    peer_figure(&told, pattern.writes).context("fio told nothing of its job")
}

/// The figure in fio's JSON: its job's operations, run time, and shares of user and system time.
fn peer_figure(told: &Value, writes: bool) -> Option<Figure> {
    let job = told.get("jobs")?.get(0)?;
    let way = job.get(if writes { "write" } else { "read" })?;
    let operations = way.get("total_ios")?.as_u64()?;
    let runtime = Duration::from_millis(way.get("runtime")?.as_u64()?);
    let share = (job.get("usr_cpu")?.as_f64()? + job.get("sys_cpu")?.as_f64()?) / 100.0;
    Some(figure(operations, runtime, runtime.mul_f64(share)))
}

fn figure(operations: u64, took: Duration, processor: Duration) -> Figure {
    #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
    let operations = operations.max(1) as f64;
    Figure {
        operations_per_second: operations / took.as_secs_f64().max(1e-9),
        processor_us_per_operation: processor.as_secs_f64() * 1e6 / operations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_s_figure_is_read_from_its_json() {
        let told = json!({"jobs": [{
            "usr_cpu": 10.0, "sys_cpu": 15.0,
            "read": {"total_ios": 200_000, "runtime": 2000}, "write": {"total_ios": 0, "runtime": 0},
        }]});
        let figure = peer_figure(&told, false).unwrap();
        assert!((figure.operations_per_second - 100_000.0).abs() < 1e-6);
        assert!((figure.processor_us_per_operation - 2.5).abs() < 1e-9);
        assert_eq!(peer_figure(&json!({"jobs": []}), true), None);
    }

    #[test]
    fn the_line_carries_the_median_of_the_ratios() {
        let of = |rate: f64| Figure { operations_per_second: rate, processor_us_per_operation: 1.0 };
        let pairs = [(of(90.0), of(100.0)), (of(100.0), of(100.0)), (of(300.0), of(100.0))];
        let line = line(PATTERNS[0], "fio-3", &pairs);
        assert_eq!(line["rate_ratio"], 1.0);
        assert_eq!(line["processor_ratio"], 1.0);
    }
}
