//! Entries move, swap and are removed.

use novafs_namespace::{Answer, Only, Remove, Rename, STANDARD_SPACES};

use super::{Expected, depth, is_below, parent, settle};

/// Where one of two entries waits while they swap: no path of a program.
const ASIDE: &str = "/aside";

impl Expected {
    pub(super) fn take_rename(&mut self, rename: &Rename, answer: &Answer) -> Result<(), String> {
        let (source, target) = (rename.source.as_str(), rename.target.as_str());
        let fits = if rename.exchange { self.may_exchange(source, target) } else { self.may_move(rename) };
        if fits && source != target {
            if rename.exchange {
                self.move_all(source, ASIDE);
                self.move_all(target, source);
                self.move_all(ASIDE, target);
            } else {
                if self.exists(target) {
                    self.discard(target);
                }
                self.move_all(source, target);
            }
        }
        settle(&format!("{rename:?}"), fits, answer)
    }

    fn may_exchange(&self, source: &str, target: &str) -> bool {
        let both = self.exists(source) && self.exists(target) && depth(source) > 1 && depth(target) > 1;
        both && !is_below(source, target) && !is_below(target, source)
    }

    fn may_move(&self, rename: &Rename) -> bool {
        let (source, target) = (rename.source.as_str(), rename.target.as_str());
        if !self.exists(source) || depth(source) < 2 || depth(target) < 2 {
            return false;
        }
        let into = parent(target);
        if !self.is_directory(into) {
            return false;
        }
        if source == target {
            return true;
        }
        let replaces = rename.replace && !rename.no_replace;
        let moves_directory = self.is_directory(source);
        if moves_directory && (into == source || is_below(into, source)) {
            return false;
        }
        match (moves_directory, self.is_directory(target), self.files.contains_key(target)) {
            (_, false, false) => true,
            (false, false, true) => replaces,
            (true, true, false) => replaces && self.is_empty(target),
            _ => false,
        }
    }

    fn move_all(&mut self, source: &str, target: &str) {
        let moved = |path: &str| format!("{target}{}", &path[source.len()..]);
        for path in self.files_at(source) {
            let row = self.files.remove(&path).expect("its key was just seen");
            self.files.insert(moved(&path), row);
            self.touched.extend([moved(&path), path]);
        }
        for path in self.directories_at(source) {
            self.directories.remove(&path);
            self.directories.insert(moved(&path));
            self.touched.extend([moved(&path), path]);
        }
    }

    /// Paths of the files at and below `path`.
    pub(super) fn files_at(&self, path: &str) -> Vec<String> {
        self.files.keys().filter(|file| *file == path || is_below(file, path)).cloned().collect()
    }

    /// Paths of the directories at and below `path`.
    pub(super) fn directories_at(&self, path: &str) -> Vec<String> {
        self.directories.iter().filter(|one| *one == path || is_below(one, path)).cloned().collect()
    }

    pub(super) fn take_remove(&mut self, remove: &Remove, answer: &Answer) -> Result<(), String> {
        let path = remove.path.as_str();
        let is_standard = STANDARD_SPACES.iter().any(|space| path[1..] == *space.name);
        let is_directory = self.is_directory(path);
        let of_kind = match remove.only() {
            Only::Any => true,
            Only::NotDirectory => !is_directory,
            Only::Directory => is_directory,
        };
        let may_go = remove.recursive || !is_directory || self.is_empty(path);
        let fits = self.exists(path) && !is_standard && of_kind && may_go;
        if fits {
            self.discard(path);
        }
        settle(&format!("{remove:?}"), fits, answer)
    }
}
