//! `nova fs cp`, `tree` and `checksum`: files inside NovaFS.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::time::Instant;

use novafs_client::{Client, ClientError, Entry, EntryKind, Progress, Trouble};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::arguments::Global;
use crate::exit::Stop;
use crate::fs::{links, namespace, path, seconds, watch};
use crate::output;

#[derive(Debug, Serialize)]
struct CopyView {
    files: u64,
    bytes: u64,
    /// Symbolic links, and further names of files.
    links: u64,
    failed: u64,
    seconds: f64,
}

/// What a copy takes, under its new names.
#[derive(Debug, Default)]
struct Job {
    files: Vec<(String, String)>,
    directories: Vec<(String, u32)>,
    links: Vec<(String, String)>,
    /// Further names of files: the new first name, and this one.
    names: Vec<(String, String)>,
    /// The new first names of files with several, by inode.
    first_names: HashMap<u64, String>,
    bytes: u64,
}

impl Job {
    fn add(&mut self, source: String, target: String, entry: &Entry) {
        match entry.kind() {
            EntryKind::Directory => self.directories.push((target, entry.mode & 0o7777)),
            EntryKind::Symlink => self.links.push((target, entry.link_target.clone())),
            EntryKind::File | EntryKind::Unspecified => {
                if entry.links > 1 {
                    if let Some(first) = self.first_names.get(&entry.inode) {
                        self.names.push((first.clone(), target));
                        return;
                    }
                    self.first_names.insert(entry.inode, target.clone());
                }
                self.bytes += entry.bytes;
                self.files.push((source, target));
            }
        }
    }
}

pub(super) fn copy(
    global: &Global,
    client: &Client,
    recursive: bool,
    replace: bool,
    sources: &[String],
    target: &str,
) -> anyhow::Result<()> {
    let into = path::checked(target)?;
    let target_is_directory = matches!(client.stat(&into), Ok(entry) if entry.kind() == EntryKind::Directory);
    if sources.len() > 1 && !target_is_directory {
        return Err(Stop::usage(format!("{into} is no directory: several sources need one")));
    }
    let mut job = Job::default();
    for source in sources {
        let source = path::checked(source)?;
        let target = if target_is_directory { path::join(&into, path::name(&source)) } else { into.clone() };
        if target == source || target.starts_with(&format!("{}/", source.trim_end_matches('/'))) {
            return Err(Stop::usage(format!("{source} cannot be copied into itself")));
        }
        let entry = client.stat(&source)?;
        let is_directory = entry.kind() == EntryKind::Directory;
        if is_directory && !recursive {
            return Err(Stop::usage(format!(
                "{source} is a directory: -r copies it with everything below it"
            )));
        }
        job.add(source.clone(), target.clone(), &entry);
        if is_directory {
            client.walk(&source, &mut |below, entry| {
                job.add(path::join(&source, below), path::join(&target, below), entry);
                Ok(())
            })?;
        }
    }
    if let Some((directory, _)) = job.directories.first() {
        namespace::check(client, directory)?;
    }
    let begun = Instant::now();
    let progress = Progress::default();
    let failed = watch(
        global.progress,
        job.bytes,
        &progress,
        |counts| format!("copy {} of {} files", counts.files, job.files.len()),
        || carry_out(client, &job, replace, &progress),
    )?;
    let counts = progress.counts();
    let links_failed = failed.iter().filter(|failure| failure.is_link).count();
    let links = job.links.len() + job.names.len() - links_failed;
    let view = CopyView {
        files: counts.files,
        bytes: counts.bytes,
        links: u64::try_from(links).unwrap_or(u64::MAX),
        failed: u64::try_from(failed.len()).unwrap_or(u64::MAX),
        seconds: seconds(begun.elapsed()),
    };
    output::print(global.json, &view, |view| {
        format!("{} files, {} in {:.1} s\n", view.files, output::bytes(view.bytes), view.seconds)
    })?;
    let unavailable = failed.iter().all(|failure| failure.error.trouble() == Trouble::Unavailable);
    let failures: Vec<_> = failed
        .into_iter()
        .map(|Failure { path, error, .. }| format!("{path}: {:#}", anyhow::Error::new(error)))
        .collect();
    super::fail_if_any(&failures, view.failed, "copied", unavailable)
}

/// What could not be copied.
struct Failure {
    path: String,
    is_link: bool,
    error: ClientError,
}

