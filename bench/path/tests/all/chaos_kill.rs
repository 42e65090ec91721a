//! `kill -9` of each kind of process while files are put: what was acknowledged stays, and the region goes on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nova_path::answer::Host;
use rustix::process::{Pid, Signal, kill_process};

use super::rig::{IN_SYNC_TIMEOUT, Rig, Tree};

/// Writers at a time.
const WRITERS: usize = 2;
/// Batches that are acknowledged before the kill, after it, and after the restart.
const BATCHES_EACH: usize = 4;
/// Each of these goals is reached within this time.
const GOAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Batches tried at most; with the edge away each fails at once.
const BATCHES_MAX: usize = 400;
/// Between two tries while the edge is away.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Whether writers may see errors while the process is away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writers {
    GoOn,
    MayFail,
}

/// Puts batch after batch, kills, restarts, and compares every batch that was acknowledged.
fn survives(name: &str, writers: Writers, kill: impl FnOnce(&Rig) -> String) {
    let mut rig = Rig::start(name, 1024);
    let sources = rig.local("sources");
    let nova = rig.nova().clone();
    let (stop, next, acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let write = || {
        let mut done = Vec::new();
        let mut failed = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= BATCHES_MAX {
                break;
            }
            let tree = Tree::make(sources.join(format!("batch-{index}")), 16, 300_000, index as u64);
            let put = tree.put(&nova, &format!("/load/{index}"));
            if put.code == Some(0) {
                acknowledged.fetch_add(1, Ordering::Relaxed);
                done.push((index, tree));
            } else {
                failed.push(put.to_string());
                thread::sleep(RETRY_AFTER);
            }
        }
        (done, failed)
    };
    // A goal that is missed ends the writers, and is reported when they have ended.
    let more = |what: &str| {
        let wanted = acknowledged.load(Ordering::Relaxed) + BATCHES_EACH;
        let begun = Instant::now();
        while acknowledged.load(Ordering::Relaxed) < wanted {
            if begun.elapsed() > GOAL_TIMEOUT {
                return Err(format!(
                    "no {BATCHES_EACH} batches were acknowledged {what} within {GOAL_TIMEOUT:?}"
                ));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    let (outcome, done, failed) = thread::scope(|scope| {
        let handles: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
        let outcome = (|| {
            more("before the kill")?;
            let victim = kill(&rig);
            if writers == Writers::GoOn {
                more("after the kill")?;
            }
            rig.region.restart(&victim).map_err(|error| format!("restart {victim}: {error:#}"))?;
            more("after the restart")
        })();
        stop.store(true, Ordering::Relaxed);
        let mut done = Vec::new();
        let mut failed = Vec::new();
        for handle in handles {
            let (some, errors) = handle.join().unwrap();
            done.extend(some);
            failed.extend(errors);
        }
        (outcome, done, failed)
    });
    outcome.unwrap_or_else(|error: String| panic!("{error}; failed puts: {failed:#?}"));
    if writers == Writers::GoOn {
        assert!(failed.is_empty(), "writers saw the kill: {failed:#?}");
    }
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    assert!(done.len() >= 2 * BATCHES_EACH);
    for (index, tree) in &done {
        rig.assert_intact(&format!("/load/{index}"), tree);
    }
    rig.region.down().unwrap();
}

fn kill_one(rig: &Rig, host: &str, pid: fn(&Host) -> Option<i32>) -> String {
    let id = pid(rig.region.processes().host(host).unwrap()).unwrap();
    kill_process(Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
    host.to_owned()
}

fn kill_by_name(rig: &Rig, name: &str) -> String {
    rig.region.kill(name).unwrap()[0].name.clone()
}

#[test]
fn a_killed_storage_host_loses_no_acknowledged_file() {
    survives("killed_storage_host", Writers::GoOn, |rig| kill_by_name(rig, "storage-3"));
}

#[test]
fn a_killed_agent_of_the_edge_loses_no_acknowledged_file() {
    survives("killed_edge_agent", Writers::MayFail, |rig| kill_one(rig, "compute-1", |host| host.agent_pid));
}

#[test]
fn a_killed_novad_of_the_edge_loses_no_acknowledged_file() {
    survives("killed_edge_novad", Writers::MayFail, |rig| kill_one(rig, "compute-1", |host| host.novad_pid));
}

#[test]
fn a_killed_controller_loses_no_acknowledged_file() {
    survives("killed_controller", Writers::GoOn, |rig| kill_by_name(rig, "controller-2"));
}

#[test]
fn a_killed_leader_loses_no_acknowledged_file() {
    survives("killed_leader", Writers::GoOn, |rig| kill_by_name(rig, "leader"));
}
