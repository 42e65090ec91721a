//! The main job from end to end: real files in, through faults, and out again, on a region of real processes.

mod damage;
mod survival;
mod transfer;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::input::{Input, Limit, SourceFile};
use crate::interrupt::Interrupt;
use crate::nova::Nova;
use crate::raw::{self, RawRates};
use crate::region::{Region, Size};
use crate::space::Room;
use crate::table::{Figures, grouped};

/// How much of the default input is taken.
pub const DEFAULT_LIMIT: Limit = Limit { bytes: 1_500_000_000, files: 20_000 };
/// Where the default input comes from: these folders of [`DEFAULT_BASE`].
pub const DEFAULT_ROOTS: [&str; 2] = ["share", "lib"];
/// What the names of the default input are relative to.
pub const DEFAULT_BASE: &str = "/usr";

/// Where the tree goes.
const TARGET: &str = "/hot";
/// Copies of everything, and storage hosts.
const REPLICAS: usize = 3;
/// The raw disk is measured with the bytes of the input, within these bounds.
const RAW_BYTES: std::ops::RangeInclusive<u64> = 64 << 20..=1 << 30;
/// The second put takes one part in so many of the bytes of the first.
const SECOND_PARTS: u64 = 3;
/// Groups are formed within this time after the start.
const FORM_TIMEOUT: Duration = Duration::from_secs(60);
/// A transfer may take this long, plus its bytes at [`SLOWEST_BYTES_PER_SECOND`].
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);
/// Slower than this is broken.
const SLOWEST_BYTES_PER_SECOND: u64 = 2_000_000;

/// What a person asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The tree; the default input when absent.
    pub path: Option<PathBuf>,
    /// All of the default input.
    pub all: bool,
    /// Leave the region up.
    pub keep: bool,
    /// At most so many bytes of files.
    pub bytes: Option<u64>,
    /// A folder on the disk to be used; ours is made below it.
    pub folder: PathBuf,
    /// Where the binaries are.
    pub bins: PathBuf,
}

/// Runs the whole demo and prints how it goes; answers whether everything held.
///
/// # Errors
/// When it could not be started: nothing to put, no room, no region.
pub fn run(options: &Options) -> Result<bool> {
    let begun = Instant::now();
    let interrupt = Interrupt::catch().context("catch signals")?;
    heading(begun, "choose the input");
    let input = choose(options)?;
    let part: u64 = input.first_part(SECOND_PARTS).iter().map(|file| file.bytes).sum();
    let raw_bytes = input.bytes().clamp(*RAW_BYTES.start(), *RAW_BYTES.end());
    let room = Room::plan(&input.files, input.bytes() + part, raw_bytes);
    fs::create_dir_all(&options.folder).with_context(|| format!("create {}", options.folder.display()))?;
    room.check(&options.folder, REPLICAS as u64)?;
    let work = WorkFolder::create(&options.folder)?;
    println!(
        "{} files with {} bytes below {}; {} links and special files skipped",
        grouped(input.files.len() as u64),
        grouped(input.bytes()),
        input.base.display(),
        grouped(input.skipped),
    );

    heading(begun, "start a region: 3 controllers, 3 storage hosts, 1 compute host as the edge");
    let nova = Nova::new(&options.bins, &work.path.join("region"), interrupt)?;
    let region = Region::up(nova, &options.bins, &Size::standard(room.device_bytes >> 20), &work.logs())?;
    let figures = Figures {
        bytes: input.bytes(),
        files: input.files.len() as u64,
        skipped: input.skipped,
        ..Figures::default()
    };
    let mut demo =
        Demo { begun, input, work, region, raw_bytes, figures, wrong: Vec::new(), trees: Vec::new() };
    if let Err(error) = demo.steps() {
        demo.wrong(format!("{error:#}"));
    }
    demo.finish(options)
}

fn choose(options: &Options) -> Result<Input> {
    let limited = |limit: Limit| Limit { bytes: options.bytes.unwrap_or(limit.bytes), ..limit };
    match &options.path {
        Some(path) => {
            let path = fs::canonicalize(path).with_context(|| format!("look for {}", path.display()))?;
            Input::choose(&path, &[""], limited(Limit::NONE))
        }
        None => {
            let limit = if options.all { Limit::NONE } else { DEFAULT_LIMIT };
            Input::choose(Path::new(DEFAULT_BASE), &DEFAULT_ROOTS, limited(limit))
        }
    }
}

fn heading(begun: Instant, text: &str) {
    println!("\n== {:>5.1} s: {text}", begun.elapsed().as_secs_f64());
}

/// The demo's own folder; removed with its owner.
#[derive(Debug)]
struct WorkFolder {
    path: PathBuf,
}

