//! Quotas of directories and policies of namespaces.

use core::time::Duration;

use nova_units::{Replicas, UNIT_LOG2_MAX, UNIT_LOG2_MIN};

use crate::answer::{Answer, Code, Done, Failure};
use crate::command::{SetQuota, SetSpace};
use crate::model::{Namespace, Node, Quota, ROOT};
use crate::path::Path;

impl Namespace {
    pub(super) fn set_quota(&mut self, set: &SetQuota) -> Result<Answer, Failure> {
        let path = Path::parse_at(set.base, &set.path)?;
        let id = self.resolve(&path)?;
        if self.inode(id).as_directory().is_none() {
            return Err(Failure::new(Code::NotADirectory, &set.path, "a quota is of a directory"));
        }
        if let Node::Directory(directory) = &mut self.inode_mut(id).node {
            directory.quota = Quota { bytes_max: set.bytes_max, files_max: set.files_max };
        }
        Ok(Done {}.into())
    }

    pub(super) fn set_space(&mut self, set: &SetSpace) -> Result<Answer, Failure> {
        let refused = |code, message| Err(Failure::new(code, &set.name, message));
        let Some(id) = self.child(ROOT, &set.name) else {
            return refused(Code::NotFound, "there is no namespace of this name; make the directory first");
        };
        let mut space = self.spaces.get(&id).cloned().unwrap_or_default();
        if let Some(ms) = set.retention_ms {
            space.retention = (ms != 0).then(|| Duration::from_millis(ms));
        }
        if let Some(ms) = set.undelete_ms {
            space.undelete = Duration::from_millis(ms);
        }
        if let Some(count) = set.replicas {
            let Some(replicas) = Replicas::new(count) else {
                return refused(Code::Invalid, Replicas::RANGE);
            };
            space.replicas = replicas;
        }
        if let Some(log2) = set.unit_log2 {
            let known = u8::try_from(log2).ok().filter(|log2| (UNIT_LOG2_MIN..=UNIT_LOG2_MAX).contains(log2));
            let Some(log2) = known else {
                return refused(Code::Invalid, "unit_log2 is 12 to 16");
            };
            space.unit_log2 = log2;
        }
        if let Some(key_domain) = set.key_domain
            && key_domain != space.key_domain
        {
            if self.inode(id).as_directory().is_some_and(|directory| directory.children > 0) {
                let message =
                    "the key domain changes only while the namespace is empty; move its files away first";
                return refused(Code::NotEmpty, message);
            }
            space.key_domain = key_domain;
        }
        self.spaces.insert(id, space);
        Ok(Done {}.into())
    }
}
