//! A mount under programs: random operations against a model, git, and cargo.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::mounted::{Mounted, bytes_of, cannot_mount};
use super::rig::Rig;

/// Operations of the random test.
const STEPS: usize = 3000;
/// Longest the file gets: over several transfers and many units.
const BYTES_MAX: usize = 5 << 20;

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// What fsx(1) does: any operation after any other, and the file is what memory says.
#[test]
fn random_operations_leave_the_bytes_of_a_model() {
    if cannot_mount().is_some() {
        return;
    }
    const SEED: u64 = 20_260_101;
    let rig = Rig::start("long_mount_random", 1024);
    let mounted = Mounted::start(&rig, "/hot");
    let path = mounted.at.join("fsx");
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut model: Vec<u8> = Vec::new();
    let mut files = [open(&path), open(&path)];
    for step in 0..STEPS {
        let file = &files[random.usize(0..2)];
        let at = random.usize(0..BYTES_MAX);
        let most = if random.u8(0..10) == 0 { 1_500_000 } else { 20_000 };
        let bytes = random.usize(1..most).min(BYTES_MAX - at).max(1);
        match random.u8(0..100) {
            0..40 => {
                let mut data = vec![0; bytes];
                random.fill(&mut data);
                // Many programs write at places that are round.
                let at = if random.bool() { at & !0xfff } else { at };
                file.write_all_at(&data, at as u64).unwrap();
                model.resize(model.len().max(at + bytes), 0);
                model[at..at + bytes].copy_from_slice(&data);
            }
            40..70 => {
                let mut found = vec![0; bytes];
                let count = file.read_at(&mut found, at as u64).unwrap();
                let end = model.len().min(at + bytes);
                let begin = at.min(end);
                assert!(
                    found[..count] == model[begin..begin + count],
                    "seed {SEED}, step {step}: read at {at}"
                );
                assert!(count > 0 || end == begin, "seed {SEED}, step {step}: nothing at {at}");
            }
            70..82 => {
                let to = if random.bool() { at } else { model.len() * random.usize(0..110) / 100 };
                let to = to.min(BYTES_MAX);
                file.set_len(to as u64).unwrap();
                model.resize(to, 0);
            }
            82..90 => file.sync_all().unwrap(),
            90..96 => files[random.usize(0..2)] = open(&path),
            _ => assert!(bytes_of(&path) == model, "seed {SEED}, step {step}: whole"),
        }
        let shown = fs::metadata(&path).unwrap().len();
        assert_eq!(shown, model.len() as u64, "seed {SEED}, step {step}: length");
    }
    drop(files);
    assert!(bytes_of(&path) == model, "seed {SEED}: at the end");
    mounted.end();
    let again = Mounted::start(&rig, "/hot");
    assert!(bytes_of(&again.at.join("fsx")) == model, "seed {SEED}: after another mount");
    again.end();
    rig.region.down().unwrap();
}

fn run(program: &str, arguments: &[&str], folder: &Path) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", folder)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{said}", output.status);
}

#[test]
fn git_clones_commits_and_finds_no_fault() {
    if cannot_mount().is_some() {
        return;
    }
    if Command::new("git").arg("--version").output().is_err() {
        eprintln!("skipped: there is no git");
        return;
    }
    let rig = Rig::start("long_mount_git", 1024);
    let mounted = Mounted::start(&rig, "/hot");
    let source = rig.local("origin");
    let identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"];
    run("git", &["init", "-q", "."], &source);
    let mut random = fastrand::Rng::with_seed(3);
    for index in 0..60 {
        let path = source.join(format!("d{}/f{index}", index % 7));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{}\n", random.u64(..)).repeat(random.usize(1..3000))).unwrap();
        if index % 10 == 9 {
            run("git", &["add", "-A"], &source);
            run("git", &[&identity[..], &["commit", "-q", "-m", "more"]].concat(), &source);
        }
    }
    let clone = mounted.at.join("clone");
    run(
        "git",
        &["clone", "-q", "--no-local", source.to_str().unwrap(), clone.to_str().unwrap()],
        &mounted.at,
    );
    run("git", &["fsck", "--full", "--strict"], &clone);
    fs::write(clone.join("new"), "here").unwrap();
    run("git", &["add", "-A"], &clone);
    run("git", &[&identity[..], &["commit", "-q", "-m", "here"]].concat(), &clone);
    run("git", &["gc", "-q"], &clone);
    run("git", &["fsck", "--full", "--strict"], &clone);
    run("git", &["diff", "--quiet", "HEAD"], &clone);
    mounted.end();
    rig.region.down().unwrap();
}

#[test]
fn cargo_builds_a_crate_and_its_program_runs() {
    if cannot_mount().is_some() {
        return;
    }
    let rig = Rig::start("long_mount_cargo", 1024);
    let mounted = Mounted::start(&rig, "/hot");
    let folder = mounted.at.join("tiny");
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::write(
        folder.join("Cargo.toml"),
        "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2024\"\n",
    )
    .unwrap();
    fs::write(folder.join("src/main.rs"), "fn main() { println!(\"built in a mount\"); }\n").unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["build", "--offline", "-q"])
        .current_dir(&folder)
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(folder.join("target/debug/tiny")).output().unwrap();
    assert_eq!(output.stdout, b"built in a mount\n");
    mounted.end();
    rig.region.down().unwrap();
}
