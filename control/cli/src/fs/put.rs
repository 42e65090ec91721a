//! `nova fs put`: local files in, many at a time.

use std::fs::File;
use std::io::{BufReader, stdin};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use nova_api::files::failure::Code;
use novafs_client::{Client, ClientError, EntryKind, Progress, PutOptions, Trouble};
use serde::Serialize;

use crate::arguments::Global;
use crate::exit::Stop;
use crate::fs::walk::Found;
use crate::fs::{links, millis, namespace, path, seconds, watch};
use crate::output;

/// What to put where.
#[derive(Args, Debug)]
pub(crate) struct Put {
    /// Read the paths to put from a file, one a line, `-` for standard input. They are absolute or relative to --base.
    #[arg(long, value_name = "LIST")]
    files_from: Option<PathBuf>,
    /// Names in NovaFS keep the path below this folder. With --files-from, default: the working folder.
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Replace files that exist. Without it they are errors.
    #[arg(long)]
    replace: bool,
    /// Local files and folders, then the target in NovaFS. A source goes into the target; a single file becomes the
    /// target, unless that is a directory or ends with a slash.
    #[arg(required = true, value_name = "SOURCE... TARGET")]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct View {
    files: u64,
    bytes: u64,
    /// Symbolic links, and further names of files.
    links: u64,
    skipped: u64,
    failed: u64,
    seconds: f64,
    /// Longest time between two acknowledged writes while some were in flight.
    stall_ms_max: u64,
    /// Files that were read again: the data plane or the writer session went away, or the file changed meanwhile.
    retries: u64,
}

pub(super) fn run(global: &Global, client: &Client, put: &Put) -> anyhow::Result<()> {
    let found = find(client, put)?;
    let options = PutOptions { replace: put.replace, ..PutOptions::default() };
    let progress = Progress::default();
    let begun = Instant::now();
    if let Some(directory) = found.directories.first() {
        namespace::check(client, &directory.target)?;
    }
    for directory in &found.directories {
        client.mkdir(&directory.target, directory.mode, true)?;
    }
    let (files, total) = (found.files.len(), found.bytes);
    let sources = found.files.into_iter();
    let report = watch(
        global.progress,
        total,
        &progress,
        |counts| format!("put {} of {files} files", counts.files),
        || client.put(sources, &options, &progress),
    )?;
    let mut failed: Vec<_> =
        report.failures.into_iter().map(|(local, error)| (local.display().to_string(), error)).collect();
    let (mut links, mut links_failed) = (0, 0);
    let symbolic =
        found.links.iter().map(|(name, text)| (name, links::symbolic(client, name, text, put.replace)));
    let names =
        found.names.iter().map(|(first, name)| (name, links::further_name(client, first, name, put.replace)));
    for (name, made) in symbolic.chain(names) {
        match made {
            Ok(()) => links += 1,
            Err(error) => {
                links_failed += 1;
                failed.push((name.clone(), error));
            }
        }
    }
    let mut failures = found.failed;
    let walk_failed = u64::try_from(failures.len()).unwrap_or(u64::MAX);
    let unavailable =
        !failed.is_empty() && failed.iter().all(|(_, error)| error.trouble() == Trouble::Unavailable);
    let exists =
        |error: &ClientError| matches!(error, ClientError::Refused { code: Code::AlreadyExists, .. });
    let some_exist = failed.iter().any(|(_, error)| exists(error));
    for (what, error) in failed {
        failures.push(format!("{what}: {:#}", anyhow::Error::new(error)));
    }
    let view = View {
        files: report.files,
        bytes: report.bytes,
        links,
        skipped: found.skipped,
        failed: report.failed + links_failed + walk_failed,
        seconds: seconds(begun.elapsed()),
        stall_ms_max: millis(progress.counts().longest_stall),
        retries: report.restarted,
    };
    output::print(global.json, &view, View::text)?;
    if some_exist {
        output::say(format_args!("nova: some files exist; --replace replaces them"));
    }
    super::fail_if_any(&failures, view.failed, "put", unavailable && walk_failed == 0)
}

