//! What clients are shown, compared with what there is.

use std::collections::BTreeSet;

use novafs_namespace::{EntryView, Inode, ListPage};

use super::{Expected, Row, is_below, parent};
use crate::files::blocks_of;

impl Expected {
    /// Judges a page of a listing that was made now.
    ///
    /// # Errors
    /// What it shows wrongly.
    pub(crate) fn judge_page(
        &self,
        directory: &str,
        after: &str,
        limit: usize,
        page: &ListPage,
    ) -> Result<(), String> {
        let entries = self.entries(directory);
        let due: Vec<_> = entries.into_iter().filter(|(name, _)| *name > after).collect();
        let shown: Vec<_> = page.entries.iter().map(|entry| &*entry.name).collect();
        let names: Vec<_> = due.iter().take(limit).map(|(name, _)| *name).collect();
        if shown != names || page.more != (due.len() > limit) {
            return Err(format!(
                "a listing of {directory} behind {after:?} shows {shown:?}, more {}; there are {names:?} of {}",
                page.more,
                due.len()
            ));
        }
        due.iter()
            .zip(&page.entries)
            .try_for_each(|((_, row), entry)| row.map_or(Ok(()), |row| judge_entry(directory, row, entry)))
    }

    /// Judges a file that was opened by its path now.
    ///
    /// # Errors
    /// What it shows wrongly.
    pub(crate) fn judge_open(&self, path: &str, found: Option<(&EntryView, &Inode)>) -> Result<(), String> {
        match (self.files.get(path), found) {
            (None, None) => Ok(()),
            (Some(_), None) => Err(format!("an acknowledged file is gone: {path}")),
            (None, Some(_)) => Err(format!("a file that was never published appears: {path}")),
            (Some(row), Some((entry, inode))) => {
                judge_entry(parent(path), row, entry)?;
                let blocks: Vec<_> = blocks_of(inode).iter().map(|it| (it.block.0, it.group.0)).collect();
                if blocks == row.blocks {
                    Ok(())
                } else {
                    Err(format!("{path} has the blocks {blocks:?} and was published with {:?}", row.blocks))
                }
            }
        }
    }

    /// Judges the names that a listing of several pages found, begun at `mark`: what was there all the time is in it
    /// once, and what was not there at any time is not.
    ///
    /// # Errors
    /// What is missing or too much.
    pub(crate) fn judge_listing(&self, mark: usize, directory: &str, names: &[String]) -> Result<(), String> {
        let touched: BTreeSet<&str> = self.touched[mark..].iter().map(String::as_str).collect();
        if touched.iter().any(|path| *path == directory || is_below(directory, path)) {
            return Ok(());
        }
        let steady = |name: &str| !touched.contains(format!("{directory}/{name}").as_str());
        let there = self.entries(directory);
        let shown: Vec<&str> = names.iter().map(String::as_str).filter(|name| steady(name)).collect();
        let due: Vec<&str> = there.keys().copied().filter(|name| steady(name)).collect();
        if shown == due {
            return Ok(());
        }
        Err(format!("a listing of {directory} shows {shown:?} while {due:?} were there all the time"))
    }
}

fn judge_entry(directory: &str, row: &Row, entry: &EntryView) -> Result<(), String> {
    let found = (entry.inode.0, entry.bytes, entry.sha256);
    if found == (row.inode, row.bytes, Some(row.sha256)) {
        return Ok(());
    }
    Err(format!("{directory}/{} is {found:?} and was published as {row:?}", entry.name))
}
