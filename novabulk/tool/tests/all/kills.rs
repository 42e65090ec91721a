//! Either end dies at any moment, and the next copy goes on where it was.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use super::rig::{Rig, Served, copy, copying, names, noise, text};
use super::trees::assert_same;

/// What may be sent twice for each death: what was not flushed yet, and what was on its way.
const AGAIN_BYTES_MAX: u64 = (64 + 40) << 20;

fn plant(rig: &Rig, seed: u64) -> u64 {
    fs::create_dir(rig.here("t")).unwrap();
    let mut total = 0;
    for (index, mib) in [48_usize, 17, 3].into_iter().enumerate() {
        let bytes = noise(seed + index as u64, (mib << 20) + index * 11);
        fs::write(rig.here(&format!("t/large-{index}")), &bytes).unwrap();
        total += bytes.len() as u64;
    }
    for index in 0..100_usize {
        fs::write(rig.here(&format!("t/small-{index}")), noise(index as u64, 999)).unwrap();
        total += 999;
    }
    total
}

/// Waits until the first block of a file is about to come.
fn wait_for_a_part(rig: &Rig) {
    for _ in 0..1000 {
        let folder = rig.there("t");
        if folder.exists() && names(&folder).iter().any(|name| name.starts_with(".nova-part-")) {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("nothing comes");
}

#[test]
fn a_killed_sender_is_followed_by_one_that_sends_what_is_missing() {
    for seed in [11, 12, 13] {
        let rig = Rig::new(&[]);
        let total = plant(&rig, seed);
        let arguments = ["--limit".to_owned(), "40M".to_owned(), text(&rig.here("t")), rig.served.at("")];
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..3 {
            let mut sender = copying(&arguments).spawn().unwrap();
            sleep(Duration::from_millis(random.u64(200..1200)));
            let _ = sender.kill();
            sender.wait().unwrap();
        }
        let last = copy(&arguments[2..]).good();
        assert!(last.number("bytes_sent") <= total + AGAIN_BYTES_MAX);
        assert_same(&rig.here("t"), &rig.there("t"));
        assert_eq!(names(&rig.there("")), ["t"]);
    }
}

#[test]
fn a_receiver_that_dies_and_comes_back_costs_what_it_had_not_flushed() {
    for seed in [21, 22, 23] {
        let mut rig = Rig::new(&[]);
        let total = plant(&rig, seed);
        let address = rig.served.address.clone();
        let arguments = ["--limit".to_owned(), "40M".to_owned(), text(&rig.here("t")), rig.served.at("")];
        let sender = copying(&arguments).spawn().unwrap();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut deaths = 0;
        wait_for_a_part(&rig);
        for _ in 0..2 {
            sleep(Duration::from_millis(random.u64(300..1000)));
            rig.served.kill();
            deaths += 1;
            sleep(Duration::from_millis(random.u64(0..400)));
            rig.served = Served::start_at(&address, &rig.there(""), &[]);
        }
        let output = sender.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "seed {seed}: {errors}");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let sent = told["bytes_sent"].as_u64().unwrap();
        assert!(sent <= total + deaths * AGAIN_BYTES_MAX, "seed {seed}: {sent} of {total}");
        assert_same(&rig.here("t"), &rig.there("t"));
    }
}

#[test]
fn a_second_copy_takes_over_what_the_ledger_says_is_there() {
    let rig = Rig::new(&[]);
    fs::write(rig.here("a"), noise(31, 60 << 20)).unwrap();
    let arguments = ["--limit".to_owned(), "20M".to_owned(), text(&rig.here("a")), rig.served.at("a")];
    let mut sender = copying(&arguments).spawn().unwrap();
    sleep(Duration::from_millis(2200));
    sender.kill().unwrap();
    sender.wait().unwrap();
    assert!(!rig.there("a").exists(), "a file has its name when all of it is there");
    let last = copy(&arguments[2..]).good();
    let (resumed, sent) = (last.number("bytes_resumed"), last.number("bytes_sent"));
    assert!(resumed > 0, "{last:?}");
    let spare = AGAIN_BYTES_MAX;
    assert!((60 << 20..=(60 << 20) + spare).contains(&(resumed + sent)), "{last:?}");
    assert!(fs::read(rig.there("a")).unwrap() == fs::read(rig.here("a")).unwrap());
    assert_eq!(names(&rig.there("")), ["a"]);
}

#[test]
fn a_file_that_is_written_all_the_time_is_never_published() {
    let rig = Rig::new(&[]);
    fs::write(rig.here("a"), noise(41, 30 << 20)).unwrap();
    let arguments = ["--limit".to_owned(), "10M".to_owned(), text(&rig.here("a")), rig.served.at("a")];
    let mut sender = copying(&arguments).spawn().unwrap();
    let mut value = 0_u8;
    let code = loop {
        if let Some(status) = sender.try_wait().unwrap() {
            break status.code();
        }
        value = value.wrapping_add(1);
        std::os::unix::fs::FileExt::write_at(
            &fs::File::options().write(true).open(rig.here("a")).unwrap(),
            &[value],
            0,
        )
        .unwrap();
        sleep(Duration::from_millis(20));
    };
    assert_eq!(code, Some(1));
    assert!(!rig.there("a").exists());
    let last = copy(&arguments[2..]).good();
    assert_eq!(last.number("files"), 1);
    assert!(fs::read(rig.there("a")).unwrap() == fs::read(rig.here("a")).unwrap());
}
