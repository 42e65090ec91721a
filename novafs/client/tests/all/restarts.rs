//! Agents, data planes, sessions and replies that go away in the middle.
use std::time::{Duration, Instant};

use super::region::{Region, check, options, put};

#[test]
fn a_write_that_is_unavailable_is_sent_again() {
    let region = Region::start();
    let client = region.client();
    region.disk.lock().unwrap().unavailable = 5;
    let files = region.make_files(&[10, 3 << 20]);
    let report = put(&client, &files, &options());
    assert_eq!((report.files, report.restarted), (2, 0));
    check(&client, &files);
}

#[test]
fn files_are_written_anew_when_the_data_plane_dies() {
    let mut region = Region::start();
    let client = region.client();
    region.disk.lock().unwrap().dies_after_writes = Some(20);
    let files = region.make_files(&[100, 9 << 20, 2 << 20, 70_000, 5 << 20, 1, 2, 3, 4 << 20]);
    let report = std::thread::scope(|scope| {
        let putting = scope.spawn(|| put(&client, &files, &options()));
        let started = Instant::now();
        while !region.novad.as_ref().unwrap().is_dead() {
            assert!(started.elapsed() < Duration::from_secs(10), "it never died");
            std::thread::sleep(Duration::from_millis(5));
        }
        region.disk.lock().unwrap().dies_after_writes = None;
        region.start_novad();
        putting.join().unwrap()
    });
    assert_eq!((report.files, report.failed), (9, 0), "{:?}", report.failures);
    assert!(report.restarted > 0);
    check(&client, &files);
}

#[test]
fn a_lost_publish_reply_is_asked_for_again_and_nothing_is_done_twice() {
    let region = Region::start();
    let client = region.client();
    region.metadata().lost_replies = 2;
    let files = region.make_files(&[10, 20]);
    let report = put(&client, &files, &options());
    assert_eq!((report.files, report.failed), (2, 0), "{:?}", report.failures);
    assert_eq!(region.metadata().files.len(), 2);
}

#[test]
fn files_of_a_session_that_ended_are_put_again_under_another() {
    let region = Region::start();
    let client = region.client();
    region.metadata().fence_next_publish = true;
    let files = region.make_files(&[10, 20, 1 << 20]);
    let report = put(&client, &files, &options());
    assert_eq!((report.files, report.failed), (3, 0), "{:?}", report.failures);
    assert!(report.restarted > 0);
    assert!(region.metadata().sessions.is_empty(), "sessions are closed at the end");
    check(&client, &files);
}

#[test]
fn metadata_without_a_leader_is_waited_for() {
    let region = Region::start();
    let client = region.client();
    region.metadata().unavailable = 4;
    let files = region.make_files(&[10]);
    assert_eq!(put(&client, &files, &options()).files, 1);
}
