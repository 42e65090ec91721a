//! `nova fs sync`: makes one tree like another, a local one and one in NovaFS, by moving what differs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use nova_api::files::failure::Code;
use novafs_client::{Client, ClientError, EntryKind, GetOptions, Progress, PutOptions, Source, Trouble};
use serde::Serialize;

use crate::arguments::Global;
use crate::exit::Stop;
use crate::fs::walk::Found;
use crate::fs::{links, namespace, path, seconds, watch};
use crate::output;

/// What marks the side in NovaFS.
const NOVA: &str = "nova:";
/// Files fetched at once.
const WORKERS: usize = 16;

/// What to make like what.
#[derive(Args, Debug)]
pub(crate) struct Sync {
    /// Also remove what is in the target and not in the source.
    #[arg(long)]
    delete: bool,
    /// Only tell what would be done.
    #[arg(long)]
    dry_run: bool,
    /// The tree to copy from; `nova:/path` is in NovaFS.
    source: String,
    /// The tree to make like it; one of the two is in NovaFS.
    target: String,
}

#[derive(Debug, Default, Serialize)]
struct View {
    /// Files that were or would be moved, and their bytes.
    files: u64,
    bytes: u64,
    /// Files and links that were the same already.
    same: u64,
    /// Symbolic links that were or would be made.
    links: u64,
    deleted: u64,
    /// Sockets, pipes and devices, left out.
    skipped: u64,
    failed: u64,
    dry_run: bool,
    seconds: f64,
}

/// What tells two versions of a file apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    bytes: u64,
    modified_ms: u64,
}

/// A tree by paths below its root.
#[derive(Debug, Default)]
struct Listing {
    files: BTreeMap<String, Mark>,
    /// What symbolic links say.
    links: BTreeMap<String, String>,
    /// Sorted.
    directories: Vec<String>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    moved: Vec<String>,
    /// Symbolic links to make, with what they say.
    links: Vec<(String, String)>,
    bytes: u64,
    same: u64,
    /// Deepest first.
    deleted: Vec<String>,
}

impl Listing {
    fn add_parents(&mut self, below: &str) {
        for (slash, _) in below.match_indices('/') {
            self.directories.push(below[..slash].to_owned());
        }
    }
}

pub(super) fn run(global: &Global, client: &Client, sync: &Sync) -> anyhow::Result<()> {
    match (sync.source.strip_prefix(NOVA), sync.target.strip_prefix(NOVA)) {
        (None, Some(target)) => push(global, client, sync, Path::new(&sync.source), &path::checked(target)?),
        (Some(source), None) => pull(global, client, sync, &path::checked(source)?, Path::new(&sync.target)),
        _ => Err(Stop::usage(
            "one of the two must be in NovaFS and one local: nova fs sync ~/photos nova:/hot/photos (or the other \
             way round); `nova fs cp -r` copies inside NovaFS",
        )),
    }
}

fn plan(source: &Listing, target: &Listing, delete: bool) -> Plan {
    let mut plan = Plan::default();
    for (below, mark) in &source.files {
        if target.files.get(below) == Some(mark) {
            plan.same += 1;
        } else {
            plan.moved.push(below.clone());
            plan.bytes += mark.bytes;
        }
    }
    for (below, text) in &source.links {
        if target.links.get(below) == Some(text) {
            plan.same += 1;
        } else {
            plan.links.push((below.clone(), text.clone()));
        }
    }
    if delete {
        let has = |names: &mut dyn Iterator<Item = &String>, prefix: &str| {
            names.next().is_some_and(|name| name.starts_with(prefix))
        };
        let wanted = |directory: &String| {
            let prefix = format!("{directory}/");
            source.directories.binary_search(directory).is_ok()
                || has(&mut source.files.range(prefix.clone()..).map(|(name, _)| name), &prefix)
                || has(&mut source.links.range(prefix.clone()..).map(|(name, _)| name), &prefix)
        };
        let known = |name: &&String| source.files.contains_key(*name) || source.links.contains_key(*name);
        let files = target.files.keys().chain(target.links.keys()).filter(|name| !known(name));
        let directories = target.directories.iter().filter(|directory| !wanted(directory));
        plan.deleted = files.chain(directories).cloned().collect();
        plan.deleted.sort_by(|a, b| b.cmp(a));
    }
    plan
}

