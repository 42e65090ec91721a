//! Copies of files: there, back, again, and what is refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::rig::{Rig, Served, TOOL, copy, identity, names, noise, text};

#[test]
fn a_file_of_several_blocks_arrives_and_a_second_copy_moves_nothing() {
    let rig = Rig::new(&[]);
    let bytes = noise(1, (5 << 20) + 77);
    fs::write(rig.here("a"), &bytes).unwrap();
    let arguments = [text(&rig.here("a")), rig.served.at("b")];
    let copied = copy(&arguments).good();
    assert_eq!((copied.number("files"), copied.number("bytes")), (1, bytes.len() as u64));
    assert!(fs::read(rig.there("b")).unwrap() == bytes);
    let again = copy(&arguments).good();
    assert_eq!((again.number("files"), again.number("same"), again.number("bytes_sent")), (0, 1, 0));
    assert_eq!(names(&rig.there("")), ["b"], "no temporary file is left");
}

#[test]
fn a_file_is_pulled_and_empty_and_small_ones_too() {
    let rig = Rig::new(&["--read-only"]);
    let large = noise(2, (3 << 20) + 1);
    fs::create_dir(rig.there("d")).unwrap();
    fs::write(rig.there("d/large"), &large).unwrap();
    fs::write(rig.there("d/small"), b"x").unwrap();
    fs::write(rig.there("d/empty"), b"").unwrap();
    let copied = copy(&[rig.served.at("d"), text(&rig.here("new/place/"))]).good();
    assert_eq!(copied.number("files"), 3);
    assert!(fs::read(rig.here("new/place/d/large")).unwrap() == large);
    assert_eq!(fs::read(rig.here("new/place/d/small")).unwrap(), b"x");
    assert_eq!(fs::read(rig.here("new/place/d/empty")).unwrap(), b"");
    let single = copy(&[rig.served.at("d/large"), text(&rig.here("renamed"))]).good();
    assert_eq!(single.number("files"), 1);
    assert!(fs::read(rig.here("renamed")).unwrap() == large);
}

#[test]
fn a_host_that_only_lends_takes_nothing() {
    let rig = Rig::new(&["--read-only"]);
    fs::write(rig.here("a"), b"x").unwrap();
    let refused = copy(&[text(&rig.here("a")), rig.served.at("a")]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.errors.contains("--read-only"), "{refused:?}");
    assert_eq!(names(&rig.there("")), [""; 0]);
}

#[test]
fn sources_that_are_missing_and_hosts_that_are_gone_have_codes_of_their_own() {
    let rig = Rig::new(&[]);
    let missing = copy(&[text(&rig.here("none")), rig.served.at("")]);
    assert_eq!(missing.code, Some(3), "{missing:?}");
    let missing = copy(&[rig.served.at("none"), text(&rig.here(""))]);
    assert_eq!(missing.code, Some(3), "{missing:?}");
    fs::write(rig.here("a"), b"x").unwrap();
    let gone = copy(&[text(&rig.here("a")), "127.0.0.1:1/a".to_owned()]);
    assert_eq!(gone.code, Some(4), "{gone:?}");
    assert!(gone.errors.contains("does not answer"), "{gone:?}");
}

#[test]
fn nothing_behind_a_link_of_the_served_folder_is_reached() {
    let rig = Rig::new(&[]);
    fs::create_dir(rig.here("secret")).unwrap();
    fs::write(rig.here("secret/key"), b"k").unwrap();
    symlink(rig.here("secret"), rig.there("way")).unwrap();
    let read = copy(&[rig.served.at("way/key"), text(&rig.here("stolen"))]);
    assert!(read.code != Some(0) && read.errors.contains("symbolic link"), "{read:?}");
    fs::write(rig.here("a"), b"x").unwrap();
    let written = copy(&[text(&rig.here("a")), rig.served.at("way/planted")]);
    assert!(written.code != Some(0), "{written:?}");
    assert_eq!(names(&rig.here("secret")), ["key"]);
    // A link that is to become a file is replaced, not followed.
    symlink(rig.here("secret/key"), rig.there("b")).unwrap();
    copy(&[text(&rig.here("a")), rig.served.at("b")]).good();
    assert_eq!(fs::read(rig.here("secret/key")).unwrap(), b"k");
    assert_eq!(fs::read(rig.there("b")).unwrap(), b"x");
}

