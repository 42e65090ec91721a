//! The leaders of the two groups sit on different controllers when that is possible: their logs and states then
//! have a machine each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nova_raft::{Group, StateMachine};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::cluster_service::is_reachable;
use crate::machine::{Cluster, Files};

/// How often a controller looks whether it leads both.
const LOOK: Duration = Duration::from_secs(2);
/// How long a controller that stops waits for another to lead.
const HAND_OVER_MAX: Duration = Duration::from_millis(1000);

/// Gives the files group away when this controller was seen leading both twice in a row.
pub(crate) async fn spread_leaders(
    cluster: Group<Cluster>,
    files: Group<Files>,
    members: Arc<BTreeMap<u64, String>>,
) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen_before = false;
    loop {
        looks.tick().await;
        let both = cluster.is_leader() && files.is_leader();
        if both && seen_before {
            hand_over(&files, &members).await;
        }
        seen_before = both && !seen_before;
    }
}

/// Asks the next reachable controller to lead `group`; tells whether one was asked.
async fn hand_over<S: StateMachine>(group: &Group<S>, members: &BTreeMap<u64, String>) -> bool {
    let own = group.id();
    let after = members.range(own + 1..).chain(members.range(..own));
    for (id, addr) in after {
        if is_reachable(addr).await {
            tracing::info!(to = id, "hands the leadership of a group over");
            return group.transfer_leader(*id).await.is_ok();
        }
    }
    false
}

/// Before this controller stops: another leads, so that nobody has to wait for an election.
pub(crate) async fn step_down<S: StateMachine>(group: &Group<S>, members: &BTreeMap<u64, String>) {
    if !group.is_leader() || !hand_over(group, members).await {
        return;
    }
    let led_elsewhere = async {
        while group.is_leader() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(HAND_OVER_MAX, led_elsewhere).await.is_err() {
        tracing::info!("no other controller took over in time; one will be elected");
    }
}