fn local_mark(about: &fs::Metadata) -> Mark {
    let modified = about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let modified_ms = u64::try_from(modified.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
    Mark { bytes: about.len(), modified_ms }
}

fn list_local(root: &Path) -> anyhow::Result<(Listing, Found)> {
    let mut found = Found { apart: true, ..Found::default() };
    found.add(root, String::new())?;
    let mut listing = Listing::default();
    for source in &found.files {
        let about =
            fs::metadata(&source.local).with_context(|| format!("look at {}", source.local.display()))?;
        let below = source.target.trim_start_matches('/').to_owned();
        listing.add_parents(&below);
        listing.files.insert(below, local_mark(&about));
    }
    for (target, text) in &found.links {
        let below = target.trim_start_matches('/').to_owned();
        listing.add_parents(&below);
        listing.links.insert(below, text.clone());
    }
    let directories =
        found.directories.iter().map(|directory| directory.target.trim_start_matches('/').to_owned());
    for below in directories.filter(|below| !below.is_empty()) {
        listing.add_parents(&below);
        listing.directories.push(below);
    }
    listing.directories.sort_unstable();
    listing.directories.dedup();
    Ok((listing, found))
}

fn list_remote(client: &Client, root: &str) -> Result<Listing, ClientError> {
    let mut listing = Listing::default();
    client.walk(root, &mut |below, entry| {
        match entry.kind() {
            EntryKind::Directory => listing.directories.push(below.to_owned()),
            EntryKind::File | EntryKind::Unspecified => {
                let mark = Mark { bytes: entry.bytes, modified_ms: entry.modified_ms };
                listing.files.insert(below.to_owned(), mark);
            }
            EntryKind::Symlink => {
                listing.links.insert(below.to_owned(), entry.link_target.clone());
            }
        }
        Ok(())
    })?;
    listing.directories.sort_unstable();
    Ok(listing)
}

fn tell(plan: &Plan, verb: &str) {
    for below in &plan.deleted {
        output::say(format_args!("delete {below}"));
    }
    for below in plan.moved.iter().chain(plan.links.iter().map(|(below, _)| below)) {
        output::say(format_args!("{verb} {below}"));
    }
}

fn push(global: &Global, client: &Client, sync: &Sync, source: &Path, target: &str) -> anyhow::Result<()> {
    if !source.is_dir() {
        return Err(Stop::not_found(format!("{} is no local directory", source.display())));
    }
    let begun = Instant::now();
    let (local, found) = list_local(source)?;
    let remote = match list_remote(client, target) {
        Ok(listing) => listing,
        Err(ClientError::Refused { code: Code::NotFound, .. }) => Listing::default(),
        Err(error) => return Err(error.into()),
    };
    let plan = plan(&local, &remote, sync.delete);
    let mut view = View {
        files: u64::try_from(plan.moved.len()).unwrap_or(u64::MAX),
        bytes: plan.bytes,
        same: plan.same,
        links: u64::try_from(plan.links.len()).unwrap_or(u64::MAX),
        deleted: u64::try_from(plan.deleted.len()).unwrap_or(u64::MAX),
        skipped: found.skipped,
        dry_run: sync.dry_run,
        ..View::default()
    };
    let mut failures = found.failed;
    let mut troubles = vec![Trouble::Failed; failures.len()];
    if sync.dry_run {
        tell(&plan, "put");
    } else {
        // One name that stays must not keep everything else from being put.
        for below in &plan.deleted {
            if let Err(error) = client.remove(&path::join(target, below), false) {
                view.deleted -= 1;
                troubles.push(error.trouble());
                failures.push(format!("delete {below}: {:#}", anyhow::Error::new(error)));
            }
        }
        let missing = |below: &&String| remote.directories.binary_search(below).is_err();
        namespace::check(client, target)?;
        client.mkdir(target, 0o755, true)?;
        let modes: BTreeMap<_, _> = found
            .directories
            .iter()
            .map(|directory| (directory.target.trim_start_matches('/'), directory.mode))
            .collect();
        for below in local.directories.iter().filter(missing) {
            let mode = modes.get(below.as_str()).copied().unwrap_or(0o755);
            if let Err(error) = client.mkdir(&path::join(target, below), mode, true) {
                troubles.push(error.trouble());
                failures.push(format!("make {below}: {:#}", anyhow::Error::new(error)));
            }
        }
        let sources: Vec<_> = plan
            .moved
            .iter()
            .map(|below| Source { local: source.join(below), target: path::join(target, below) })
            .collect();
        let progress = Progress::default();
        let options = PutOptions { replace: true, ..PutOptions::default() };
        let report = watch(
            global.progress,
            plan.bytes,
            &progress,
            |counts| format!("put {} of {} files", counts.files, plan.moved.len()),
            || client.put(sources.into_iter(), &options, &progress),
        )?;
        (view.files, view.bytes) = (report.files, report.bytes);
        // Those past the first hundred are counted only.
        view.failed = report.failed - u64::try_from(report.failures.len()).unwrap_or(report.failed);
        for (local, error) in report.failures {
            troubles.push(error.trouble());
            failures.push(format!("{}: {:#}", local.display(), anyhow::Error::new(error)));
        }
        for (below, text) in &plan.links {
            if let Err(error) = links::symbolic(client, &path::join(target, below), text, true) {
                view.links -= 1;
                troubles.push(error.trouble());
                failures.push(format!("{below}: {:#}", anyhow::Error::new(error)));
            }
        }
    }
    view.failed += u64::try_from(failures.len()).unwrap_or(u64::MAX);
    let unavailable = troubles.iter().all(|trouble| *trouble == Trouble::Unavailable);
    view.seconds = seconds(begun.elapsed());
    output::print(global.json, &view, View::text)?;
    super::fail_if_any(&failures, view.failed, "put", unavailable)
}

fn pull(global: &Global, client: &Client, sync: &Sync, source: &str, target: &Path) -> anyhow::Result<()> {
    let begun = Instant::now();
    let remote = list_remote(client, source)?;
    let (local, found) = if target.exists() { list_local(target)? } else { Default::default() };
    let plan = plan(&remote, &local, sync.delete);
    let mut view = View {
        files: u64::try_from(plan.moved.len()).unwrap_or(u64::MAX),
        bytes: plan.bytes,
        same: plan.same,
        links: u64::try_from(plan.links.len()).unwrap_or(u64::MAX),
        deleted: u64::try_from(plan.deleted.len()).unwrap_or(u64::MAX),
        skipped: found.skipped,
        dry_run: sync.dry_run,
        ..View::default()
    };
    let mut failures = Vec::new();
    let mut troubles = Vec::new();
    if sync.dry_run {
        tell(&plan, "get");
    } else {
        for below in &plan.deleted {
            if let Err(error) = delete_local(&target.join(below)) {
                view.deleted -= 1;
                troubles.push(Trouble::Failed);
                failures.push(format!("{error:#}"));
            }
        }
        fs::create_dir_all(target).with_context(|| format!("make {}", target.display()))?;
        for below in &remote.directories {
            let place = target.join(below);
            // What belongs below it must not go to where a link of that name leads.
            if local.links.contains_key(below) && fs::symlink_metadata(&place).is_ok_and(|it| it.is_symlink())
            {
                fs::remove_file(&place).with_context(|| format!("replace {}", place.display()))?;
            }
            fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
        }
        let progress = Progress::default();
        let failed = watch(
            global.progress,
            plan.bytes,
            &progress,
            |counts| format!("get {} of {} files", counts.files, plan.moved.len()),
            || Ok(fetch(client, source, target, &plan.moved, &progress)),
        )?;
        let counts = progress.counts();
        (view.files, view.bytes) = (counts.files, counts.bytes);
        for (below, error) in failed {
            troubles.push(error.trouble());
            failures.push(format!("{below}: {:#}", anyhow::Error::new(error)));
        }
        for (below, text) in &plan.links {
            if let Err(error) = link_local(text, &target.join(below)) {
                view.links -= 1;
                troubles.push(Trouble::Failed);
                failures.push(format!("{error:#}"));
            }
        }
    }
    let unavailable = troubles.iter().all(|trouble| *trouble == Trouble::Unavailable);
    view.failed = u64::try_from(failures.len()).unwrap_or(u64::MAX);
    view.seconds = seconds(begun.elapsed());
    output::print(global.json, &view, View::text)?;
    super::fail_if_any(&failures, view.failed, "got", unavailable)
}

fn fetch(
    client: &Client,
    source: &str,
    target: &Path,
    moved: &[String],
    progress: &Progress,
) -> Vec<(String, ClientError)> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(moved.len()) {
            scope.spawn(|| {
                while let Some(below) = moved.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (path, place): (String, PathBuf) = (path::join(source, below), target.join(below));
                    if let Err(error) = client.get(&path, &place, &GetOptions::default(), progress) {
                        failed.lock().expect("no holder of this lock panics").push((below.clone(), error));
                    }
                }
            });
        }
    });
    failed.into_inner().expect("no holder of this lock panics")
}

