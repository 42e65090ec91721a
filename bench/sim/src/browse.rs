//! A program that looks around and tidies up: it lists, reads what others wrote, moves, removes and makes directories.

use std::rc::Rc;
use std::time::Duration;

use novafs_namespace::{MakeDirectory, Only, Op, PurgeTrash, Remove, Rename, Undelete};

use crate::ask::{Ask, Told};
use crate::expected::parent;
use crate::files::{FileHost, Running};

/// How long this program waits for an answer. Afterwards it does something else, and the request may still be
/// carried out.
const PATIENCE: Duration = Duration::from_secs(2);
/// Entries of a page: few, so that a listing takes several.
const PAGE_MAX: u64 = 4;
/// Pages of a listing before it is given up: names come and go meanwhile.
const PAGES_MAX: usize = 60;
const PAUSE_MS: u64 = 250;
/// Names of files and directories: few, so that they meet.
const FILE_NAMES: u64 = 24;
const DIRECTORY_NAMES: u64 = 4;
/// Namespaces; the last one does not exist at first.
const SPACES: [&str; 4] = ["hot", "warm", "scratch", "data"];

impl FileHost {
    /// Looks around until the run ends.
    pub(crate) async fn run_browse(self: Rc<Self>, _running: Running) {
        while !self.files.stopping.get() {
            match self.below(16) {
                0..=5 => self.read_some().await,
                6..=8 => self.list_some().await,
                9..=11 => self.move_some().await,
                12 => self.remove_some().await,
                13 => self.make_some().await,
                14 => self.turn_over_trash().await,
                _ => {
                    // The oracle judges sums when it compares the whole tree.
                    let _ = self.metadata.read(Ask::Usage(self.some_directory()), PATIENCE).await;
                }
            }
            self.pause_ms(PAUSE_MS).await;
        }
    }

    /// A path for a new file.
    pub(crate) fn fresh_path(&self) -> String {
        format!("{}/f{}", self.fresh_directory(), self.below(FILE_NAMES))
    }

    fn fresh_directory(&self) -> String {
        let space = usize::try_from(self.below(SPACES.len() as u64)).expect("few");
        let mut path = format!("/{}", SPACES[space]);
        for _ in 0..self.below(4) {
            path.push_str(&format!("/d{}", self.below(DIRECTORY_NAMES)));
        }
        path
    }

    fn some_directory(&self) -> String {
        let expected = self.metadata.group().expected();
        let count = expected.directories().len() as u64;
        let chosen = usize::try_from(self.below(count)).expect("few");
        expected.directories().iter().nth(chosen).cloned().unwrap_or_else(|| "/hot".to_owned())
    }

    fn some_file(&self) -> Option<String> {
        let expected = self.metadata.group().expected();
        let count = expected.files().len() as u64;
        let chosen = usize::try_from(self.below(count)).expect("few");
        expected.files().keys().nth(chosen).cloned()
    }

    async fn read_some(&self) {
        let path = match self.some_file() {
            Some(path) if !self.one_in(8) => path,
            _ => self.fresh_path(),
        };
        let Ok(Told::File(entry, inode)) = self.metadata.read(Ask::Open(path.clone()), PATIENCE).await else {
            return;
        };
        // During faults it may not be readable; what is read is judged.
        let _ = self.read_file(&path, &entry, &inode).await;
    }

    /// A listing in pages, while entries come and go.
    async fn list_some(&self) {
        let directory = self.some_directory();
        let mark = self.metadata.group().expected().mark();
        let mut names: Vec<String> = Vec::new();
        for _ in 0..PAGES_MAX {
            let after = names.last().cloned().unwrap_or_default();
            let limit = 1 + u32::try_from(self.below(PAGE_MAX)).expect("small");
            let ask = Ask::List { path: directory.clone(), after, limit };
            let Ok(Told::Page(page)) = self.metadata.read(ask, PATIENCE).await else { return };
            names.extend(page.entries.iter().map(|entry| entry.name.to_string()));
            if !page.more {
                self.files.history.borrow_mut().counts.listings += 1;
                let judged = self.metadata.group().expected().judge_listing(mark, &directory, &names);
                if let Err(wrong) = judged {
                    self.files.violation(wrong);
                }
                return;
            }
        }
    }

    async fn move_some(&self) {
        let moves_file = !self.one_in(4);
        let Some(source) = (if moves_file { self.some_file() } else { Some(self.some_directory()) }) else {
            return;
        };
        let target = match self.below(4) {
            // Another name beside it.
            0 => format!("{}/f{}", parent(&source), self.below(FILE_NAMES)),
            1 => self.some_file().unwrap_or_else(|| self.fresh_path()),
            2 => format!("{}/d{}", self.some_directory(), self.below(DIRECTORY_NAMES)),
            _ => format!("{}/f{}", self.some_directory(), self.below(FILE_NAMES)),
        };
        let (replace, exchange, no_replace) = (self.one_in(3), self.one_in(6), self.one_in(6));
        let rename = Rename { source, target, replace, exchange, no_replace, ..Rename::default() };
        if self.metadata.change(Op::Rename(rename), PATIENCE).await.is_ok() {
            self.files.history.borrow_mut().counts.moved += 1;
        }
    }

    async fn remove_some(&self) {
        let (path, recursive) = match self.some_file() {
            Some(path) if !self.one_in(4) => (path, false),
            _ => (self.some_directory(), self.one_in(2)),
        };
        let only = match self.below(6) {
            0 => Only::Directory,
            1 => Only::NotDirectory,
            _ => Only::Any,
        };
        let remove = Remove { path, recursive, base: 0, only: only.into() };
        if self.metadata.change(Op::Remove(remove), PATIENCE).await.is_ok() {
            self.files.history.borrow_mut().counts.removed += 1;
        }
    }

    /// Has something back from the trash, or lets it go.
    async fn turn_over_trash(&self) {
        let id = {
            let expected = self.metadata.group().expected();
            let items: Vec<u64> = expected.trash().map(|(number, _)| number).collect();
            let chosen = usize::try_from(self.below(items.len() as u64 + 1)).expect("few");
            // One that is not there now and then.
            items.get(chosen).copied().unwrap_or(1)
        };
        let op = match self.below(8) {
            0 => Op::PurgeTrash(PurgeTrash { id: 0 }),
            1 => Op::PurgeTrash(PurgeTrash { id }),
            2..=5 => Op::Undelete(Undelete { id, target: String::new() }),
            _ => Op::Undelete(Undelete { id, target: self.fresh_path() }),
        };
        if self.metadata.change(op, PATIENCE).await.is_ok() {
            self.files.history.borrow_mut().counts.trash_turned += 1;
        }
    }

    async fn make_some(&self) {
        let (path, parents) = (self.fresh_directory(), self.one_in(2));
        let make = MakeDirectory { path, mode: 0o755, parents, ..MakeDirectory::default() };
        let _ = self.metadata.change(Op::MakeDirectory(make), PATIENCE).await;
    }
}