#[test]
fn a_file_whose_bytes_changed_under_the_same_time_is_found_by_its_digest() {
    let rig = Rig::new(&[]);
    fs::write(rig.here("a"), b"one").unwrap();
    let arguments = [text(&rig.here("a")), rig.served.at("a")];
    copy(&arguments).good();
    let time = fs::metadata(rig.here("a")).unwrap().modified().unwrap();
    fs::write(rig.there("a"), b"two").unwrap();
    fs::File::options().write(true).open(rig.there("a")).unwrap().set_modified(time).unwrap();
    assert_eq!(copy(&arguments).good().number("same"), 1);
    let checked = copy(&["--checksum".to_owned(), arguments[0].clone(), arguments[1].clone()]).good();
    assert_eq!((checked.number("files"), checked.number("same")), (1, 0));
    assert_eq!(fs::read(rig.there("a")).unwrap(), b"one");
}

#[test]
fn a_rate_is_kept() {
    let rig = Rig::new(&[]);
    fs::write(rig.here("a"), noise(3, 4 << 20)).unwrap();
    let copied =
        copy(&["--limit".to_owned(), "2M".to_owned(), text(&rig.here("a")), rig.served.at("a")]).good();
    assert!(copied.told["seconds"].as_f64().unwrap() > 1.2, "{copied:?}");
}

#[test]
fn one_host_copies_to_another_when_both_are_far() {
    let rig = Rig::new(&["--relay"]);
    let bytes = noise(4, (2 << 20) + 5);
    fs::create_dir(rig.there("d")).unwrap();
    fs::write(rig.there("d/a"), &bytes).unwrap();
    let third = Served::start(&rig.here(""), &[]);
    let copied = copy(&[rig.served.at("d"), third.at("got/")]).good();
    assert_eq!((copied.number("files"), copied.number("bytes")), (1, bytes.len() as u64));
    assert!(fs::read(rig.here("got/d/a")).unwrap() == bytes);
    let refused = copy(&[third.at("got"), rig.served.at("back/")]);
    assert!(refused.code == Some(1) && refused.errors.contains("--relay"), "{refused:?}");
}

#[test]
fn a_file_that_is_longer_than_the_host_takes_is_refused_and_the_rest_arrives() {
    let rig = Rig::new(&["--max-file", "1M"]);
    fs::create_dir(rig.here("d")).unwrap();
    fs::write(rig.here("d/long"), noise(5, (1 << 20) + 1)).unwrap();
    fs::write(rig.here("d/short"), noise(5, 1 << 20)).unwrap();
    let copied = copy(&[text(&rig.here("d")), rig.served.at("")]);
    assert_eq!((copied.code, copied.number("failed"), copied.number("files")), (Some(1), 1, 1), "{copied:?}");
    assert_eq!(names(&rig.there("d")), ["short"]);
}

#[test]
fn a_host_with_another_ca_is_told_from_one_that_is_not_there() {
    let rig = Rig::new(&[]);
    let folder = tempfile::tempdir().unwrap();
    for file in ["identity.pem", "identity.key"] {
        fs::copy(identity().join(file), folder.path().join(file)).unwrap();
    }
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tls/testdata/other-ca.pem");
    fs::copy(other, folder.path().join("ca.pem")).unwrap();
    fs::write(rig.here("file"), b"mine").unwrap();
    let trusting_others = Command::new(TOOL)
        .args(["--identity", folder.path().to_str().unwrap(), "copy"])
        .args([text(&rig.here("file")), rig.served.at("")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&trusting_others.stderr).into_owned();
    assert_eq!(trusting_others.status.code(), Some(1), "{said}");
    assert!(said.contains("nova identity trust") && said.contains(&rig.served.address), "{said}");
    assert!(!rig.there("file").exists());

    // Its trust comes with the file of the other's CA.
    fs::copy(identity().join("ca.pem"), folder.path().join("trusted.pem")).unwrap();
    let trusting = Command::new(TOOL)
        .args(["--identity", folder.path().to_str().unwrap(), "copy"])
        .args([text(&rig.here("file")), rig.served.at("")])
        .status()
        .unwrap();
    assert!(trusting.success());
    assert_eq!(fs::read(rig.there("file")).unwrap(), b"mine");

    let nobody = Command::new(TOOL)
        .args(["--identity", "/nowhere", "copy"])
        .args([text(&rig.here("file")), rig.served.at("")])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("nova identity new"));
}
