//! `nova bulk copy`: files and folders from one side to the other.

mod meter;

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use futures_lite::future::or;
use nova_device::{Clock as _, Shard as _};
use nova_shard::RealShard;
use novabulk_copy::files::{Name, Orders};
use novabulk_copy::{Counts, Door, End, Folder, Host, HostOptions, Job, Source, Tally};
use novabulk_tls::TlsCounters;
use serde::Serialize;

use crate::exit::{Kind, Stop};
use crate::interrupt::Interrupt;
use crate::place::{self, Place};
use crate::serve::parse_size;
use crate::{Global, identity, machine, output};

use meter::Meter;

/// Between two looks at how far the copy is.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What failed is shown one by one up to this many.
const SHOWN_MAX: usize = 20;

/// What to copy, and how.
#[derive(Args, Debug)]
pub(crate) struct Copy {
    /// Copy only files that match a pattern: `*.jpg`, or `2026/*/*.jpg` below the source. May be repeated.
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Leave out what matches a pattern, folders with all below them. May be repeated.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Remove from folders that are copied what their source does not have, when all else has succeeded.
    #[arg(long)]
    delete: bool,
    /// Compare files of the same length by digest, not by the time of change.
    #[arg(long)]
    checksum: bool,
    /// Connections for data.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    streams: u8,
    /// Bytes a second at most, as 500K or 10M.
    #[arg(long, value_name = "RATE", value_parser = parse_size)]
    limit: Option<u64>,
    /// What to copy, then where to.
    #[arg(required = true, num_args = 2.., value_names = ["SOURCE", "TARGET"])]
    paths: Vec<String>,
}

/// The result.
#[derive(Debug, Serialize)]
struct View {
    files: u64,
    bytes: u64,
    same: u64,
    removed: u64,
    skipped: u64,
    failed: u64,
    bytes_sent: u64,
    bytes_resumed: u64,
    blocks_repaired: u64,
    bytes_sealed: u64,
    bytes_opened: u64,
    bytes_copied: u64,
    dry_run: bool,
    seconds: f64,
}

/// Where a copy begins and where it goes.
struct Sides {
    source: Side,
    target: Side,
    job: Job,
    /// How a remote side is reached, when there is one.
    door: Option<Door>,
}

enum Side {
    Here,
    There(std::net::SocketAddr),
}

pub(crate) fn run(global: &Global, copy: Copy) -> anyhow::Result<()> {
    let mut sides = sides(&copy)?;
    if [&sides.source, &sides.target].iter().any(|side| matches!(side, Side::There(_))) {
        sides.door = Some(Door::new(identity::read(global)?).context("take memory for TLS")?);
    }
    let interrupt = Interrupt::listen().context("listen for signals")?;
    let begun = Instant::now();
    let (counts, failures, removals) =
        machine::run("bulk-copy", machine::copy_bytes(copy.streams), async |shard| {
            let tally = Rc::new(Tally::new(&shard));
            let done = drive(&shard, global, &sides, &tally, &interrupt).await;
            done.map(|()| (tally.counts(), tally.failures(), tally.removals()))
        })?;
    let wire = sides.door.as_ref().map(Door::counters).unwrap_or_default();
    let view = View::new(&counts, wire, copy.dry_run, begun.elapsed());
    if copy.dry_run && !global.json {
        removals.iter().for_each(|name| eprintln!("nova bulk: would remove {name}"));
    }
    output::print(global.json, &view, View::text)?;
    failures.iter().take(SHOWN_MAX).for_each(|failure| eprintln!("nova bulk: {failure}"));
    match counts.failed {
        0 => Ok(()),
        count => {
            Err(Stop::error(Kind::Failed, format!("{count} failed; run the same command again for those")))
        }
    }
}

/// Copies, shows how far it is, and ends early when asked to.
async fn drive(
    shard: &RealShard,
    global: &Global,
    sides: &Sides,
    tally: &Rc<Tally>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let copying = async { Some(carry_out(shard, sides, tally).await) };
    let mut meter = Meter::new(global);
    let watching = async {
        loop {
            shard.clock().sleep_until(shard.clock().now() + LOOK_EVERY).await;
            meter.show(tally);
        }
    };
    let stopping = async {
        let asked = interrupt.asked(shard).await;
        tally.stop();
        asked.ok();
        None
    };
    match or(or(copying, stopping), watching).await {
        Some(done) => done,
        None => {
            let text = "interrupted; run the same command again, and it goes on where it was";
            Err(Stop::error(Kind::Unavailable, text))
        }
    }
}

async fn carry_out(shard: &RealShard, sides: &Sides, tally: &Rc<Tally>) -> anyhow::Result<()> {
    let streams = sides.job.orders.streams;
    let end = |side: &Side| match side {
        Side::Here => {
            let root = Folder::open(Path::new("/")).context("open /")?;
            let host = Host::new(shard.clone(), root, HostOptions::default(), sides.door.clone());
            Ok::<_, anyhow::Error>(End::Here(host))
        }
        Side::There(address) => {
            let door = sides.door.as_ref().expect("made when a side is remote");
            Ok(door.dial(shard, *address, streams))
        }
    };
    let source = end(&sides.source)?;
    if let (Side::There(_), Side::There(address)) = (&sides.source, &sides.target) {
        return Ok(novabulk_copy::relay(shard, &source, *address, &sides.job, tally).await?);
    }
    let target = end(&sides.target)?;
    Ok(novabulk_copy::copy(shard, &source, &target, &sides.job, tally).await?)
}