fn delete_local(place: &Path) -> anyhow::Result<()> {
    // Not where a link leads to: the link itself is removed.
    let is_folder = fs::symlink_metadata(place).is_ok_and(|about| about.is_dir());
    let removed = if is_folder { fs::remove_dir(place) } else { fs::remove_file(place) };
    removed.with_context(|| format!("remove {}", place.display()))
}

/// A symbolic link on the local disk; a file or link that is there is replaced.
fn link_local(text: &str, place: &Path) -> anyhow::Result<()> {
    if fs::symlink_metadata(place).is_ok_and(|about| !about.is_dir()) {
        fs::remove_file(place).with_context(|| format!("replace {}", place.display()))?;
    }
    std::os::unix::fs::symlink(text, place).with_context(|| format!("make the link {}", place.display()))
}

impl View {
    fn text(&self) -> String {
        let would = if self.dry_run { "would be " } else { "" };
        let mut text = format!(
            "{} files, {} {would}moved, {} links {would}made, {} the same, {} {would}deleted in {:.1} s",
            self.files,
            output::bytes(self.bytes),
            self.links,
            self.same,
            self.deleted,
            self.seconds
        );
        if self.skipped > 0 {
            text.push_str(&format!("; {} special files skipped", self.skipped));
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(files: &[(&str, u64)], directories: &[&str]) -> Listing {
        let mark = |(name, bytes): &(&str, u64)| ((*name).to_owned(), Mark { bytes: *bytes, modified_ms: 1 });
        Listing {
            files: files.iter().map(mark).collect(),
            links: BTreeMap::new(),
            directories: directories.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn only_what_differs_is_moved_and_extra_names_go_deepest_first() {
        let source = listing(&[("a", 1), ("d/b", 2), ("new", 3)], &["d"]);
        let target = listing(&[("a", 1), ("d/b", 9), ("old/x", 4)], &["d", "old"]);
        let found = plan(&source, &target, true);
        assert_eq!(found.moved, ["d/b", "new"]);
        assert_eq!((found.bytes, found.same), (5, 1));
        assert_eq!(found.deleted, ["old/x", "old"]);
        assert!(plan(&source, &target, false).deleted.is_empty());
    }

    #[test]
    fn links_are_made_where_they_differ_and_go_before_the_folder_that_they_are_in() {
        let with = |mut listing: Listing, links: &[(&str, &str)]| {
            listing.links = links.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
            listing
        };
        let source = with(listing(&[("a", 1)], &[]), &[("same", "a"), ("moved", "b"), ("deep/new", "c")]);
        let target =
            with(listing(&[("a", 1)], &["deep", "old"]), &[("same", "a"), ("moved", "a"), ("old/gone", "x")]);
        let found = plan(&source, &target, true);
        let link = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(found.links, [link("deep/new", "c"), link("moved", "b")]);
        assert_eq!(found.deleted, ["old/gone", "old"], "a folder with a link that is wanted stays");
        assert_eq!((found.same, found.moved.len()), (2, 0));
    }

    #[test]
    fn a_local_link_to_a_folder_is_removed_and_not_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("kept")).unwrap();
        let place = folder.path().join("link");
        link_local("kept", &place).unwrap();
        link_local("kept", &place).unwrap();
        delete_local(&place).unwrap();
        assert!(folder.path().join("kept").is_dir() && fs::symlink_metadata(&place).is_err());
    }

    #[test]
    fn a_local_tree_is_listed_below_its_root() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("d/empty")).unwrap();
        fs::write(folder.path().join("d/a"), "abc").unwrap();
        let (listing, found) = list_local(folder.path()).unwrap();
        assert_eq!(listing.files.keys().collect::<Vec<_>>(), ["d/a"]);
        assert_eq!((listing.files["d/a"].bytes, found.skipped), (3, 0));
        assert_eq!(listing.directories, ["d", "d/empty"]);
    }
}
