//! What must go on: writes without a storage host, listings without the Raft leader.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Demo, REPLICAS, SECOND_PARTS, TARGET, Tree, transfer_timeout};
use crate::answer;
use crate::table::grouped;

/// The host that is killed.
const VICTIM: &str = "storage-2";
/// A lost replica stalls writes for less than this (Spec C.2 in docs/novafs.md).
const STALL_MAX: Duration = Duration::from_secs(2);
/// The share of the second put that is through when the host is killed.
const KILL_AFTER_PARTS: u64 = 3;
/// How often the second put is looked at until then.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The controllers know of the lost replicas within this time.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(35);
/// The killed host has caught up within this time.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(120);
/// A new leader answers within this time.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

impl Demo {
    /// Puts a part of the input again and kills a host when a third of it is through.
    pub(super) fn put_through_a_kill(&mut self) -> Result<()> {
        let files = self.input.first_part(SECOND_PARTS).to_vec();
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        let folder = self.input.free_name("second");
        let arguments = self.prepare_put(&folder, &files)?;
        let rate = self.figures.put.map_or(1.0, |put| put.rate()).max(1.0);
        let expected = Duration::from_secs_f64(crate::raw::rate(bytes, Duration::from_secs(1)) / rate);

        let begun = Instant::now();
        let running = self.region.nova().call(&arguments).limit(transfer_timeout(bytes)).start()?;
        let path = format!("{TARGET}/{folder}");
        loop {
            if running.is_over()? || begun.elapsed() * 2 > expected {
                break;
            }
            let usage: answer::Usage = self.region.nova().call(["fs", "du", &path]).answer()?;
            if usage.bytes >= bytes / KILL_AFTER_PARTS {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        let was_over = running.is_over()?;
        let killed = self.region.kill(VICTIM)?;
        let ids: Vec<_> = killed.iter().map(|one| format!("{} ({})", one.name, one.pid)).collect();
        println!("killed after {:.1} s: {}", begun.elapsed().as_secs_f64(), ids.join(", "));
        let answer: answer::Put = running.wait()?.success().context("the put that went on")?.answer()?;
        self.check_put(&answer, &files);
        self.trees.push(Tree { folder, files: files.clone() });
        let mut stall_ms = answer.stall_ms_max;
        if was_over {
            println!("that put was over before the kill; putting the same again, now without the host");
            let folder = self.input.free_name("second-again");
            let arguments = self.prepare_put(&folder, &files)?;
            let answer: answer::Put =
                self.region.nova().call(&arguments).limit(transfer_timeout(bytes)).run()?.answer()?;
            self.check_put(&answer, &files);
            self.trees.push(Tree { folder, files });
            stall_ms = answer.stall_ms_max;
        }
        let stall = Duration::try_from_secs_f64(stall_ms / 1000.0).context("the stall is no time")?;
        println!("writes stalled for {} ms at most, and went on", stall.as_millis());
        self.figures.stall = Some(stall);
        if stall >= STALL_MAX {
            self.wrong(format!(
                "writes stalled for {} ms, not less than {} ms",
                stall.as_millis(),
                STALL_MAX.as_millis()
            ));
        }
        self.see_lost_replicas()
    }

    /// Waits until the controllers say that groups lack a member.
    fn see_lost_replicas(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let status = self.region.status()?;
            if !status.all_in_sync(REPLICAS) {
                let whole = status.groups_with(REPLICAS);
                println!(
                    "{} of {} groups have lost a member",
                    status.groups.len() - whole,
                    status.groups.len()
                );
                return Ok(());
            }
            if begun.elapsed() > NOTICE_TIMEOUT {
                self.wrong(format!("after {NOTICE_TIMEOUT:?} the controllers still call {VICTIM} in sync"));
                return Ok(());
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Starts the killed host and waits until every group has all its members in sync.
    pub(super) fn restart_and_catch_up(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.region.restart(VICTIM)?;
        self.region.wait_in_sync(REPLICAS, CATCH_UP_TIMEOUT)?;
        println!("{VICTIM} has caught up after {:.1} s", begun.elapsed().as_secs_f64());
        self.figures.caught_up = Some(begun.elapsed());
        Ok(())
    }

    /// Kills the leader of the files group and compares the whole listing with what was put.
    pub(super) fn list_without_the_leader(&mut self) -> Result<()> {
        let killed = self.region.kill("leader")?;
        let begun = Instant::now();
        let arguments = ["fs", "ls", "-R", "-l", TARGET];
        let listing: answer::Listing = self.region.nova().call(arguments).limit(LIST_TIMEOUT).answer()?;
        let took = begun.elapsed();
        let difference =
            Difference::between(self.expected().map(|(name, _, bytes)| (name, bytes)), listing.entries);
        println!(
            "killed {}; {} files listed {:.1} s later",
            killed[0].name,
            grouped(difference.same),
            took.as_secs_f64(),
        );
        self.figures.listed = Some(difference.same);
        if !difference.wrong.is_empty() {
            let first: Vec<_> = difference.wrong.iter().take(5).cloned().collect();
            self.wrong(format!(
                "the listing is wrong in {} places: {}",
                difference.wrong.len(),
                first.join("; ")
            ));
        }
        Ok(())
    }
}

/// A listing against what should be in it.
#[derive(Debug, Default)]
struct Difference {
    same: u64,
    wrong: Vec<String>,
}

impl Difference {
    fn between(expected: impl Iterator<Item = (String, u64)>, entries: Vec<answer::Entry>) -> Self {
        let inside = |path: &str| {
            let path = path.strip_prefix(TARGET).unwrap_or(path);
            path.trim_start_matches('/').to_owned()
        };
        let files = entries.into_iter().filter(|entry| entry.kind == "file");
        let mut listed: BTreeMap<String, u64> =
            files.map(|entry| (inside(&entry.path), entry.bytes)).collect();
        let mut found = Self::default();
        for (name, bytes) in expected {
            match listed.remove(&name) {
                Some(size) if size == bytes => found.same += 1,
                Some(size) => found.wrong.push(format!("{name} has {size} bytes, not {bytes}")),
                None => found.wrong.push(format!("{name} is missing")),
            }
        }
        found.wrong.extend(listed.into_keys().map(|name| format!("{name} was never put")));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: &str, bytes: u64) -> answer::Entry {
        answer::Entry { path: path.to_owned(), kind: kind.to_owned(), bytes }
    }

    #[test]
    fn missing_foreign_and_shortened_files_are_named() {
        let expected = [("a/b", 1), ("a/c", 2), ("d", 3)].map(|(name, bytes)| (name.to_owned(), bytes));
        let listed = vec![
            entry("/hot/a", "directory", 0),
            entry("/hot/a/b", "file", 1),
            entry("/hot/a/c", "file", 1),
            entry("/hot/x", "file", 1),
        ];
        let found = Difference::between(expected.clone().into_iter(), listed);
        assert_eq!(found.same, 1);
        assert_eq!(found.wrong, ["a/c has 1 bytes, not 2", "d is missing", "x was never put"]);
        let relative = vec![entry("a/b", "file", 1), entry("a/c", "file", 2), entry("d", "file", 3)];
        assert_eq!(Difference::between(expected.into_iter(), relative).same, 3);
    }
}
