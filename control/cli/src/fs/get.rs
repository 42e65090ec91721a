//! `nova fs get` and `nova fs cat`: files out.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use novafs_client::{Client, ClientError, EntryKind, GetOptions, GetReport, Progress, Trouble};
use serde::Serialize;

use crate::arguments::Global;
use crate::fs::{path, seconds, watch};
use crate::output;

/// What to get where.
#[derive(Args, Debug)]
pub(crate) struct Get {
    /// Files and directories in NovaFS; a directory comes with everything below it.
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,
    /// Local folder that they go into; made when it is not there. Files in it are replaced.
    #[arg(value_name = "TARGET_DIR")]
    target: PathBuf,
}

#[derive(Debug, Serialize)]
struct View {
    files: u64,
    bytes: u64,
    /// Symbolic links, and further names of files.
    links: u64,
    /// Files without their extended attributes: the local file system keeps none.
    xattrs_lost: u64,
    /// Files that have not got set-id bits: they would run as another owner or group than in NovaFS.
    set_id_left: u64,
    failed: u64,
    seconds: f64,
}

pub(super) fn run(global: &Global, client: &Client, get: &Get) -> anyhow::Result<()> {
    let sources =
        get.sources.iter().map(|source| path::checked(source)).collect::<anyhow::Result<Vec<_>>>()?;
    let (mut files, mut total) = (0, 0);
    for source in &sources {
        let entry = client.stat(source)?;
        if entry.kind() == EntryKind::Directory {
            let usage = client.usage(source)?;
            (files, total) = (files + usage.files, total + usage.bytes);
        } else {
            (files, total) = (files + 1, total + entry.bytes);
        }
    }
    std::fs::create_dir_all(&get.target).with_context(|| format!("make folder {}", get.target.display()))?;
    let progress = Progress::default();
    let options = GetOptions::default();
    let begun = Instant::now();
    let report = watch(
        global.progress,
        total,
        &progress,
        |counts| format!("get {} of {files} files", counts.files),
        || {
            let mut all = GetReport::default();
            for source in &sources {
                let target = match path::name(source) {
                    "" => get.target.clone(),
                    name => get.target.join(name),
                };
                all.add(client.get(source, &target, &options, &progress)?);
            }
            Ok(all)
        },
    )?;
    let view = View {
        files: report.files,
        bytes: report.bytes,
        links: report.links,
        xattrs_lost: report.xattrs_lost,
        set_id_left: report.set_id_left,
        failed: report.failed,
        seconds: seconds(begun.elapsed()),
    };
    output::print(global.json, &view, View::text)?;
    let unavailable = report.failures.iter().all(|(_, error)| error.trouble() == Trouble::Unavailable);
    let failures: Vec<_> = report
        .failures
        .into_iter()
        .map(|(path, error)| format!("{path}: {:#}", anyhow::Error::new(error)))
        .collect();
    super::fail_if_any(&failures, view.failed, "got", unavailable)
}

impl View {
    fn text(&self) -> String {
        let rate = super::rate(self.bytes, self.seconds);
        let rate = rate.map_or_else(String::new, |rate| format!(" ({}/s)", output::bytes(rate)));
        let mut text =
            format!("{} files, {} in {:.1} s{rate}", self.files, output::bytes(self.bytes), self.seconds);
        for (count, what) in [
            (self.links, "links"),
            (self.xattrs_lost, "files without their extended attributes, which the target keeps not"),
            (self.set_id_left, "files without set-id bits, as their owner is another here"),
        ] {
            if count > 0 {
                text.push_str(&format!("; {count} {what}"));
            }
        }
        text.push('\n');
        text
    }
}

/// Writes files to standard output, one after the other.
pub(super) fn cat(client: &Client, paths: &[String]) -> anyhow::Result<()> {
    let paths = paths.iter().map(|path| path::checked(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut out = std::io::stdout().lock();
    for path in &paths {
        match client.read(path, 0..u64::MAX, &mut out, &Progress::default()) {
            Ok(_) => {}
            // Whoever reads has enough (`| head`).
            Err(ClientError::Local { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    output::flush(&mut out)
}
