//! A program that turns its ring against novad: the others go on being served.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nova_ring::abi::{Answer, ClientCommand, OpenedWriter, Status};
use nova_ring::{LOOK_AGAIN, Link};
use rustix::fs::OFlags;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::kit::{Novad, PATIENCE};

/// How long an honest program is served beside the other one: so that its ring is looked at a few times unasked.
const BESIDE: Duration = Duration::from_millis(500);
/// Slots of each ring, and commands or waiting answers that novad keeps for one program.
const RING_SLOTS: usize = 256;
const KEPT_MAX: usize = 128;
/// Writers that novad keeps for one program.
const WRITERS_MAX: u64 = 1024;

/// Every eventfd of this process, by number.
fn eventfds() -> BTreeSet<i32> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    open.filter(|path| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("eventfd")))
        .map(|path| path.file_name().unwrap().to_str().unwrap().parse().unwrap())
        .collect()
}

/// Fills the doorbells that came after `before`, and makes every plain call on them wait.
fn spoil_doorbells(before: &BTreeSet<i32>) {
    let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let after = eventfds();
    assert!(after.len() > before.len(), "an attachment has a doorbell");
    for number in after.difference(before) {
        // A second descriptor of the same file, without unsafe.
        let bell = pidfd_getfd(&own, *number, PidfdGetfdFlags::empty()).unwrap();
        let flags = rustix::fs::fcntl_getfl(&bell).unwrap();
        rustix::io::write(&bell, &(u64::MAX - 1).to_le_bytes()).unwrap();
        rustix::fs::fcntl_setfl(&bell, flags.difference(OFlags::NONBLOCK)).unwrap();
    }
}

/// A command that is answered at once: nobody has that writer.
fn command(request: u64) -> ClientCommand {
    ClientCommand::CloseWriter { request, writer: u64::MAX }
}

/// Sends a command and waits for its answer.
fn answer_to(program: &mut Link, command: ClientCommand) -> Answer {
    let request = command.request();
    program.sender.push(command.encode()).unwrap();
    program.sender.ring();
    let asked = Instant::now();
    let slot = loop {
        if let Some(slot) = program.receiver.pop().unwrap() {
            break slot;
        }
        assert!(asked.elapsed() < PATIENCE, "request {request} was not answered");
        program.receiver.wait(LOOK_AGAIN).unwrap();
    };
    let answer = Answer::decode(&slot).unwrap();
    assert_eq!(answer.request, request);
    answer
}

pub(crate) fn ask(program: &mut Link, request: u64) {
    assert_eq!(answer_to(program, command(request)).status, Status::Invalid);
}

#[test]
fn a_program_has_as_many_writers_as_it_may_and_others_have_theirs() {
    let mut novad = Novad::start();
    let (mut greedy, mut modest) = (novad.program(), novad.program());
    let open = |request| ClientCommand::OpenWriter { request, key_domain: 0, key_version: 0 };
    let mut last = Answer::new(0, Status::Ok);
    for request in 0..WRITERS_MAX {
        last = answer_to(&mut greedy, open(request));
        assert_eq!(last.status, Status::Ok, "writer {request}");
    }
    assert_eq!(answer_to(&mut greedy, open(WRITERS_MAX)).status, Status::TooMany);
    assert_eq!(answer_to(&mut modest, open(0)).status, Status::Ok);
    let writer = OpenedWriter::decode(&last.detail).writer;
    let closed = answer_to(&mut greedy, ClientCommand::CloseWriter { request: 1, writer });
    assert_eq!(closed.status, Status::Ok);
    assert_eq!(answer_to(&mut greedy, open(2)).status, Status::Ok, "one was closed");
    drop((greedy, modest));
    novad.stop();
}

#[test]
fn a_hostile_program_neither_stops_novad_nor_takes_its_memory() {
    let mut novad = Novad::start();
    let before = eventfds();
    let mut hostile = novad.program();
    ask(&mut hostile, 0);
    spoil_doorbells(&before);
    let mut honest = novad.program();
    let mut pushed = 0;
    let began = Instant::now();
    for request in (0..).take_while(|_| began.elapsed() < BESIDE) {
        // As many commands as there is room for, answers never taken, always said to be asleep.
        while hostile.sender.push(command(request).encode()).is_ok() {
            pushed += 1;
        }
        let _ = hostile.receiver.prepare_sleep();
        ask(&mut honest, request);
    }
    assert!(pushed > RING_SLOTS, "its ring was never looked at");
    assert!(pushed <= 2 * RING_SLOTS + KEPT_MAX, "{pushed} commands of a program that takes no answer");
    drop((hostile, honest));
    novad.stop();
}
