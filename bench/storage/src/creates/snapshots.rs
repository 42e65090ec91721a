//! When controllers write snapshots, seen from outside: a snapshot has another name until it is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// When some controller wrote one, from begin to end, in order.
    pub(crate) spans: Vec<(Instant, Instant)>,
    /// Length of the last one.
    pub(crate) bytes_last: u64,
}

impl Written {
    pub(crate) fn longest(&self) -> Duration {
        self.spans.iter().map(|(begin, end)| *end - *begin).max().unwrap_or_default()
    }
}

/// Looks until it is ended.
#[derive(Debug)]
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Written>,
}

/// The snapshots of the files group of the controller in the folder `home`.
pub(crate) fn folder_below(home: &Path) -> Result<PathBuf> {
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        if folder.ends_with("files/snapshots") {
            return Ok(folder);
        }
        for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let path = entry?.path();
            folders.extend(path.is_dir().then_some(path));
        }
    }
    anyhow::bail!("{} has no snapshots of the files group", home.display())
}

impl Watch {
    pub(crate) fn start(folders: &[PathBuf]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (folders, ends) = (folders.to_vec(), Arc::clone(&over));
        let thread = thread::spawn(move || {
            let mut written = Written::default();
            let mut begun: Option<Instant> = None;
            while !ends.load(Ordering::Relaxed) {
                let now = Instant::now();
                match (begun, folders.iter().any(|folder| is_written(folder))) {
                    (None, true) => begun = Some(now),
                    (Some(begin), false) => {
                        written.spans.push((begin, now));
                        begun = None;
                    }
                    _ => {}
                }
                thread::sleep(LOOK_EVERY);
            }
            written.spans.extend(begun.map(|begin| (begin, Instant::now())));
            written.bytes_last = folders.iter().filter_map(|folder| newest_bytes(folder)).max().unwrap_or(0);
            written
        });
        Self { over, thread }
    }

    pub(crate) fn end(self) -> Written {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("looking at folders does not panic")
    }
}

fn paths(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

fn is_written(folder: &Path) -> bool {
    paths(folder).any(|path| path.extension().is_some_and(|extension| extension == "tmp"))
}

fn newest_bytes(folder: &Path) -> Option<u64> {
    let whole = paths(folder).filter(|path| path.extension().is_some_and(|extension| extension == "snap"));
    fs::metadata(whole.max()?).ok().map(|about| about.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_seen_from_its_begin_to_its_name() {
        let home = std::env::temp_dir().join(format!("nova-creates-{}", std::process::id()));
        let folder = home.join("data/files/snapshots");
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(folder_below(&home).unwrap(), folder);
        let watch = Watch::start(std::slice::from_ref(&folder));
        thread::sleep(Duration::from_millis(50));
        fs::write(folder.join("0.tmp"), "12345").unwrap();
        thread::sleep(Duration::from_millis(100));
        fs::rename(folder.join("0.tmp"), folder.join("0000000000000001-1-1.snap")).unwrap();
        thread::sleep(Duration::from_millis(50));
        let written = watch.end();
        fs::remove_dir_all(&home).unwrap();
        assert_eq!((written.spans.len(), written.bytes_last), (1, 5));
        assert!(written.longest() >= Duration::from_millis(90), "{:?}", written.longest());
    }
}
