//! What is left when the files have come: further names, removals, and what folders say of themselves.

use std::collections::{BTreeMap, BTreeSet};

use novabulk_files::{Kind, Name, Request};

use super::{Copy, Item, Job, walk};
use crate::trouble::CopyError;

/// Names that one request removes.
const REMOVALS_MAX: usize = 12;

/// A further name of a file: itself, and the place of the item that the file comes as.
pub(super) type Further = (Item, usize);

/// Parts further names of files from the rest: a file comes once.
pub(super) fn part_links(all: Vec<Item>) -> (Vec<Item>, Vec<Further>) {
    let mut first: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    let (mut items, mut links): (Vec<Item>, Vec<Further>) = (Vec::with_capacity(all.len()), Vec::new());
    for item in all {
        let identity = &item.entry.identity;
        if matches!(item.entry.kind, Kind::File { links: 2.., .. }) {
            let key = (identity.device, identity.inode);
            if let Some(&place) = first.get(&key) {
                links.push((item, place));
                continue;
            }
            first.insert(key, items.len());
        }
        items.push(item);
    }
    (items, links)
}

impl Copy<'_> {
    /// Gives files their further names.
    pub(super) async fn link(&self, items: &[Item], links: &[Further]) -> Result<(), CopyError> {
        for (item, place) in links {
            self.changed.set(true);
            let link = Request::Link { name: item.target.clone(), existing: items[*place].target.clone() };
            match self.target.ask(link, None).await {
                Err(CopyError::Host(trouble)) => self.tally.fail(trouble.text),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Gives directories their modes, attributes and times: the deepest first, because what happens in a directory
    /// changes its time.
    pub(super) async fn settle(&self, items: &[Item]) -> Result<(), CopyError> {
        let mut folders: Vec<Item> = items
            .iter()
            .filter(|item| item.entry.kind == Kind::Directory && !item.target.is_root())
            .cloned()
            .collect();
        folders.sort_by_key(|item| core::cmp::Reverse(item.target.depth()));
        let mut begin = 0;
        while begin < folders.len() {
            let end = walk::page_end(&folders, begin);
            let page = &folders[begin..end];
            let settle = Request::Settle { entries: page.iter().map(Item::at_target).collect() };
            self.each(settle, |place| page[place.min(page.len() - 1)].target.to_string()).await?;
            begin = end;
        }
        Ok(())
    }

    /// Removes from directories that were copied what the source does not have; nothing when anything failed.
    pub(super) async fn delete(&self, job: &Job, items: &[Item], links: &[Further]) -> Result<(), CopyError> {
        if self.tally.counts().failed > 0 {
            self.tally.fail("nothing was removed, because not everything was copied");
            return Ok(());
        }
        let all = items.iter().chain(links.iter().map(|(item, _)| item));
        let keep: BTreeSet<&Name> = all.map(|item| &item.target).collect();
        let mut extra = Vec::new();
        for item in items.iter().filter(|item| item.entry.kind == Kind::Directory) {
            let there = match self.list_of(self.target, &item.target).await {
                // In a dry run it was not made.
                Err(CopyError::Host(_)) if job.orders.dry_run => continue,
                there => there?,
            };
            for entry in there {
                let last = entry.name.split().expect("an entry of a folder").1;
                // What patterns leave out is left alone.
                let left_out = match entry.kind {
                    Kind::Directory => self.filter.excludes(&item.relative.child(last)?),
                    _ => !self.filter.takes_file(&item.relative.child(last)?),
                };
                if !keep.contains(&entry.name) && !left_out {
                    extra.push(entry.name);
                }
            }
        }
        for names in extra.chunks(REMOVALS_MAX) {
            if !job.orders.dry_run {
                let remove = Request::Remove { names: names.to_vec() };
                self.each(remove, |place| names[place.min(names.len() - 1)].to_string()).await?;
            }
            self.changed.set(true);
            names.iter().for_each(|name| self.tally.remove(name.to_string()));
        }
        Ok(())
    }

    /// The folder whose file system is flushed at the end.
    pub(super) fn sync_folder(&self, job: &Job) -> Name {
        if job.into {
            return job.target.clone();
        }
        job.target.split().map_or(Name::ROOT, |(folder, _)| folder)
    }
}