impl WorkFolder {
    fn create(parent: &Path) -> Result<Self> {
        let parent = fs::canonicalize(parent).with_context(|| format!("look for {}", parent.display()))?;
        let path = parent.join(format!("novaclustr-demo-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where a run of this name puts its logs when something was wrong.
    fn logs(&self) -> PathBuf {
        self.path.with_extension("logs")
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // With a kept region in it, it stays.
        if !self.path.join("region").exists() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A tree that was put, and the folder of [`TARGET`] that holds it.
#[derive(Debug)]
struct Tree {
    folder: String,
    files: Vec<SourceFile>,
}

impl Tree {
    /// The path of one of its files below [`TARGET`].
    fn name(&self, file: &SourceFile) -> String {
        if self.folder.is_empty() { file.name.clone() } else { format!("{}/{}", self.folder, file.name) }
    }
}

/// A demo under way. The region goes down before the folder goes.
#[derive(Debug)]
struct Demo {
    begun: Instant,
    input: Input,
    region: Region,
    work: WorkFolder,
    raw_bytes: u64,
    figures: Figures,
    /// What did not hold.
    wrong: Vec<String>,
    /// What was put.
    trees: Vec<Tree>,
}

impl Demo {
    fn steps(&mut self) -> Result<()> {
        self.region.wait_in_sync(REPLICAS, FORM_TIMEOUT)?;
        println!("all groups in sync at {:.1} s", self.begun.elapsed().as_secs_f64());
        self.heading("measure the raw disk, put the tree, measure the raw disk again");
        self.figures.raw_before = Some(self.measure_raw()?);
        self.put_tree()?;
        self.figures.raw_after = Some(self.measure_raw()?);
        self.heading("put a part again, and kill a storage host in the middle of it");
        self.put_through_a_kill()?;
        self.heading("start the killed host again and wait until it has caught up");
        self.restart_and_catch_up()?;
        self.heading("flip bytes on disk in two of three replicas");
        let flips = self.damage_replicas()?;
        self.heading("read everything back and compare it with the source");
        self.get_and_compare()?;
        self.heading("read the damaged files until their replicas are right again on disk");
        self.see_repairs(&flips)?;
        self.heading("kill the Raft leader and list the tree");
        self.list_without_the_leader()
    }

    fn heading(&self, text: &str) {
        heading(self.begun, text);
    }

    /// Notes that something did not hold.
    fn wrong(&mut self, what: String) {
        println!("WRONG: {what}");
        self.wrong.push(what);
    }

    fn measure_raw(&self) -> Result<RawRates> {
        let rates = raw::measure(&self.work.path, self.raw_bytes, self.region.nova().interrupt())?;
        println!("raw disk: write {:.0} MB/s, read {:.0} MB/s", rates.write / 1e6, rates.read / 1e6);
        Ok(rates)
    }

    /// Every file that was put: its path below [`TARGET`], its source, its size.
    fn expected(&self) -> impl Iterator<Item = (String, PathBuf, u64)> {
        self.trees.iter().flat_map(|tree| {
            tree.files.iter().map(|file| (tree.name(file), self.input.base.join(&file.name), file.bytes))
        })
    }

    fn finish(mut self, options: &Options) -> Result<bool> {
        if !self.wrong.is_empty() {
            match self.region.save_logs() {
                Ok(logs) => println!("\nthe logs of the region: {}", logs.display()),
                Err(error) => println!("\nthe logs could not be saved: {error:#}"),
            }
        }
        let typed = self.region.nova().typed();
        if options.keep {
            self.region.keep();
        }
        let Self { begun, region, mut figures, mut wrong, work, .. } = self;
        heading(begun, if options.keep { "done; the region stays up" } else { "take the region down" });
        if let Err(error) = region.down() {
            wrong.push(format!("take the region down: {error:#}"));
        }
        drop(work);
        figures.took = begun.elapsed();
        println!("\n{figures}");
        if options.keep {
            println!("look at it:   {typed} fs ls -l {TARGET}\n              {typed} cluster status");
            println!("end it with:  {typed} dev down --wipe");
        }
        for what in &wrong {
            println!("WRONG: {what}");
        }
        println!("{}", if wrong.is_empty() { "everything held" } else { "NOT everything held" });
        Ok(wrong.is_empty())
    }
}

/// The longest a transfer may take.
fn transfer_timeout(bytes: u64) -> Duration {
    TRANSFER_TIMEOUT + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_in_a_folder_has_longer_names() {
        let file = SourceFile { name: "a/b".to_owned(), bytes: 1 };
        let tree = |folder: &str| Tree { folder: folder.to_owned(), files: Vec::new() };
        assert_eq!(tree("").name(&file), "a/b");
        assert_eq!(tree("second").name(&file), "second/a/b");
    }

    #[test]
    fn the_work_folder_goes_unless_a_region_is_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let work = WorkFolder::create(parent.path()).unwrap();
        let path = work.path.clone();
        fs::write(path.join("list"), "x").unwrap();
        fs::create_dir(path.join("region")).unwrap();
        drop(work);
        assert!(path.exists());
        fs::remove_dir(path.join("region")).unwrap();
        drop(WorkFolder { path: path.clone() });
        assert!(!path.exists());
    }
}