fn carry_out(
    client: &Client,
    job: &Job,
    replace: bool,
    progress: &Progress,
) -> Result<Vec<Failure>, ClientError> {
    for (directory, mode) in &job.directories {
        client.mkdir(directory, *mode, true)?;
    }
    let mut failed = Vec::new();
    for (source, target) in &job.files {
        if let Err(error) = client.copy_file(source, target, replace, progress) {
            failed.push(Failure { path: source.clone(), is_link: false, error });
        }
    }
    let symbolic = job.links.iter().map(|(name, text)| (name, links::symbolic(client, name, text, replace)));
    let names =
        job.names.iter().map(|(first, name)| (name, links::further_name(client, first, name, replace)));
    for (name, made) in symbolic.chain(names) {
        if let Err(error) = made {
            failed.push(Failure { path: name.clone(), is_link: true, error });
        }
    }
    Ok(failed)
}

#[derive(Debug, Serialize)]
struct TreeView {
    path: String,
    directories: u64,
    files: u64,
    entries: Vec<TreeEntry>,
}

#[derive(Debug, Serialize)]
struct TreeEntry {
    path: String,
    kind: &'static str,
    bytes: u64,
}

pub(super) fn tree(global: &Global, client: &Client, path: &str, depth: Option<usize>) -> anyhow::Result<()> {
    let root = path::checked(path)?;
    let mut found = BTreeMap::new();
    client.walk(&root, &mut |below, entry| {
        if depth.is_none_or(|depth| below.split('/').count() <= depth) {
            // In the order of a walk, each directory before what it holds.
            let key: Vec<String> = below.split('/').map(str::to_owned).collect();
            let kind = super::names::kind(entry);
            found.insert(key, TreeEntry { path: path::join(&root, below), kind, bytes: entry.bytes });
        }
        Ok(())
    })?;
    let count = |kind: &str| found.values().filter(|entry| entry.kind == kind).count();
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let (directories, files) = (wide(count("directory")), wide(found.len() - count("directory")));
    let lines = tree_lines(&root, &found);
    let view = TreeView { path: root, directories, files, entries: found.into_values().collect() };
    output::print(global.json, &view, |view| {
        format!("{lines}\n{} directories, {} files\n", view.directories, view.files)
    })
}

/// The tree with branches, as tree(1) draws it.
fn tree_lines(root: &str, found: &BTreeMap<Vec<String>, TreeEntry>) -> String {
    let mut text = format!("{root}\n");
    let keys: Vec<_> = found.keys().collect();
    // Whether something more follows at each depth, looking from the end.
    let mut open: Vec<bool> = Vec::new();
    let mut lines = Vec::new();
    for key in keys.iter().rev() {
        let depth = key.len();
        open.resize(depth, false);
        let mut line = String::new();
        for more in &open[..depth - 1] {
            line.push_str(if *more { "│   " } else { "    " });
        }
        line.push_str(if open[depth - 1] { "├── " } else { "└── " });
        open[depth - 1] = true;
        let entry = &found[*key];
        line.push_str(path::name(&entry.path));
        if entry.kind == "directory" {
            line.push('/');
        }
        lines.push(line);
    }
    for line in lines.iter().rev() {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[derive(Debug, Serialize)]
struct Sum {
    path: String,
    bytes: u64,
    sha256: String,
}

/// Hashes what flows through it.
struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) fn checksum(global: &Global, client: &Client, paths: &[String]) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct View {
        sums: Vec<Sum>,
    }
    let paths = paths.iter().map(|path| path::checked(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut total = 0;
    for path in &paths {
        total += client.stat(path)?.bytes;
    }
    let progress = Progress::default();
    let sums = watch(
        global.progress,
        total,
        &progress,
        |_| format!("read {} files", paths.len()),
        || {
            let sum = |path: &String| -> Result<Sum, ClientError> {
                let mut hasher = Hasher(Sha256::new());
                let bytes = client.read(path, 0..u64::MAX, &mut hasher, &progress)?;
                Ok(Sum { path: path.clone(), bytes, sha256: output::hex(&hasher.0.finalize()) })
            };
            paths.iter().map(sum).collect::<Result<Vec<_>, ClientError>>()
        },
    )?;
    output::print(global.json, &View { sums }, |view| {
        view.sums.iter().map(|sum| format!("{}  {}\n", sum.sha256, sum.path)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_branches_where_something_follows() {
        let mut found = BTreeMap::new();
        for (path, kind) in
            [("/hot/a", "directory"), ("/hot/a/x", "file"), ("/hot/a/y", "file"), ("/hot/b", "file")]
        {
            let key = path.split('/').skip(2).map(str::to_owned).collect();
            found.insert(key, TreeEntry { path: path.into(), kind, bytes: 0 });
        }
        assert_eq!(tree_lines("/hot", &found), "/hot\n├── a/\n│   ├── x\n│   └── y\n└── b\n");
    }
}
