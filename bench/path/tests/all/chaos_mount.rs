//! `kill -9` under a mount while programs write: what was synced is right afterwards, and writing goes on.

use std::fs::{self, File};
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::mounted::{Mounted, bytes_of, cannot_mount};
use super::rig::{IN_SYNC_TIMEOUT, Rig};

/// Programs that write.
const WRITERS: usize = 3;
/// Files each has synced before the kill, and after it.
const FILES_EACH: usize = 4;
/// Each of these goals is reached within this time.
const GOAL_TIMEOUT: Duration = Duration::from_secs(90);

fn content(writer: usize, index: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed((writer * 1000 + index) as u64);
    let mut bytes = vec![0; random.usize(1..600_000)];
    random.fill(&mut bytes);
    bytes
}

/// Writes and syncs files one after the other, kills, restarts, and compares everything that was synced.
fn survives(name: &str, kill: impl FnOnce(&Rig) -> String) {
    if cannot_mount().is_some() {
        return;
    }
    let mut rig = Rig::start(name, 1024);
    let mounted = Mounted::start(&rig, "/hot");
    let (stop, synced) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let at = mounted.at.clone();
    let write = |writer: usize| {
        for index in 0.. {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let bytes = content(writer, index);
            let path = at.join(format!("{writer}-{index}"));
            let mut file = File::create(&path).map_err(|error| format!("make {path:?}: {error}"))?;
            for piece in bytes.chunks(50_000) {
                file.write_all(piece).map_err(|error| format!("write {path:?}: {error}"))?;
            }
            file.sync_all().map_err(|error| format!("sync {path:?}: {error}"))?;
            synced.lock().unwrap().push((writer, index));
        }
        Ok::<(), String>(())
    };
    let more = |what: &str| {
        let wanted = synced.lock().unwrap().len() + WRITERS * FILES_EACH;
        let begun = Instant::now();
        while synced.lock().unwrap().len() < wanted {
            if begun.elapsed() > GOAL_TIMEOUT {
                return Err(format!("not enough files were synced {what} within {GOAL_TIMEOUT:?}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };
    let (outcome, failed) = thread::scope(|scope| {
        let write = &write;
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        let outcome = (|| {
            more("before the kill")?;
            let victim = kill(&rig);
            rig.region.restart(&victim).map_err(|error| format!("restart {victim}: {error:#}"))?;
            more("after the restart")
        })();
        stop.store(true, Ordering::Relaxed);
        let ended = writers.into_iter().map(|writer| writer.join().unwrap());
        (outcome, ended.filter_map(Result::err).collect::<Vec<_>>())
    });
    assert!(outcome.is_ok() && failed.is_empty(), "{outcome:?}; writers: {failed:#?}");
    let synced = synced.into_inner().unwrap();
    let check = |at: &std::path::Path| {
        for (writer, index) in &synced {
            let found = bytes_of(&at.join(format!("{writer}-{index}")));
            assert!(found == content(*writer, *index), "file {index} of writer {writer} differs");
        }
    };
    check(&at);
    mounted.end();
    rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT).unwrap();
    // From the replicas, by another client.
    let again = Mounted::start(&rig, "/hot");
    check(&again.at);
    assert!(fs::read_dir(&again.at).unwrap().count() >= synced.len());
    again.end();
    rig.region.down().unwrap();
}

#[test]
fn a_killed_novad_under_a_mount_loses_nothing_that_was_synced() {
    survives("mount_killed_novad", |rig| {
        let id = rig.region.processes().host("compute-1").unwrap().novad_pid.unwrap();
        kill_process(Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
        "compute-1".to_owned()
    });
}

#[test]
fn a_killed_storage_host_under_a_mount_loses_nothing_that_was_synced() {
    survives("mount_killed_storage", |rig| rig.region.kill("storage-2").unwrap()[0].name.clone());
}
