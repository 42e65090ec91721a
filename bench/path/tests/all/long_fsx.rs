//! Random operations on files of a mount, several seeds at once, against what memory says.

use std::env;
use std::fs::{self, OpenOptions};
use std::str::FromStr;
use std::thread;

use super::fsx::Exercise;
use super::mapped_file::{self, MappedFile};
use super::mounted::{Mounted, bytes_of, cannot_mount};
use super::rig::Rig;

/// Seeds that run beside each other, each with its own file.
const SEEDS: u64 = 4;
/// Operations of each.
const STEPS: usize = 1200;
/// Where `NOVA_SEED` does not say where to begin.
const SEED: u64 = 20_260_101;

/// A number from the environment, or `default`.
fn number<T: FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Err(_) => default,
        Ok(said) => said.parse().unwrap_or_else(|_| panic!("{name}={said} is no number")),
    }
}

#[test]
fn random_operations_leave_the_bytes_of_a_model() {
    if cannot_mount().is_some() {
        return;
    }
    let (first, seeds) = (number("NOVA_SEED", SEED), number("NOVA_FSX_SEEDS", SEEDS));
    let steps = number("NOVA_FSX_STEPS", STEPS);
    let rig = Rig::start("long_fsx", 1024);
    let program = mapped_file::build(&rig.local("program"));
    let mounted = Mounted::start(&rig, "/hot");
    let run = |seed: u64| {
        let mut exercise = Exercise::new(seed, mounted.at.join(format!("fsx-{seed}")), program.clone());
        exercise.run(steps).map(|()| exercise)
    };
    let ended: Vec<Result<Exercise, String>> = thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (first..first + seeds).map(|seed| scope.spawn(move || run(seed))).collect();
        running.into_iter().map(|seed| seed.join().unwrap()).collect()
    });
    let failed: Vec<&String> = ended.iter().filter_map(|ended| ended.as_ref().err()).collect();
    for told in &failed {
        eprintln!("{told}");
    }
    assert!(failed.is_empty(), "{} of {seeds} seeds failed", failed.len());
    mounted.end();
    // From the replicas, by another client.
    let again = Mounted::start(&rig, "/hot");
    for exercise in ended.into_iter().flatten() {
        exercise.check(&bytes_of(&again.at.join(exercise.name()))).unwrap();
    }
    again.end();
    rig.assert_no_findings();
    rig.region.down().unwrap();
}

/// Rounds of the test below; each is another chance.
const ROUNDS: usize = 60;
const MAPPED_BYTES: usize = 2 << 20;

/// The kernel writes pages of a mapping back whenever it likes, also while an open empties the file.
#[test]
fn pages_of_a_mapping_do_not_come_back_behind_a_cut_by_o_trunc() {
    if cannot_mount().is_some() {
        return;
    }
    let rig = Rig::start("long_fsx_cut", 1024);
    let program = mapped_file::build(&rig.local("program"));
    let mounted = Mounted::start(&rig, "/hot");
    let path = mounted.at.join("cut");
    fs::write(&path, vec![1; MAPPED_BYTES]).unwrap();
    let mut mapping = MappedFile::start(&program, &path, MAPPED_BYTES);
    let writes = OpenOptions::new().write(true).open(&path).unwrap();
    let mut left = 0;
    for _ in 0..ROUNDS {
        writes.set_len(MAPPED_BYTES as u64).unwrap();
        mapping.write(0, &vec![2; MAPPED_BYTES]).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| writes.sync_all().unwrap());
            scope.spawn(|| drop(OpenOptions::new().write(true).truncate(true).open(&path).unwrap()));
        });
        writes.sync_all().unwrap();
        left += usize::from(fs::metadata(&path).unwrap().len() != 0);
    }
    drop((mapping, writes));
    assert_eq!(left, 0, "in {left} of {ROUNDS} rounds the file is not empty");
    mounted.end();
    rig.region.down().unwrap();
}
