//! A run: rows, and in each of them rounds in which every program has its turn.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nova_measure::recipe::Recipe;
use nova_measure::rounds::turns;
use nova_measure::work;
use nova_path::interrupt::Interrupt;

use crate::Arguments;
use crate::end::{End, Side};
use crate::figure::{Table, Work};
use crate::link::{ADDRESSES, Link};
use crate::peer::{self, Kit, Task};
use crate::set::{Kind as SetKind, Set};

/// Memory or disk beside the sets and a copy of one: settings, logs, lists.
const SPARE_MIB: u64 = 64;

/// A folder that is a file system in memory, or on a disk; removed when dropped.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    in_memory: bool,
}

impl Place {
    fn new(arguments: &Arguments, mib: u64) -> Result<Self> {
        let place = Self { path: arguments.place(), in_memory: arguments.folder.is_none() };
        fs::create_dir_all(&place.path).with_context(|| format!("create {}", place.path.display()))?;
        if place.in_memory {
            let free = free_memory_mib()?;
            ensure!(
                mib <= free,
                "this needs {mib} MiB of memory, and {free} are free: take less, or give --folder"
            );
            let options = format!("size={mib}M,mode=700");
            let status = std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "novabench"])
                .arg(&place.path)
                .status();
            ensure!(status.context("run mount")?.success(), "mount a file system in memory");
        } else {
            let stat = rustix::fs::statvfs(&place.path).context("look at the folder")?;
            let free = (stat.f_bavail * stat.f_frsize) >> 20;
            ensure!(mib <= free, "{} has {free} MiB free, and this needs {mib}", place.path.display());
        }
        Ok(place)
    }

    fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.in_memory {
            // The mounts of this process go with it in any case.
            let _ = std::process::Command::new("umount").arg(&self.path).status();
            let _ = fs::remove_dir(&self.path);
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("transfer: {} stays: {error}", self.path.display());
        }
    }
}

fn free_memory_mib() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib >> 10).context("/proc/meminfo has no MemAvailable")
}

/// All that a transfer is made with.
struct Bench<'a> {
    /// First: what runs is ended before its files go.
    ends: [End; 2],
    kit: Kit,
    recipes: BTreeMap<peer::Kind, Recipe>,
    place: Place,
    limit: Duration,
    interrupt: &'a Interrupt,
}

/// Measures all rows; the table, and how everything was set up.
pub(crate) fn run(arguments: &Arguments, bins: &Path, interrupt: &Interrupt) -> Result<(Table, Vec<Recipe>)> {
    let rows = arguments.all_rows();
    let mut peers = vec![peer::Kind::Nova];
    peers.extend(&arguments.peers);
    peers.sort_unstable();
    peers.dedup();
    let mut kinds: Vec<SetKind> = rows.iter().map(|row| row.set).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let rooms = kinds.iter().map(|&kind| arguments.amount.room_mib(kind));
    // A copy beside the sources; some write a temporary file first.
    let mib = rooms.clone().sum::<u64>() + rooms.max().unwrap_or_default() * 2 + SPARE_MIB;
    let place = Place::new(arguments, mib)?;
    let source = place.make("source")?;
    let sets: BTreeMap<SetKind, Set> = kinds
        .into_iter()
        .map(|kind| Ok((kind, Set::make(kind, &arguments.amount, &source, interrupt)?)))
        .collect::<Result<_>>()?;
    let kit = Kit::new(&place.make("kit")?, bins, arguments.streams, &peers)?;
    let recipes = peers.iter().map(|&peer| Ok((peer, kit.recipe(peer, &place.path)?)));
    let recipes = recipes.collect::<Result<BTreeMap<_, _>>>()?;
    let ends = [End::new("sender", ADDRESSES[0])?, End::new("receiver", ADDRESSES[1])?];
    let mut about = Recipe::new("link", &place.path);
    let link = Link::join(&ends, arguments.delay.is_some())?;
    tune(&ends, arguments, &mut about)?;
    let limit = Duration::from_secs(arguments.limit);
    let mut bench = Bench { ends, kit, recipes, place, limit, interrupt };
    let mut table = Table::default();
    for row in rows {
        link.set(&bench.ends, row.rate, row.length, &mut about).with_context(|| format!("set up {row}"))?;
        table.begin(row);
        let set = sets.get(&row.set).context("every set of a row was made")?;
        let able: Vec<peer::Kind> = peers.iter().copied().filter(|peer| peer.takes(row.set)).collect();
        for round in 0..arguments.rounds {
            for turn in turns(round, able.len()) {
                let peer = able[turn];
                if table.was_cut(peer) {
                    continue;
                }
                let work = bench.transfer(peer, set).with_context(|| format!("{row}: {}", peer.name()))?;
                eprintln!("{row}: round {}: {}: {work}", round + 1, peer.name());
                table.note(peer, work);
            }
        }
        if let Some(ways) = link.counts() {
            for (way, counts) in ["there", "back"].into_iter().zip(ways) {
                eprintln!("{row}: the line {way}: {counts:?}");
            }
        }
    }
    let mut recipes: Vec<Recipe> = bench.recipes.values().cloned().collect();
    recipes.push(about);
    Ok((table, recipes))
}

