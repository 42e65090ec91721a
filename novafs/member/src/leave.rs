//! Groups that moved to other hosts: their space is given back.

use std::rc::Rc;
use std::time::Duration;

use nova_device::{Clock, Peers, Shard};

use crate::Member;

/// Data of a group that was left are dropped after this: every promise given as its member has run out by then, and a
/// host that is to join again at once finds what it had.
const LEFT_FOR: Duration = Duration::from_secs(15);

impl<S: Shard, P: Peers> Member<S, P> {
    /// Drops the data of groups that have been whole without this host for a while.
    pub(crate) async fn drop_left(self: &Rc<Self>) {
        let now = self.shard.clock().now();
        let due: Vec<_> = {
            let drive = self.drive.borrow();
            let mut left = self.left.borrow_mut();
            let held = self.store.group_ids();
            left.retain(|group, _| held.contains(group) && drive.host.has_left(*group));
            for group in held.into_iter().filter(|group| drive.host.has_left(*group)) {
                left.entry(group).or_insert(now);
            }
            let long_ago = left.iter().filter(|(_, since)| now.saturating_sub(**since) >= LEFT_FOR);
            long_ago.map(|(group, _)| *group).collect()
        };
        for group in due {
            // The drop is in the log's queue before this task waits: whatever joins again comes behind it.
            let forgotten = self.drive.borrow_mut().host.forget(group);
            if forgotten && self.store.drop_group(group).await.is_ok() {
                self.left.borrow_mut().remove(&group);
                self.count(|counters| counters.groups_left += 1);
            }
        }
    }
}
