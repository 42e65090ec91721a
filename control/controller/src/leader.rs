//! What a leader does without being asked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nova_raft::{Group, StateMachine};
use nova_state::{ClusterCommand, ClusterStep, FilesCommand, StepAnswer};
use nova_units::Replicas;
use novafs_namespace::{Command, Renewals, Upkeep};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::attendance::{Attendance, Wanted};
use crate::clock;
use crate::machine::{Cluster, Files};
use crate::reads::Reads;

/// How often a leader plans.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Whether this controller leads the cluster group, and in which term; the term is 0 when it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leading {
    term: u64,
}

impl Leading {
    /// It leads, and its soft state has begun.
    pub(crate) fn leads(self) -> bool {
        self.term != 0
    }

    /// Waits until this controller does not lead, or leads in another term.
    pub(crate) async fn lost(leading: &mut watch::Receiver<Self>) {
        let now = *leading.borrow();
        if now.leads() {
            // An error means that the controller is stopping.
            let _ = leading.wait_for(|later| *later != now).await;
        }
    }
}

/// The term in which `group` is led from here, once a majority confirmed it.
async fn confirmed_term<S: StateMachine>(group: &Group<S>, reads: &Reads<S>, known: u64) -> u64 {
    let metrics = group.metrics();
    if !metrics.is_leader {
        return 0;
    }
    if metrics.term == known || reads.read().await.is_ok() { metrics.term } else { 0 }
}

/// How many copies the namespaces want, as far as the log of the files group is applied here, and the usual count. Every
/// controller has both states; this one may lag, and then groups are made a moment later.
pub(crate) fn replicas_wanted(files: &Group<Files>) -> BTreeSet<Replicas> {
    let namespace = files.local().0.namespace;
    namespace.spaces().map(|(_, space)| space.replicas).chain([Replicas::DEFAULT]).collect()
}

/// Plans for the cluster group while this controller leads it.
pub(crate) async fn lead_cluster(
    group: Group<Cluster>,
    files: Group<Files>,
    reads: Reads<Cluster>,
    attendance: Arc<Attendance>,
    groups_wanted: usize,
    leading: watch::Sender<Leading>,
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let known = leading.borrow().term;
        let term = confirmed_term(&group, &reads, known).await;
        if term != known {
            if term != 0 {
                attendance.restart();
                tracing::info!(term, "this controller leads the cluster group");
            }
            leading.send_replace(Leading { term });
        }
        if term == 0 {
            continue;
        }
        let state = group.local().0;
        attendance.answer(&state);
        let at_ms = clock::wall().0;
        let fleet = attendance.plan_fleet(&state).into_iter();
        let wanted = Wanted { groups: groups_wanted, replicas: replicas_wanted(&files) };
        let groups = nova_groups::plan(&state.groups, &attendance.observe(&state, wanted)).into_iter();
        let groups = attendance.plan_paces(&state).into_iter().chain(groups);
        let steps: Vec<ClusterStep> = fleet
            .map(|op| nova_fleet::Command { at_ms, op: Some(op) }.into())
            .chain(groups.map(|op| nova_groups::Command { at_ms, op: Some(op) }.into()))
            .collect();
        if steps.is_empty() {
            continue;
        }
        tracing::debug!(?steps, "planned");
        match group.propose(ClusterCommand { steps }).await {
            Ok(answers) => {
                log_answers(&answers);
                attendance.answer(&group.local().0);
            }
            Err(error) => {
                tracing::warn!(%error, "a plan for the cluster was not carried out; it is made again")
            }
        }
    }
}

fn log_answers(answers: &[StepAnswer]) {
    for answer in answers {
        match answer {
            StepAnswer::Fleet(answer) => tracing::info!(?answer, "fleet"),
            StepAnswer::Groups(answer) => {
                if let Some(reason) = answer.refused {
                    tracing::warn!(reason, "a plan for the groups was refused");
                }
                let changed = answer
                    .groups
                    .iter()
                    .filter(|(_, outcome)| matches!(outcome, nova_groups::Outcome::Changed(_)));
                tracing::info!(
                    changed = changed.count(),
                    of = answer.groups.len(),
                    incarnated = ?answer.incarnated,
                    "groups"
                );
            }
            StepAnswer::Keys(answer) => tracing::info!(?answer, "keys"),
            StepAnswer::Unknown => tracing::warn!("this controller does not know its own plan"),
        }
    }
}

/// Plans for the files group while this controller leads it.
pub(crate) async fn lead_files(group: Group<Files>, reads: Reads<Files>, renewals: Arc<Mutex<Renewals>>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = 0;
    let mut upkeep = Upkeep::default();
    loop {
        ticks.tick().await;
        let term = confirmed_term(&group, &reads, known).await;
        let soft = || renewals.lock().unwrap_or_else(PoisonError::into_inner);
        if term != known && term != 0 {
            *soft() = Renewals::default();
            upkeep = Upkeep::default();
            tracing::info!(term, "this controller leads the files group");
        }
        known = term;
        if term == 0 {
            continue;
        }
        let state = group.local().0;
        let held = upkeep.is_held();
        let (now, wall) = (clock::monotonic(), clock::wall());
        let ops = novafs_namespace::plan(&state.namespace, &mut soft(), &mut upkeep, now, wall);
        if upkeep.is_held() != held {
            tell_hold(upkeep.is_held());
        }
        if ops.is_empty() {
            continue;
        }
        let at_ms = wall.0;
        let commands =
            ops.into_iter().map(|op| Command { client: 0, sequence: 0, at_ms, op: Some(op) }).collect();
        if let Err(error) = group.propose(FilesCommand { commands }).await {
            tracing::warn!(%error, "a plan for the files was not carried out; it is made again");
        }
    }
}

fn tell_hold(held: bool) {
    if held {
        tracing::warn!(
            "the wall clock jumped by a minute or more: nothing expires and nothing leaves the trash; \
             set the clock right, or restart this controller when it is"
        );
    } else {
        tracing::info!("the wall clock is right again: retention and trash go on");
    }
}
