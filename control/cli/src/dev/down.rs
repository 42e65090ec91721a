//! `nova dev down`: hosts end before the controllers that they report to.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use crate::arguments::Global;
use crate::dev::process::Process;
use crate::dev::region::{Place, Program, Region, end};
use crate::output;

/// How long processes may take to end before they are killed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize)]
struct View {
    stopped: Vec<Named>,
    killed: Vec<Named>,
    wiped: bool,
}

/// A process, by name.
#[derive(Debug, Serialize)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) process: &'static str,
    pub(super) pid: i32,
}

impl Named {
    pub(super) fn of((place, process): &(Place<'_>, Process)) -> Self {
        Self { name: place.name.to_owned(), process: place.program.word(), pid: process.pid }
    }
}

pub(super) fn run(global: &Global, wipe: bool) -> anyhow::Result<()> {
    let (region, lock) = Region::load_locked(&global.region_folder()?)?;
    let running = region.running();
    let killed = end_all(&region)?;
    if wipe {
        wipe_folder(&region)?;
    }
    drop(lock);
    let stopped = running.iter().filter(|ended| !killed.contains(ended)).map(Named::of).collect();
    let view = View { stopped, killed: killed.iter().map(Named::of).collect(), wiped: wipe };
    output::print(global.json, &view, |view| {
        let mut text = format!("{} processes ended", view.stopped.len() + view.killed.len());
        for ended in &view.killed {
            text.push_str(&format!(
                "\n{} of {} did not end in time and was killed",
                ended.process, ended.name
            ));
        }
        text.push_str(match (view.wiped, view.stopped.is_empty() && view.killed.is_empty()) {
            (true, _) => "; the region is deleted\n",
            (false, true) => "; the region was down already\n",
            (false, false) => "; `nova dev up` starts the region again\n",
        });
        text
    })
}

/// Ends every process of the region; gives those that had to be killed.
pub(super) fn end_all(region: &Region) -> anyhow::Result<Vec<(Place<'_>, Process)>> {
    let (controllers, hosts): (Vec<_>, Vec<_>) =
        region.running().into_iter().partition(|(place, _)| place.program == Program::Control);
    let mut killed = end(&hosts, PATIENCE)?;
    killed.extend(end(&controllers, PATIENCE)?);
    Ok(killed)
}

/// Deletes everything that `nova dev up` made.
fn wipe_folder(region: &Region) -> anyhow::Result<()> {
    if region.sockets != region.folder {
        remove_folder(&region.sockets)?;
    }
    // What tells that the folder is ours goes last, so that an interrupted wipe can be repeated.
    clear_folder(&region.folder, &Region::file(&region.folder))?;
    remove_folder(&region.folder)
}

/// Removes what is in `folder`, except `keep`.
pub(super) fn clear_folder(folder: &Path, keep: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        if path == keep {
            continue;
        }
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            remove_folder(&path)?;
        } else {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn remove_folder(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::region::tests::region_in;

    #[test]
    fn a_wipe_leaves_neither_folder_nor_sockets() {
        let (parent, sockets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = parent.path().join("dev");
        fs::create_dir_all(folder.join("storage-1")).unwrap();
        fs::write(folder.join("storage-1/device.nova"), "blocks").unwrap();
        let region = Region { sockets: sockets.path().into(), ..region_in(&folder) };
        region.save().unwrap();
        wipe_folder(&region).unwrap();
        assert!(!folder.exists() && !sockets.path().exists() && parent.path().exists());
    }
}
