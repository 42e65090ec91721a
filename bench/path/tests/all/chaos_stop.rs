//! A storage host that is stopped and goes on: it is no longer a member when it wakes, and acts as none.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::registers::Registers;
use super::rig::{IN_SYNC_TIMEOUT, Rig};

/// How long it is stopped: short of being noticed, dropped, and given up with its lease long over.
const STOPS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(6), Duration::from_secs(60)];
/// Our own bar is two seconds; a machine that is busy with other things adds to it.
const STALL_MAX: Duration = Duration::from_secs(8);

#[test]
fn a_host_stopped_for_a_second_or_a_minute_stalls_writes_for_seconds_and_wakes_up_fenced() {
    let mut rig = Rig::start("stopped", 512);
    let registers = Registers::make(rig.nova(), "/registers", rig.local("registers"), 4);
    let stop = AtomicBool::new(false);
    let stalls: Vec<Duration> = thread::scope(|scope| {
        for writer in 0..2 {
            let (registers, stop) = (&registers, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    registers.write(writer);
                    registers.write(writer + 2);
                }
            });
        }
        let (registers, stopped) = (&registers, &stop);
        scope.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for register in 0..registers.count() {
                    registers.read(register);
                }
            }
        });
        let stalls = STOPS.iter().zip(["storage-1", "storage-2", "storage-3"]).map(|(time, host)| {
            let novad = rig.region.processes().host(host).unwrap().novad_pid.unwrap();
            let signal = |signal| kill_process(Pid::from_raw(novad).unwrap(), signal).unwrap();
            registers.reset_stall();
            signal(Signal::STOP);
            thread::sleep(*time);
            let stall = registers.stall();
            signal(Signal::CONT);
            // What it had begun before is under way again; readers see whether any of it counts.
            thread::sleep(Duration::from_secs(3));
            let whole = rig.region.wait_in_sync(3, IN_SYNC_TIMEOUT);
            println!("{host} stopped for {time:?}: writes stalled for {stall:?}, whole again: {whole:?}");
            (stall, whole)
        });
        let outcome: Vec<_> = stalls.collect();
        stop.store(true, Ordering::Relaxed);
        outcome.into_iter().map(|(stall, whole)| whole.map(|_| stall).unwrap()).collect()
    });
    for (stall, time) in stalls.iter().zip(STOPS) {
        assert!(*stall < STALL_MAX, "stopped for {time:?}, writes stalled for {stall:?}");
    }
    let totals = registers.settle();
    println!("{totals:?}");
    assert_eq!(totals.failed, 0, "no write or read failed: {totals:?}");
    rig.assert_no_findings();
    rig.region.refresh().unwrap();
    rig.region.down().unwrap();
}