impl View {
    fn text(&self) -> String {
        let mut text =
            format!("{} files, {} in {:.1} s", self.files, output::bytes(self.bytes), self.seconds);
        if let Some(rate) = super::rate(self.bytes, self.seconds) {
            text.push_str(&format!(" ({}/s)", output::bytes(rate)));
        }
        if self.links > 0 {
            text.push_str(&format!("; {} links", self.links));
        }
        if self.skipped > 0 {
            text.push_str(&format!("; {} special files skipped", self.skipped));
        }
        if self.retries > 0 {
            text.push_str(&format!("; {} files begun again", self.retries));
        }
        text.push('\n');
        text
    }
}

/// Everything that is to be put.
fn find(client: &Client, put: &Put) -> anyhow::Result<Found> {
    let (target, sources) = put.paths.split_last().expect("clap asks for one");
    let target_text = target
        .to_str()
        .ok_or_else(|| Stop::usage(format!("the target {} is not UTF-8", target.display())))?;
    let target = path::checked(target_text)?;
    let mut found = Found::default();
    if let Some(list) = &put.files_from {
        if !sources.is_empty() {
            return Err(Stop::usage("give either SOURCE paths or --files-from, and one TARGET"));
        }
        let base = match &put.base {
            Some(base) => std::path::absolute(base)?,
            None => std::env::current_dir().context("find the working folder")?,
        };
        if list == Path::new("-") {
            found.add_list(stdin().lock(), &base, &target)?;
        } else {
            let file = File::open(list).with_context(|| format!("open {}", list.display()))?;
            found.add_list(BufReader::new(file), &base, &target)?;
        }
        return Ok(found);
    }
    if sources.is_empty() {
        return Err(Stop::usage("give at least one SOURCE before the TARGET, or --files-from LIST"));
    }
    if let Some(base) = &put.base {
        let base = std::path::absolute(base)?;
        for source in sources {
            found.add_below(source, &base, &target)?;
        }
        return Ok(found);
    }
    // Only for a single file the target may be its new name.
    let renames = sources.len() == 1
        && sources[0].is_file()
        && !target_text.ends_with('/')
        && !matches!(client.stat(&target), Ok(entry) if entry.kind() == EntryKind::Directory);
    for source in sources {
        let target = if renames { target.clone() } else { into(&target, source)? };
        found.add(source, target)?;
    }
    Ok(found)
}

/// Where `source` goes when it goes into `target`: what has no name of its own, as `.`, gives its content.
fn into(target: &str, source: &Path) -> anyhow::Result<String> {
    let Some(name) = source.file_name() else { return Ok(target.to_owned()) };
    let name =
        name.to_str().ok_or_else(|| Stop::usage(format!("the name {} is not UTF-8", source.display())))?;
    Ok(path::join(target, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_goes_into_the_target_under_its_name() {
        for (source, target) in [
            ("photos", "/hot/photos"),
            ("/usr/share/", "/hot/share"),
            (".", "/hot"),
            ("/", "/hot"),
            ("..", "/hot"),
        ] {
            assert_eq!(into("/hot", Path::new(source)).unwrap(), target, "{source}");
        }
    }

    #[test]
    fn the_json_of_a_put_has_the_keys_that_scripts_read() {
        let view = View {
            files: 2,
            bytes: 10,
            links: 3,
            skipped: 1,
            failed: 0,
            seconds: 0.5,
            stall_ms_max: 12,
            retries: 0,
        };
        let json = serde_json::to_string(&view).unwrap();
        assert_eq!(
            json,
            r#"{"files":2,"bytes":10,"links":3,"skipped":1,"failed":0,"seconds":0.5,"stall_ms_max":12,"retries":0}"#
        );
        assert_eq!(view.text(), "2 files, 10 B in 0.5 s (20 B/s); 3 links; 1 special files skipped\n");
        assert_eq!(millis(std::time::Duration::from_micros(1_999)), 1);
    }
}
