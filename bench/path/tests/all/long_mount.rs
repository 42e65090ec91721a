//! A mount under programs: git and cargo.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::mounted::{Mounted, cannot_mount};
use super::rig::Rig;
use super::skip::skip;

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
        return skip("there is no git: install the package git");
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