/// Sets what the kernels of the ends do with all connections alike, and notes what they do.
fn tune(ends: &[End; 2], arguments: &Arguments, about: &mut Recipe) -> Result<()> {
    for end in ends {
        if let Some(name) = &arguments.congestion {
            end.set("ipv4/tcp_congestion_control", name).with_context(|| {
                format!(
                    "namespaces may have what net.ipv4.tcp_allowed_congestion_control names: is {name} in it?"
                )
            })?;
        }
        if let Some(mib) = arguments.socket_mib {
            let bytes = u64::from(mib) << 20;
            end.set("ipv4/tcp_rmem", &format!("4096 131072 {bytes}"))?;
            end.set("ipv4/tcp_wmem", &format!("4096 16384 {bytes}"))?;
        }
    }
    let mut text = String::new();
    for key in ["tcp_congestion_control", "tcp_rmem", "tcp_wmem"] {
        text += &format!("net.ipv4.{key} = {}\n", ends[0].setting(&format!("ipv4/{key}"))?);
    }
    about.note_settings("both ends", &text);
    Ok(())
}

impl Bench<'_> {
    /// One transfer into an empty folder, compared with its source when it came to its end.
    fn transfer(&mut self, peer: peer::Kind, set: &Set) -> Result<Work> {
        self.interrupt.check()?;
        let target = self.place.make("target")?;
        let outcome = self.transfer_into(peer, Task { set, target: &target });
        for end in &mut self.ends {
            end.clear()?;
        }
        let work = outcome?;
        if !work.cut && peer.copies() {
            set.check(&target.join(set.kind.name()), self.interrupt)?;
        }
        fs::remove_dir_all(&target).with_context(|| format!("remove {}", target.display()))?;
        Ok(work)
    }

    fn transfer_into(&mut self, peer: peer::Kind, task: Task<'_>) -> Result<Work> {
        let recipe = self.recipes.get_mut(&peer).context("every peer has a recipe")?;
        let plan = self.kit.plan(peer, task, recipe)?;
        for words in [&plan.server, &plan.client] {
            // Where a program is says nothing.
            let name = words[0].rsplit('/').next().unwrap_or_default();
            let rest = words[1..].iter().map(String::as_str);
            recipe.note_command(&std::iter::once(name).chain(rest).collect::<Vec<_>>());
        }
        let log = |name: &str| self.place.path.join(name);
        let (server, client) = match plan.server_at {
            Side::Sender => (0, 1),
            Side::Receiver => (1, 0),
        };
        self.ends[server].start(&plan.server, plan.port, &log("server.log"), self.interrupt)?;
        let before = [self.ends[0].used()?, self.ends[1].used()?];
        let begun = Instant::now();
        let mut command = self.ends[client].command(&plan.client);
        let done = work::run(&mut command, &log("client.log"), self.limit, self.interrupt)?;
        let mut cut = done.status.is_none();
        if let Some(status) = done.status {
            let server = fs::read_to_string(log("server.log")).unwrap_or_default();
            ensure!(status.success(), "it ended with {status}: {} {}", done.said.trim(), server.trim());
        }
        if plan.server_ends && !cut {
            let ended = self.ends[server].wait_for_server(begun + self.limit, self.interrupt)?;
            ensure!(ended.is_none_or(|status| status.success()), "its server ended with {ended:?}");
            cut = ended.is_none();
        }
        let took = match peer::told_time(peer, &done.said) {
            Some(told) if !cut => told,
            _ => begun.elapsed(),
        };
        let [sender, receiver] = [self.ends[0].used()?, self.ends[1].used()?];
        Ok(Work {
            bytes: task.set.bytes,
            files: task.set.count(),
            took,
            sender: sender.saturating_sub(before[0]),
            receiver: receiver.saturating_sub(before[1]),
            cut,
        })
    }
}
