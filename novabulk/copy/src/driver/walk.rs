//! What the source has.

use std::collections::{BTreeSet, VecDeque};

use novabulk_files::{ENTRIES_MAX, Entry, HEAD_BYTES_MAX, Kind, Name, Reply, Request};

use super::{Copy, Item, Job, Source};
use crate::trouble::CopyError;

/// Directories that are listed at the same time.
const LISTS_MAX: usize = 8;

/// A source, where it goes, and the folder that names of patterns begin below.
struct Base {
    source: Name,
    target: Name,
}

impl Base {
    /// Where an entry goes, and its name below the source.
    fn place(&self, name: &Name) -> Result<(Name, Name), CopyError> {
        let relative = name.below(&self.source).expect("an entry that was checked to be below its source");
        Ok((self.target.join(&relative)?, relative))
    }
}

impl Copy<'_> {
    /// Everything that is to be copied, folders before what is in them.
    pub(super) async fn walk(&self, job: &Job) -> Result<Vec<Item>, CopyError> {
        let mut items = Vec::new();
        for source in &job.sources {
            let base = Base { source: source.name.clone(), target: target_of(job, source)? };
            let Reply::Status { entry } =
                self.source.ask(Request::Stat { name: source.name.clone() }, None).await?.reply
            else {
                return Err(self.source.wrong("a question for an entry is answered with something else"));
            };
            let is_folder = entry.kind == Kind::Directory;
            self.add(&mut items, &base, Entry { name: source.name.clone(), ..entry })?;
            if is_folder {
                self.walk_below(&mut items, &base).await?;
            }
        }
        if self.filter.includes_some() {
            leave_empty_out(&mut items);
        }
        Ok(items)
    }

    async fn walk_below(&self, items: &mut Vec<Item>, base: &Base) -> Result<(), CopyError> {
        let mut folders = VecDeque::from([base.source.clone()]);
        while !folders.is_empty() {
            self.check_stopped()?;
            let now: Vec<Name> = folders.drain(..folders.len().min(LISTS_MAX)).collect();
            let listed = nova_device::sync::join_all(now.iter().map(|folder| self.list(folder))).await;
            for entries in listed {
                for entry in entries? {
                    let folder = (entry.kind == Kind::Directory).then(|| entry.name.clone());
                    if self.add(items, base, entry)? {
                        folders.extend(folder);
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds an entry, unless a pattern leaves it out.
    fn add(&self, items: &mut Vec<Item>, base: &Base, entry: Entry) -> Result<bool, CopyError> {
        let (target, relative) = base.place(&entry.name)?;
        let left_out = match entry.kind {
            // A single file is named by its own name.
            _ if relative.is_root() && !entry.is_file() => false,
            _ if relative.is_root() => !self.filter.takes_file(&last_of(&entry.name)),
            Kind::Directory => self.filter.excludes(&relative),
            Kind::File { .. } | Kind::Link { .. } => !self.filter.takes_file(&relative),
        };
        if left_out {
            return Ok(false);
        }
        if items.len() == ENTRIES_MAX {
            return Err(CopyError::TooMany { entries_max: ENTRIES_MAX });
        }
        items.push(Item { entry, target, relative });
        Ok(true)
    }

    /// What is in a folder of the source.
    async fn list(&self, folder: &Name) -> Result<Vec<Entry>, CopyError> {
        match self.list_of(self.source, folder).await {
            // It went away, or may not be read: the rest is copied.
            Err(CopyError::Host(trouble)) => {
                self.tally.fail(trouble.text);
                Ok(Vec::new())
            }
            listed => listed,
        }
    }

    /// What is in a folder of an end: direct children only, each once, whatever the end says.
    pub(super) async fn list_of(&self, end: &crate::End, folder: &Name) -> Result<Vec<Entry>, CopyError> {
        let (mut all, mut after): (Vec<Entry>, Vec<u8>) = (Vec::new(), Vec::new());
        loop {
            let list = Request::List { folder: folder.clone(), after: after.clone() };
            let Reply::Listed { entries, skipped, failures, next } = end.ask(list, None).await?.reply else {
                return Err(end.wrong("a list is answered with something else"));
            };
            for entry in entries {
                let inside = entry.name.split().is_some_and(|(parent, _)| parent == *folder);
                if !inside || all.last().is_some_and(|last: &Entry| last.name >= entry.name) {
                    return Err(end.wrong(format!("{} is not what a list of {folder} has next", entry.name)));
                }
                if all.len() == ENTRIES_MAX {
                    return Err(CopyError::TooMany { entries_max: ENTRIES_MAX });
                }
                all.push(entry);
            }
            if core::ptr::eq(end, self.source) {
                self.tally.count(|counts| counts.skipped += u64::from(skipped));
                failures.into_iter().for_each(|text| self.tally.fail(text));
            }
            match next {
                None => return Ok(all),
                Some(next) if next > after => after = next,
                Some(_) => return Err(end.wrong(format!("the list of {folder} does not go on"))),
            }
        }
    }
}

/// Where a source goes.
pub(super) fn target_of(job: &Job, source: &Source) -> Result<Name, CopyError> {
    match source.name.split() {
        Some((_, last)) if job.into && !source.content => Ok(job.target.child(last)?),
        _ => Ok(job.target.clone()),
    }
}

fn last_of(name: &Name) -> Name {
    name.split().map_or(Name::ROOT, |(_, last)| Name::new(last).expect("a component of a name"))
}

/// When only some files are copied: folders in which none of them is are left out.
fn leave_empty_out(items: &mut Vec<Item>) {
    let mut used: BTreeSet<Name> = BTreeSet::new();
    for item in items.iter().filter(|item| item.entry.kind != Kind::Directory) {
        let mut above = item.target.clone();
        while let Some((folder, _)) = above.split() {
            if !used.insert(folder.clone()) {
                break;
            }
            above = folder;
        }
    }
    items.retain(|item| {
        item.entry.kind != Kind::Directory || item.relative.is_root() || used.contains(&item.target)
    });
}

/// Behind the last entry from `begin` on that goes into one head.
pub(super) fn page_end(items: &[Item], begin: usize) -> usize {
    let mut bytes = 0;
    for (place, item) in items.iter().enumerate().skip(begin) {
        bytes += item.entry.head_bytes() + item.target.as_bytes().len();
        if place > begin && bytes > HEAD_BYTES_MAX / 2 {
            return place;
        }
    }
    items.len()
}