/// Understands the command line.
fn sides(copy: &Copy) -> anyhow::Result<Sides> {
    let (target, sources) = copy.paths.split_last().expect("clap asks for two");
    let orders = Orders {
        checksum: copy.checksum,
        dry_run: copy.dry_run,
        delete: copy.delete,
        streams: copy.streams,
        bytes_per_second: copy.limit.unwrap_or(0),
        include: copy.include.clone(),
        exclude: copy.exclude.clone(),
    };
    let (source, sources) = sources_of(sources)?;
    let (target, name, into) = target_of(target)?;
    Ok(Sides { source, target, job: Job { sources, target: name, into, orders }, door: None })
}

fn sources_of(texts: &[String]) -> anyhow::Result<(Side, Vec<Source>)> {
    let mut side: Option<Option<std::net::SocketAddr>> = None;
    let mut sources = Vec::new();
    for text in texts {
        let (at, source) = match place::parse(text)? {
            Place::Here(path) => (None, local_source(text, &path)?),
            Place::There { address, name, is_folder } => (Some(address), Source { name, content: is_folder }),
        };
        if *side.get_or_insert(at) != at {
            return Err(Stop::usage("all sources of one copy are at the same host: run a copy for each"));
        }
        sources.push(source);
    }
    let side = side.flatten().map_or(Side::Here, Side::There);
    Ok((side, sources))
}

fn local_source(text: &str, path: &Path) -> anyhow::Result<Source> {
    let stat = path.symlink_metadata().map_err(|error| {
        Stop::error(Kind::NotFound, format!("{text}: {error}; check the name of the source"))
    })?;
    let last = path.file_name();
    let content = (text.ends_with('/') || last.is_none()) && path.is_dir();
    // `dir/` of a link to a folder means the folder.
    let resolved = if content || (stat.is_dir() && last.is_none()) {
        path.canonicalize().with_context(|| text.to_owned())?
    } else {
        PathBuf::from(path)
    };
    Ok(Source { name: place::name_of(&resolved)?, content })
}

/// Where the copy goes, and whether that is a folder whatever is there.
fn target_of(text: &str) -> anyhow::Result<(Side, Name, bool)> {
    match place::parse(text)? {
        // A link to a folder means the folder.
        Place::Here(path) if path.is_dir() => Ok((Side::Here, place::name_of(&path.canonicalize()?)?, true)),
        Place::Here(path) => Ok((Side::Here, place::name_of(&path)?, text.ends_with('/'))),
        Place::There { address, name, is_folder } => Ok((Side::There(address), name, is_folder)),
    }
}

impl View {
    fn new(counts: &Counts, wire: TlsCounters, dry_run: bool, elapsed: Duration) -> Self {
        Self {
            files: if dry_run { counts.files_total } else { counts.files },
            bytes: if dry_run { counts.bytes_total } else { counts.bytes },
            same: counts.same,
            removed: counts.removed,
            skipped: counts.skipped,
            failed: counts.failed,
            bytes_sent: counts.bytes_sent,
            bytes_resumed: counts.bytes_resumed,
            blocks_repaired: counts.repaired,
            bytes_sealed: wire.bytes_sealed,
            bytes_opened: wire.bytes_opened,
            bytes_copied: wire.bytes_copied,
            dry_run,
            seconds: (elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
        }
    }

    fn text(&self) -> String {
        let would = if self.dry_run { "would copy " } else { "" };
        let mut text = format!("{would}{} files, {}", self.files, output::bytes(self.bytes));
        if !self.dry_run {
            text.push_str(&format!(" in {:.1} s", self.seconds));
            if self.seconds > 0.0 {
                let rate = Duration::from_secs_f64(self.seconds).as_micros().max(1);
                let rate = u128::from(self.bytes_sent) * 1_000_000 / rate;
                text.push_str(&format!(" ({}/s)", output::bytes(u64::try_from(rate).unwrap_or(u64::MAX))));
            }
        }
        for (count, what) in [
            (self.same, "the same already"),
            (self.removed, "removed"),
            (self.skipped, "special files skipped"),
            (self.blocks_repaired, "blocks sent again"),
        ] {
            if count > 0 {
                text.push_str(&format!("; {count} {what}"));
            }
        }
        if self.bytes_resumed > 0 {
            text.push_str(&format!("; {} from an earlier attempt", output::bytes(self.bytes_resumed)));
        }
        text.push('\n');
        if self.bytes_sealed > 0 {
            let [sealed, opened, copied] =
                [self.bytes_sealed, self.bytes_opened, self.bytes_copied].map(output::bytes);
            text.push_str(&format!("TLS: {sealed} sealed, {opened} opened, {copied} copied beside\n"));
        }
        text
    }
}
