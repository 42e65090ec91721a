//! Which shard of another host has a group: every answer between hosts says it, and the next request goes there at once.
//!
//! The head of an answer on the wire is the head of the service and two bytes more:
//!
//! | at | bytes | field |
//! | --- | --- | --- |
//! | end - 2 | 2 | shard of the answering host that served it, little endian |
//!
//! A signpost may be old. Then its shard passes the request on inside its host, and the answer says where the group is now.

use std::cell::RefCell;
use std::collections::BTreeMap;

use nova_profile::SHARDS_MAX;
use nova_units::{GroupId, NodeId};

/// Groups on other hosts of which the shard is remembered; past it all are forgotten, and learned again.
const SIGNPOSTS_MAX: usize = 1 << 16;
/// Bytes behind the head of an answer.
const MARK_BYTES: usize = 2;

/// The first shard of every host knows the way to the others.
pub(crate) const FIRST: u16 = 0;

/// Adds the shard that served to the head of an answer.
pub(crate) fn mark(head: &mut Vec<u8>, shard: u16) {
    head.extend(shard.to_le_bytes());
}

/// Takes the shard off the head of an answer; `None` when it says none that there can be.
pub(crate) fn take_mark(head: &mut Vec<u8>) -> Option<u16> {
    let shard = u16::from_le_bytes(*head.last_chunk::<MARK_BYTES>()?);
    head.truncate(head.len() - MARK_BYTES);
    (shard < SHARDS_MAX).then_some(shard)
}

/// What is known of other hosts. Groups that are not here are asked of the first shard.
#[derive(Debug, Default)]
pub(crate) struct Signposts(RefCell<BTreeMap<(NodeId, GroupId), u16>>);

impl Signposts {
    /// Where to ask a host about a group.
    pub(crate) fn shard_of(&self, node: NodeId, group: Option<GroupId>) -> u16 {
        let known = |group| self.0.borrow().get(&(node, group)).copied();
        group.and_then(known).unwrap_or(FIRST)
    }

    /// An answer about a group came from this shard.
    pub(crate) fn learn(&self, node: NodeId, group: Option<GroupId>, shard: u16) {
        let Some(group) = group else { return };
        let mut known = self.0.borrow_mut();
        if shard == FIRST {
            known.remove(&(node, group));
            return;
        }
        if known.len() >= SIGNPOSTS_MAX {
            known.clear();
        }
        known.insert((node, group), shard);
    }

    /// Nobody answered there: its host is asked by its first shard again.
    pub(crate) fn forget(&self, node: NodeId, group: Option<GroupId>) {
        self.learn(node, group, FIRST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_which_shard_served_it() {
        let mut head = vec![1, 2, 3];
        mark(&mut head, 0x0011);
        assert_eq!(head, [1, 2, 3, 0x11, 0]);
        assert_eq!((take_mark(&mut head), head.as_slice()), (Some(0x11), &[1, 2, 3][..]));
        for mut bad in [Vec::new(), vec![1], vec![1, 24, 0], vec![1, 0, 1]] {
            assert_eq!(take_mark(&mut bad), None, "no such shard, or no mark");
        }
    }

    #[test]
    fn a_group_is_asked_where_its_last_answer_came_from() {
        let (posts, node, group) = (Signposts::default(), NodeId(1), Some(GroupId(2)));
        assert_eq!(posts.shard_of(node, group), FIRST);
        posts.learn(node, group, 3);
        assert_eq!(posts.shard_of(node, group), 3);
        assert_eq!(posts.shard_of(NodeId(2), group), FIRST);
        assert_eq!(posts.shard_of(node, None), FIRST, "several groups");
        posts.learn(node, group, 1);
        assert_eq!(posts.shard_of(node, group), 1);
        posts.forget(node, group);
        assert_eq!(posts.shard_of(node, group), FIRST);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let posts = Signposts::default();
        for group in 0..=u32::try_from(SIGNPOSTS_MAX).unwrap() {
            posts.learn(NodeId(1), Some(GroupId(group)), 1);
        }
        assert_eq!(posts.0.borrow().len(), 1);
    }
}
