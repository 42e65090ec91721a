//! `nova fs fsck --deep`: every block of every file, unit by unit, on every member that should have it. Reads only.
//!
//! Metadata are read at one moment and members tell at another, so a block that differs is looked at twice: a difference
//! counts when it is there still, a while later, and the file has the block still.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use nova_api::cluster::member::Role;
use nova_units::BlockId;
use novafs_client::{Block, Client, ClientError, Entry, EntryKind, Trouble};
use serde::Serialize;

use super::block::{self, Difference, Kind};
use crate::arguments::Global;
use crate::cluster;
use crate::dev::region::Region;
use crate::exit::{self, Stop};
use crate::fs::path;
use crate::output;
use crate::progress::Meter;

/// Files that are compared at once: members answer from memory and disk, and a question is about 256 units.
const ASKING: usize = 8;
/// Files that wait for one of these.
const WAITING_MAX: usize = 256;
/// Blocks that differ at the first look and are looked at again; the rest is counted.
const SUSPECTS_MAX: usize = 100_000;
/// Between the two looks: commits reach every member.
const SETTLE: Duration = Duration::from_secs(2);
/// Findings that are shown to a person one by one; scripts get all.
const SHOWN_MAX: usize = 50;

/// What was compared and what differs.
#[derive(Debug, Default, Serialize)]
struct View {
    path: String,
    files: u64,
    bytes: u64,
    blocks: u64,
    /// Copies of blocks that members in sync told of.
    copies: u64,
    /// Blocks that differed at the first look and were too many for a second one: nothing is known of them.
    suspects_left_out: u64,
    findings: Vec<Finding>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Finding {
    kind: Kind,
    path: String,
    /// Null where it is about the file's map of blocks.
    block: Option<String>,
    group: Option<u32>,
    unit: Option<u32>,
    /// Null where all members agree.
    node: Option<u64>,
    host: Option<String>,
    detail: String,
}

/// Which members of each group count, and how hosts are called.
#[derive(Debug, Default)]
struct Members {
    in_sync: BTreeMap<u32, BTreeSet<u64>>,
    names: BTreeMap<u64, String>,
}

impl Members {
    fn of(region: &Region) -> anyhow::Result<Self> {
        let map = cluster::map_of(region)?;
        let in_sync = |group: nova_api::cluster::Group| {
            let counts = group.members.iter().filter(|member| member.role() == Role::InSync);
            (group.group, counts.map(|member| member.node).collect())
        };
        Ok(Self {
            in_sync: map.groups.into_iter().map(in_sync).collect(),
            names: map.nodes.into_iter().map(|node| (node.node, node.name)).collect(),
        })
    }
}

/// A file to be compared.
struct Task {
    path: String,
    bytes: u64,
    blocks: Vec<Block>,
}

/// What a file came to.
#[derive(Default)]
struct Outcome {
    bytes: u64,
    blocks: u64,
    copies: u64,
    /// Blocks that differ. The block is `None` for a file whose map of blocks cannot be.
    suspects: Vec<(String, Option<u64>)>,
}

pub(in crate::fs) fn run(global: &Global, client: &Client, path: &str) -> anyhow::Result<()> {
    let path = path::checked(path)?;
    let region = Region::load(&global.region_folder()?)?;
    let members = Members::of(&region)?;
    let total = client.usage(&path)?.bytes;
    let mut view = View { path: path.clone(), ..View::default() };
    let mut meter = Meter::bytes(global.progress, total);
    let mut suspects = Vec::new();
    look(client, &members, &path, |outcome| {
        view.files += 1;
        view.bytes += outcome.bytes;
        view.blocks += outcome.blocks;
        view.copies += outcome.copies;
        let room = SUSPECTS_MAX.saturating_sub(suspects.len()).min(outcome.suspects.len());
        view.suspects_left_out += (outcome.suspects.len() - room) as u64;
        suspects.extend(outcome.suspects.into_iter().take(room));
        meter.set(format!("{} files compared, {} differ", view.files, suspects.len()), view.bytes);
    })?;
    if !suspects.is_empty() {
        meter.say("looking again at what differs");
        thread::sleep(SETTLE);
        view.findings = look_again(client, &Members::of(&region)?, &suspects)?;
    }
    drop(meter);
    output::print(global.json, &view, View::text)?;
    view.verdict()
}

/// Compares every file below `path`, several at a time, and hands over what each came to.
fn look(
    client: &Client,
    members: &Members,
    path: &str,
    mut take: impl FnMut(Outcome),
) -> Result<(), ClientError> {
    let (give, tasks) = mpsc::sync_channel::<Task>(WAITING_MAX);
    let (tell, outcomes) = mpsc::sync_channel::<Result<Outcome, ClientError>>(WAITING_MAX);
    let tasks = Mutex::new(tasks);
    thread::scope(|scope| {
        // Whoever finds the other end gone is done: the first error ends everything.
        let walker = scope.spawn({
            let tell = tell.clone();
            move || {
                if let Err(error) = walk(client, path, &give) {
                    let _ = tell.send(Err(error));
                }
            }
        });
        for _ in 0..ASKING {
            let (tell, tasks) = (tell.clone(), &tasks);
            scope.spawn(move || {
                loop {
                    let next = tasks.lock().expect("no holder of this lock panics").recv();
                    let Ok(task) = next else { break };
                    if tell.send(examine(client, members, &task)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(tell);
        let mut ended = Ok(());
        for outcome in outcomes {
            match outcome {
                Ok(outcome) if ended.is_ok() => take(outcome),
                Ok(_) => {}
                Err(error) => ended = ended.and(Err(error)),
            }
        }
        walker.join().expect("the walk does not panic");
        ended
    })
}

fn walk(client: &Client, path: &str, give: &mpsc::SyncSender<Task>) -> Result<(), ClientError> {
    let mut seen = HashSet::new();
    let mut add = |path: String, entry: &Entry, blocks: Option<Vec<Block>>| -> Result<(), ClientError> {
        let is_file = !matches!(entry.kind(), EntryKind::Directory | EntryKind::Symlink);
        if !is_file || entry.links > 1 && !seen.insert(entry.inode) {
            return Ok(());
        }
        let resolved = match blocks {
            Some(blocks) => Some((entry.bytes, blocks)),
            None => resolve(client, &path)?,
        };
        if let Some((bytes, blocks)) = resolved {
            // Nobody takes it any more when another thread has failed.
            let _ = give.send(Task { path, bytes, blocks });
        }
        Ok(())
    };
    let top = client.stat(path)?;
    if top.kind() != EntryKind::Directory {
        return add(path.to_owned(), &top, None);
    }
    client.walk_mapped(path, &mut |below, entry, blocks| add(path::join(path, below), &entry, blocks))
}

/// Length and blocks of a file; `None` when it is gone.
fn resolve(client: &Client, path: &str) -> Result<Option<(u64, Vec<Block>)>, ClientError> {
    match client.resolve(path) {
        Ok(resolved) => Ok(resolved.entry.map(|entry| (entry.bytes, resolved.blocks))),
        Err(error) if error.trouble() == Trouble::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn examine(client: &Client, members: &Members, task: &Task) -> Result<Outcome, ClientError> {
    let mut outcome = Outcome { bytes: task.bytes, ..Outcome::default() };
    if !fits(task.bytes, &task.blocks) {
        outcome.suspects.push((task.path.clone(), None));
    }
    for block in &task.blocks {
        outcome.blocks += 1;
        let (differences, telling) = differences(client, members, block)?;
        outcome.copies += telling;
        if !differences.is_empty() {
            outcome.suspects.push((task.path.clone(), Some(block.block)));
        }
    }
    Ok(outcome)
}

/// What differs in a block, and how many of its members told.
fn differences(
    client: &Client,
    members: &Members,
    block: &Block,
) -> Result<(Vec<Difference>, u64), ClientError> {
    let nobody = BTreeSet::new();
    let in_sync = members.in_sync.get(&block.group).unwrap_or(&nobody);
    if in_sync.is_empty() {
        let detail = format!("group {} has no member in sync", block.group);
        return Ok((vec![Difference { kind: Kind::Silent, unit: None, node: None, detail }], 0));
    }
    let places = client.locate_block(block)?;
    let silent = in_sync.iter().filter(|node| places.untold.contains_key(node)).count();
    Ok((block::differences(block, in_sync, &places), (in_sync.len() - silent) as u64))
}

/// Whether the blocks of a file lie one behind the other and within it.
fn fits(bytes: u64, blocks: &[Block]) -> bool {
    let mut ranges: Vec<_> =
        blocks.iter().map(|block| (block.offset, block.offset.saturating_add(block.bytes))).collect();
    ranges.sort_unstable();
    ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0) && ranges.last().is_none_or(|last| last.1 <= bytes)
}

/// What of the suspects differs still.
fn look_again(
    client: &Client,
    members: &Members,
    suspects: &[(String, Option<u64>)],
) -> Result<Vec<Finding>, ClientError> {
    let mut findings = Vec::new();
    for file in suspects.chunk_by(|one, next| one.0 == next.0) {
        let path = &file[0].0;
        let Some((bytes, blocks)) = resolve(client, path)? else { continue };
        for (_, suspect) in file {
            let Some(suspect) = suspect else {
                if !fits(bytes, &blocks) {
                    findings.push(Finding {
                        kind: Kind::Map,
                        path: path.clone(),
                        block: None,
                        group: None,
                        unit: None,
                        node: None,
                        host: None,
                        detail: "its blocks overlap, or reach past its end".into(),
                    });
                }
                continue;
            };
            let Some(block) = blocks.iter().find(|block| block.block == *suspect) else { continue };
            let (differences, _) = differences(client, members, block)?;
            findings.extend(differences.into_iter().map(|found| finding(path, block, found, members)));
        }
    }
    Ok(findings)
}

fn finding(path: &str, block: &Block, found: Difference, members: &Members) -> Finding {
    let Difference { kind, unit, node, detail } = found;
    let name = |node| members.names.get(&node).cloned().unwrap_or_else(|| format!("node {node}"));
    Finding {
        kind,
        path: path.to_owned(),
        block: Some(BlockId(block.block).to_string()),
        group: Some(block.group),
        unit,
        node,
        host: node.map(name),
        detail,
    }
}

impl View {
    fn text(&self) -> String {
        let mut text = String::new();
        let number = |number: Option<u32>| number.map_or_else(String::new, |number| number.to_string());
        let row = |found: &Finding| {
            [
                found.kind.word().to_owned(),
                found.host.clone().unwrap_or_else(|| "all".into()),
                number(found.group),
                found.block.clone().unwrap_or_default(),
                number(found.unit),
                found.path.clone(),
                found.detail.clone(),
            ]
        };
        let rows: Vec<_> = self.findings.iter().take(SHOWN_MAX).map(row).collect();
        if !rows.is_empty() {
            let heading = ["FINDING", "HOST", "GROUP", "BLOCK", "UNIT", "PATH", "WHAT"];
            text.push_str(&output::table(heading, &[2, 4], &rows));
        }
        let left = self.findings.len() - rows.len();
        if left > 0 {
            text.push_str(&format!("and {left} more; --json lists them\n"));
        }
        writeln!(
            text,
            "{}: {} files, {}, {} blocks in {} copies: {}",
            self.path,
            self.files,
            output::bytes(self.bytes),
            self.blocks,
            self.copies,
            match self.findings.len() {
                0 if self.suspects_left_out == 0 => "all agree".to_owned(),
                findings => format!("{findings} findings"),
            }
        )
        .expect("writing to a String does not fail");
        text
    }

    /// How the command ends.
    fn verdict(&self) -> anyhow::Result<()> {
        if self.suspects_left_out > 0 {
            return Err(Stop::new(
                exit::Kind::Failed,
                format!(
                    "{} more blocks differed at the first look and were too many to be looked at again: mend what is told, \
                     then run it again",
                    self.suspects_left_out
                ),
            )
            .into());
        }
        if self.findings.is_empty() {
            return Ok(());
        }
        if self.findings.iter().all(|finding| finding.kind == Kind::Silent) {
            return Err(Stop::unavailable(
                "members did not answer, so nothing is known of them: run it again when they do",
            ));
        }
        let message = format!("{} differences between files and what is stored of them", self.findings.len());
        Err(Stop::new(exit::Kind::Failed, message).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(offset: u64, bytes: u64) -> Block {
        Block { block: 0x0001_0000_0000_0009, group: 7, offset, bytes, ..Block::default() }
    }

    #[test]
    fn blocks_lie_one_behind_the_other_within_their_file() {
        assert!(fits(0, &[]));
        assert!(fits(300, &[block(200, 100), block(0, 100)]), "with a hole between them");
        assert!(!fits(299, &[block(200, 100), block(0, 100)]), "past the end");
        assert!(!fits(300, &[block(99, 100), block(0, 100)]), "over each other");
    }

    #[test]
    fn findings_name_file_host_and_unit_and_decide_how_the_command_ends() {
        let members = Members { names: [(4, "storage-1".to_owned())].into(), ..Members::default() };
        let found = |kind, node| {
            let found = Difference { kind, unit: Some(3), node, detail: "it is not there".into() };
            finding("/hot/a", &block(0, 1), found, &members)
        };
        let of = |findings| View { path: "/hot".into(), findings, ..View::default() };
        let missing = of(vec![found(Kind::MissingUnit, Some(4)), found(Kind::Root, None)]);
        let text = missing.text();
        assert!(text.contains("missing unit  storage-1") && text.contains("/hot/a"), "{text}");
        assert!(text.contains("root          all"), "{text}");
        assert!(text.ends_with("2 findings\n"), "{text}");
        assert_eq!(exit::kind_of(&missing.verdict().unwrap_err()), exit::Kind::Failed);
        let json = serde_json::to_value(&missing).unwrap();
        assert_eq!(json["findings"][0]["kind"], "missing_unit");
        assert_eq!(json["findings"][1]["node"], serde_json::Value::Null);
        let silent = of(vec![found(Kind::Silent, Some(9))]);
        assert_eq!(exit::kind_of(&silent.verdict().unwrap_err()), exit::Kind::Unavailable);
        assert!(silent.text().contains("node 9"), "{}", silent.text());
        assert!(of(vec![]).verdict().is_ok());
        let left_out = View { suspects_left_out: 2, ..of(vec![]) };
        assert!(left_out.verdict().is_err() && left_out.text().ends_with("0 findings\n"));
    }
}
