//! Ceph without a file system: the same OSDs, and objects by `rados bench`. What stands beside a file of ours is as many
//! bytes in objects, without names in folders and without a mount.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::ceph;
use super::rig::Rig;
use crate::rows::{CREATE, RANDOM, READ, SMALL_BYTES, Stage, WRITE};

/// Programs it consists of.
pub(super) const PROGRAMS: &[&str] = &["ceph", "ceph-mon", "ceph-mgr", "ceph-osd", "monmaptool", "rados"];
/// Size of a large object: what Ceph's file system and its block devices cut their data into.
const OBJECT_BYTES: u64 = 4 << 20;
/// Large requests on their way at once, which is what `rados bench` does when it is not told.
const IN_FLIGHT: u64 = 16;
/// Longer than any row may take: rows that write end by what they have written.
const SECONDS_MAX: u64 = 3600;

/// Starts it; the rows will write `written_mib` MiB in all.
pub(super) fn up(rig: &mut Rig, written_mib: u64) -> Result<()> {
    let config = ceph::start_cluster(rig, written_mib)?;
    ceph::wait_for_copies(rig, &config)
}

/// What `run` reads has to be there, and is written outside of the clock.
pub(super) fn prepare(rig: &mut Rig, beside: &str, stage: &Stage, round: u32) -> Result<()> {
    if beside == RANDOM {
        let objects = stage.large_bytes / SMALL_BYTES;
        bench(rig, "write", &random(round), Some((SMALL_BYTES, objects)), stage.readers * 4, SECONDS_MAX)?;
    }
    Ok(())
}

/// Does the row that stands beside the one of ours; answers bytes, operations, and the time that `rados` says: it stays
/// for up to a second after its work, until it may print the next line.
pub(super) fn run(rig: &mut Rig, beside: &str, stage: &Stage, round: u32) -> Result<(u64, u64, Duration)> {
    let (large, small) = (format!("large-{round}"), format!("small-{round}"));
    let objects = (stage.large_bytes * stage.large.len() as u64).div_ceil(OBJECT_BYTES);
    let files = stage.small.len() as u64;
    // It begins with as many requests as may be on their way, also when there are fewer objects.
    let many = IN_FLIGHT.min(objects);
    let (wanted, object_bytes, done) = match beside {
        WRITE => {
            let sizes = Some((OBJECT_BYTES, objects));
            (objects, OBJECT_BYTES, bench(rig, "write", &large, sizes, many, SECONDS_MAX)?)
        }
        READ => (objects, OBJECT_BYTES, bench(rig, "seq", &large, None, many, SECONDS_MAX)?),
        RANDOM => (1, SMALL_BYTES, bench(rig, "rand", &random(round), None, stage.readers, stage.seconds)?),
        CREATE => {
            let sizes = Some((SMALL_BYTES, files));
            (files, SMALL_BYTES, bench(rig, "write", &small, sizes, IN_FLIGHT, SECONDS_MAX)?)
        }
        other => bail!("rados has nothing beside '{other}'"),
    };
    ensure!(done.requests >= wanted, "{} requests of {wanted} were made", done.requests);
    let bytes = done.requests * object_bytes;
    // A sequential read of ours counts MiB.
    let operations = if beside == READ { bytes >> 20 } else { done.requests };
    Ok((bytes, operations, done.took))
}

fn random(round: u32) -> String {
    format!("random-{round}")
}

/// Runs `rados bench` with `in_flight` requests at once; answers what was done. `objects` are their size and number.
fn bench(
    rig: &mut Rig,
    what: &str,
    name: &str,
    objects: Option<(u64, u64)>,
    in_flight: u64,
    seconds: u64,
) -> Result<Done> {
    let config = rig.path("ceph.conf");
    let (seconds, in_flight) = (seconds.to_string(), in_flight.to_string());
    let mut words = vec!["rados", "-c", &config, "-p", "data", "bench", &seconds, what, "-t", &in_flight];
    words.extend(["--run-name", name]);
    let sizes = objects.map(|(bytes, count)| (bytes.to_string(), count.to_string()));
    match &sizes {
        Some((bytes, count)) => words.extend(["-b", bytes, "--max-objects", count, "--no-cleanup"]),
        // Ours has no second look at what it read either.
        None => words.push("--no-verify"),
    }
    let said = rig.work(&words)?;
    Done::read(&said).with_context(|| format!("rados bench does not say what it did: {}", said.trim()))
}

/// What `rados bench` says at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Done {
    requests: u64,
    took: Duration,
}

impl Done {
    /// Reads the lines `Total time run: 1.5` and `Total writes made: 25`, or that of reads.
    fn read(said: &str) -> Option<Self> {
        let total = |what: &str| {
            let line = said.lines().find(|line| line.starts_with("Total ") && line.contains(what))?;
            Some(line.split_once(':')?.1.trim())
        };
        let took = Duration::try_from_secs_f64(total(" run:")?.parse().ok()?).ok()?;
        Some(Self { requests: total(" made:")?.parse().ok()?, took })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_read_out_of_what_rados_says() {
        let said =
            "Total time run:         1.5\nTotal writes made:      25\nWrite size:             4194304\n";
        let took = Duration::from_millis(1500);
        assert_eq!(Done::read(said), Some(Done { requests: 25, took }));
        assert_eq!(Done::read(&said.replace("writes", "reads")), Done::read(said));
        assert_eq!(Done::read("error during benchmark\n"), None);
    }
}
