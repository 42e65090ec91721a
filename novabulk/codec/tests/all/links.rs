//! What is chosen on links and machines that are made up: pieces go through an encoder, a link and a decoder, each with
//! a rate, and whichever is slowest sets theirs.
use core::time::Duration;

use novabulk_codec::{Chooser, Codecs, Coding, Moved, Policy, Reason};

const MIB: u64 = 1 << 20;
const THREADS: u8 = 2;

/// Bytes a second, of files where it is not the link's.
#[derive(Clone, Copy)]
struct Machine {
    link: f64,
    /// Whatever else a raw byte costs: disks, one thread for all.
    else_raw: f64,
    /// One thread at ZSTD 1, and what the data become by it.
    encode: f64,
    decode: f64,
    ratio: f64,
}

impl Machine {
    fn coded(&self, coding: Coding) -> (f64, f64, f64) {
        match coding {
            Coding::Raw => (1.0, f64::INFINITY, f64::INFINITY),
            Coding::Lz4 => (self.ratio.powf(0.65), self.encode * 1.2, self.decode * 2.3),
            Coding::Zstd(level) if level.number() < 3 => (self.ratio, self.encode, self.decode),
            Coding::Zstd(level) if level.number() < 9 => (self.ratio * 0.97, self.encode * 0.6, self.decode),
            Coding::Zstd(_) => (self.ratio * 0.93, self.encode * 0.1, self.decode),
        }
    }

    fn rate(&self, coding: Coding) -> f64 {
        let (ratio, encode, decode) = self.coded(coding);
        let threads = f64::from(THREADS);
        (self.link / ratio).min(encode * threads).min(decode * threads).min(self.else_raw)
    }

    /// The best of all.
    fn best(&self) -> f64 {
        let all = ["off", "lz4", "zstd:1", "zstd:3", "zstd:9"];
        let rates = all.map(|text| match text.parse().unwrap() {
            Policy::Always(coding) => self.rate(coding),
            Policy::Auto => unreachable!(),
        });
        rates.into_iter().fold(0.0, f64::max)
    }
}

/// A copy: the chooser, and how long it has taken.
struct Copy {
    chooser: Chooser,
    now: Duration,
}

impl Copy {
    fn new(codecs: Codecs) -> Self {
        Self { chooser: Chooser::new(Policy::Auto, Some(codecs)), now: Duration::from_secs(9) }
    }

    /// Bytes a second over so many MiB.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a ratio is between 0 and 1")]
    fn run(&mut self, machine: Machine, mib: u64) -> f64 {
        let begun = self.now;
        for _ in 0..mib {
            let asked = self.chooser.next_coding();
            let shrinks = asked != Coding::Raw && machine.ratio < 0.95;
            let used = if shrinks { asked } else { Coding::Raw };
            let (ratio, encode, decode) = machine.coded(used);
            self.now += Duration::from_secs_f64(MIB as f64 / machine.rate(used));
            let work = |rate: f64| shrinks.then(|| (Duration::from_secs_f64(MIB as f64 / rate), THREADS));
            let moved = Moved {
                asked,
                used,
                plain_bytes: MIB,
                carried_bytes: (MIB as f64 * ratio) as u64,
                encoded: work(encode),
                decoded: work(decode),
            };
            self.chooser.moved(self.now, &moved);
        }
        (mib * MIB) as f64 / (self.now - begun).as_secs_f64()
    }
}

const TEXT: Machine = Machine { link: 119e6, else_raw: 1.5e9, encode: 0.54e9, decode: 1.5e9, ratio: 0.23 };

#[test]
fn text_over_a_slow_link_is_coded_at_once_and_stays_so() {
    let mut copy = Copy::new(Codecs::ALL);
    let first = copy.run(TEXT, 64);
    assert!(first > 0.85 * TEXT.best(), "{first}");
    assert!(copy.run(TEXT, 2000) > 0.95 * TEXT.best());
    assert_eq!(copy.chooser.choice().reason, Reason::LinkSlower);
}

#[test]
fn over_a_link_quicker_than_every_codec_blocks_go_as_they_are_after_the_first_windows() {
    let machine = Machine { link: 12e9, else_raw: 3e9, ..TEXT };
    let mut copy = Copy::new(Codecs::ALL);
    copy.run(machine, 512);
    assert_eq!(copy.chooser.choice().reason, Reason::LinkQuicker);
    let rate = copy.run(machine, 8000);
    assert!(rate > 0.9 * machine.best(), "{rate}");
}

#[test]
fn what_is_limited_by_something_else_costs_no_codec_for_nothing() {
    // A disk of 300 MB/s behind a link that is quicker: coded it would be no quicker, and it is not slower either.
    let machine = Machine { link: 1.2e9, else_raw: 3e8, ..TEXT };
    let mut copy = Copy::new(Codecs::ALL);
    let rate = copy.run(machine, 4000);
    assert!(rate > 0.98 * machine.best(), "{rate}");
}

#[test]
fn the_choice_follows_a_link_and_data_that_change() {
    let fast = Machine { link: 12e9, else_raw: 3e9, ..TEXT };
    let noise = Machine { ratio: 1.0, ..TEXT };
    let mut copy = Copy::new(Codecs::ALL);
    copy.run(TEXT, 500);
    assert_ne!(copy.chooser.choice().coding, Coding::Raw);
    let after = copy.run(noise, 500);
    assert_eq!(copy.chooser.choice().reason, Reason::NoGain);
    assert!(after > 0.99 * noise.rate(Coding::Raw), "noise loses nothing: {after}");
    copy.run(TEXT, 100);
    assert_ne!(copy.chooser.choice().coding, Coding::Raw, "text again");
    copy.run(fast, 9000);
    assert_eq!(copy.chooser.choice().coding, Coding::Raw, "the link is quick by now");
    copy.run(TEXT, 9000);
    assert_ne!(copy.chooser.choice().coding, Coding::Raw, "and slow again");
}

#[test]
fn a_very_slow_link_gets_a_shorter_coding_only_when_that_pays() {
    let slow = Machine { link: 2e6, ..TEXT };
    let mut copy = Copy::new(Codecs::ALL);
    copy.run(slow, 2000);
    assert_eq!(copy.chooser.choice().coding.to_string(), "zstd:1", "a twentieth less is no reason to change");
}

#[test]
fn a_peer_that_opens_slowly_is_not_sent_what_it_cannot_open_in_time() {
    let weak = Machine { link: 600e6, decode: 0.1e9, ..TEXT };
    let mut copy = Copy::new(Codecs::ALL);
    copy.run(weak, 3000);
    let rate = copy.run(weak, 3000);
    assert!(rate > 0.9 * weak.best(), "{rate} of {}: {:?}", weak.best(), copy.chooser.choice());
}

#[test]
fn without_zstd_lz4_does() {
    let mut copy = Copy::new(Codecs { lz4: true, zstd: false });
    copy.run(TEXT, 300);
    assert_eq!(copy.chooser.choice().coding, Coding::Lz4);
}
