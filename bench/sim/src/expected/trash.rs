//! What was removed can be had back for a while; what is too old goes.

use std::collections::{BTreeMap, BTreeSet};

use novafs_namespace::{Answer, Expire, Purge, PurgeTrash, STANDARD_SPACES, SetSpace, Space, Undelete};

use super::{Expected, Row, Use, depth, parent, settle};

/// The policy of a namespace, as far as it lets files go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    retention_ms: Option<u64>,
    undelete_ms: u64,
}

fn ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("policies are of days")
}

impl Default for Policy {
    fn default() -> Self {
        let space = Space::default();
        Self { retention_ms: space.retention.map(ms), undelete_ms: ms(space.undelete) }
    }
}

/// The namespaces that are there from the start.
pub(super) fn standard_policies() -> BTreeMap<String, Policy> {
    let policy = |retention| Policy { retention_ms: Some(ms(retention)), ..Policy::default() };
    STANDARD_SPACES.iter().map(|space| (format!("/{}", space.name), policy(space.retention))).collect()
}

/// Something in the trash: a file, or a tree by the ends of its paths.
#[derive(Clone, Debug)]
pub(super) struct Item {
    path: String,
    purge_ms: u64,
    files: BTreeMap<String, Row>,
    directories: Vec<String>,
    /// Of a namespace.
    policy: Option<Policy>,
}

/// The path of the namespace in which `path` lies.
fn space_of(path: &str) -> &str {
    path[1..].find('/').map_or(path, |at| &path[..=at])
}

impl Expected {
    /// What can be had back: numbers and where it was.
    pub(crate) fn trash(&self) -> impl Iterator<Item = (u64, &str)> {
        self.trash.range(self.purge_below..).map(|(number, item)| (*number, item.path.as_str()))
    }

    /// The blocks of what is in the trash, also of what cannot be had back any more.
    pub(crate) fn blocks_in_trash(&self) -> BTreeSet<u64> {
        let rows = self.trash.values().flat_map(|item| item.files.values());
        rows.flat_map(|row| row.blocks.iter().map(|(id, _)| *id)).collect()
    }

    /// Takes what is at `path` out of the tree: into the trash, or away.
    pub(super) fn discard(&mut self, path: &str) {
        let end = |of: &str| of[path.len()..].to_owned();
        let is_bare = self.directories.contains(path) && self.is_empty(path);
        let undelete_ms = self.policies.get(space_of(path)).map_or(0, |policy| policy.undelete_ms);
        let mut item = Item {
            path: path.to_owned(),
            purge_ms: self.clock.saturating_add(undelete_ms),
            files: BTreeMap::new(),
            directories: Vec::new(),
            policy: if depth(path) == 1 { self.policies.remove(path) } else { None },
        };
        for file in self.files_at(path) {
            let row = self.files.remove(&file).expect("its key was just seen");
            item.files.insert(end(&file), row);
            self.touched.push(file);
        }
        for directory in self.directories_at(path) {
            self.directories.remove(&directory);
            item.directories.push(end(&directory));
            self.touched.push(directory);
        }
        if is_bare {
            return;
        }
        if undelete_ms == 0 {
            return self.release(item);
        }
        self.last_trashed += 1;
        self.trash.insert(self.last_trashed, item);
    }

    fn release(&mut self, item: Item) {
        for (id, _) in item.files.into_values().flat_map(|row| row.blocks) {
            self.set(id, Use::Gone);
        }
    }

    pub(super) fn take_policy(&mut self, set: &SetSpace, answer: &Answer) -> Result<(), String> {
        let policy = self.policies.get_mut(&format!("/{}", set.name));
        let fits = policy.is_some();
        if let Some(policy) = policy {
            if let Some(retention_ms) = set.retention_ms {
                policy.retention_ms = (retention_ms != 0).then_some(retention_ms);
            }
            policy.undelete_ms = set.undelete_ms.unwrap_or(policy.undelete_ms);
        }
        settle(&format!("{set:?}"), fits, answer)
    }

    pub(super) fn take_undelete(&mut self, undelete: &Undelete, answer: &Answer) -> Result<(), String> {
        let item = self.trash.get(&undelete.id).filter(|_| undelete.id >= self.purge_below);
        let target = match item {
            Some(item) if undelete.target.is_empty() => item.path.clone(),
            _ => undelete.target.clone(),
        };
        let fits = item.is_some_and(|item| {
            (depth(&target) == 1) == item.policy.is_some()
                && (item.policy.is_some() || self.is_directory(space_of(&target)))
                && self.may_make(parent(&target))
                && !self.exists(&target)
        });
        if fits {
            let item = self.trash.remove(&undelete.id).expect("it was found above");
            self.make(parent(&target));
            self.policies.extend(item.policy.map(|policy| (target.clone(), policy)));
            for (end, row) in item.files {
                self.touched.push(format!("{target}{end}"));
                self.files.insert(format!("{target}{end}"), row);
            }
            for end in item.directories {
                self.touched.push(format!("{target}{end}"));
                self.directories.insert(format!("{target}{end}"));
            }
        }
        settle(&format!("{undelete:?} to {target}"), fits, answer)
    }

    pub(super) fn take_purge_trash(&mut self, purge: PurgeTrash, answer: &Answer) -> Result<(), String> {
        if purge.id == 0 {
            self.purge_below = self.last_trashed + 1;
            return settle("to purge the trash", true, answer);
        }
        let item = self.trash.remove(&purge.id);
        let fits = item.is_some();
        item.into_iter().for_each(|item| self.release(item));
        settle(&format!("{purge:?}"), fits, answer)
    }

    /// Of the leader: what it was asked to let go, then what is due, the earliest first.
    pub(super) fn take_purge(&mut self, purge: Purge, answer: &Answer) -> Result<(), String> {
        let now = self.clock.min(purge.now_ms);
        if purge.early {
            return Err(format!("purged early while there is room: {purge:?}"));
        }
        for _ in 0..purge.limit {
            let asked = self.trash.keys().next().copied().filter(|number| *number < self.purge_below);
            let due = self.trash.iter().filter(|(_, item)| item.purge_ms <= now);
            let due = due.min_by_key(|(number, item)| (item.purge_ms, **number)).map(|(number, _)| *number);
            let Some(number) = asked.or(due) else { break };
            let item = self.trash.remove(&number).expect("it was found in this map");
            self.release(item);
        }
        settle("to purge", true, answer)
    }

    /// Of the leader: files whose retention is over go into the trash. What is named too early stays.
    pub(super) fn take_expire(&mut self, expire: &Expire, answer: &Answer) -> Result<(), String> {
        let now = self.clock.min(expire.now_ms);
        for inode in &expire.inodes {
            let found = self.files.iter().find(|(_, row)| row.inode == *inode);
            let Some((path, row)) = found.map(|(path, row)| (path.clone(), row)) else { continue };
            let policy = self.policies.get(space_of(&path));
            let retention_ms = policy.and_then(|policy| policy.retention_ms);
            if retention_ms.is_some_and(|retention_ms| row.changed_ms.saturating_add(retention_ms) <= now) {
                self.discard(&path);
            }
        }
        settle("to expire", true, answer)
    }
}
