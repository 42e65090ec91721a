//! Which form the next block travels in.
//!
//! Blocks are counted in windows. At the end of one it is known how quickly bytes of files arrive with the coding in
//! use, how much shorter it makes them, and whether its threads were busy at either end. From that follows what every
//! other coding would give: the link's rate by how short it makes blocks, or the rate of its threads, whichever is less.
//! When one promises a tenth more it is tried for a window, and stays if it kept the promise. What was tried in vain is
//! tried again after twice as many bytes each time.
//!
//! The rate of the link is known only when it is what the copy waits for. While the codec's threads are busy it may be
//! any, so that sending blocks as they are is tried too.
//!
//! Data that do not become shorter are sent as they are, and a block in 32 is looked at again.

use core::fmt;
use core::time::Duration;

use crate::{Codecs, Coding, Level, Policy};

/// What a window has, in bytes of files; and how long it lasts at least, so that bursts do not count as a rate.
const WINDOW_BYTES: u64 = 16 << 20;
const WINDOW_LEAST: Duration = Duration::from_millis(100);
/// On a slow link it ends after this, when it has at least so many blocks.
const WINDOW_MOST: Duration = Duration::from_secs(1);
const WINDOW_BLOCKS: u32 = 4;
/// A coding takes the place of another when it promises, and then gives, this many times as much.
const GAIN: f64 = 1.1;
/// Of data that do not become shorter, one block in so many is looked at.
const PROBE_EVERY: u32 = 32;
/// Blocks that are this part of themselves when coded are not worth it.
const NO_GAIN: f64 = 0.95;
/// A coding that was tried in vain is tried again after so many bytes, at first and at last.
const RETRY_FIRST: u64 = 64 << 20;
const RETRY_LAST: u64 = 4 << 30;
/// Threads that code for this part of the time may be what the copy waits for.
const BUSY: f64 = 0.6;

/// What is chosen among, in the order of their costs.
const LADDER: [Rung; 5] = [
    Rung { coding: Coding::Raw, shortens: 0.0, encodes: 1.0, decodes: 1.0 },
    Rung { coding: Coding::Lz4, shortens: 0.65, encodes: 1.2, decodes: 2.3 },
    Rung { coding: zstd(1), shortens: 1.0, encodes: 1.0, decodes: 1.0 },
    Rung { coding: zstd(3), shortens: 1.03, encodes: 0.7, decodes: 1.0 },
    Rung { coding: zstd(9), shortens: 1.12, encodes: 0.12, decodes: 1.0 },
];

/// A coding, and what is expected of it before it was tried, beside ZSTD 1: what power of its ratio, and how many times
/// its rates. Measured with text of logs.
struct Rung {
    coding: Coding,
    shortens: f64,
    encodes: f64,
    decodes: f64,
}

const fn zstd(level: u8) -> Coding {
    match Level::new(level) {
        Some(level) => Coding::Zstd(level),
        None => panic!("a level of the ladder"),
    }
}

/// A piece that has arrived: a block, or many small files.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// What was asked for.
    pub asked: Coding,
    /// What it travelled as: the same, or raw when it did not become shorter.
    pub used: Coding,
    /// Bytes of files.
    pub plain_bytes: u64,
    /// Bytes that travelled.
    pub carried_bytes: u64,
    /// How long coding took where it left, and how many pieces that end codes at the same time; nothing when it does not tell.
    pub encoded: Option<(Duration, u8)>,
    /// The same of opening it where it arrived.
    pub decoded: Option<(Duration, u8)>,
}

/// Why blocks travel as they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was ordered.
    Ordered,
    /// There is no link between the ends.
    NoLink,
    /// The ends know no codec in common, or not the one that was ordered.
    Unknown,
    /// It is not known yet what is quickest.
    Measuring,
    /// The data do not become shorter.
    NoGain,
    /// Coded is quicker: the link is slower than the codec.
    LinkSlower,
    /// As they are is quicker: the link, or what else they wait for, is quicker than any codec.
    LinkQuicker,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ordered => "as ordered",
            Self::NoLink => "there is no link between the ends",
            Self::Unknown => "the hosts know no such codec in common",
            Self::Measuring => "measuring",
            Self::NoGain => "the data do not become shorter",
            Self::LinkSlower => "the link is slower than the codec",
            Self::LinkQuicker => "the copy would be no quicker with a codec",
        })
    }
}

/// What is chosen, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What most blocks travel as.
    pub coding: Coding,
    /// Why.
    pub reason: Reason,
}

/// What is known of a coding on the ladder.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Of coded by plain bytes.
    ratio: Option<f64>,
    /// Plain bytes a second at each end, by all its threads.
    encode: Option<f64>,
    decode: Option<f64>,
    /// It is not tried before so many bytes have been moved.
    retry_at: u64,
    /// And then after this many.
    retry_after: u64,
}

/// Pieces that were moved with one coding.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    begun: Option<Duration>,
    pieces: u32,
    plain: u64,
    carried: u64,
    /// By the threads of each end, as if there were one.
    encoding: Duration,
    decoding: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Measuring,
    Settled,
    /// Pieces until the next look.
    NoGain(u32),
}

/// Chooses for one copy, from one end to the other: its lanes share one link and the same cores. Time is an argument.
#[derive(Clone, Debug)]
pub struct Chooser {
    fixed: Option<Choice>,
    codecs: Codecs,
    mode: Mode,
    current: usize,
    trial: Option<usize>,
    /// The codec that was used last, for looks at data that do not become shorter.
    last: usize,
    window: Window,
    /// Bytes of files a second with the current coding.
    rate: Option<f64>,
    /// Of coded by plain bytes, of the pieces of late.
    ratio: Option<f64>,
    known: [Known; LADDER.len()],
    bytes: u64,
}

impl Chooser {
    /// For a copy whose ends have `codecs` in common; nothing when there is no link between them.
    #[must_use]
    pub fn new(policy: Policy, codecs: Option<Codecs>) -> Self {
        let fixed = |coding, reason| Some(Choice { coding, reason });
        let (codecs, fixed) = match (codecs, policy) {
            (None, _) => (Codecs::NONE, fixed(Coding::Raw, Reason::NoLink)),
            (Some(codecs), Policy::Always(coding)) if codecs.know(coding) => {
                (codecs, fixed(coding, Reason::Ordered))
            }
            (Some(Codecs::NONE), _) | (_, Policy::Always(_)) => {
                (Codecs::NONE, fixed(Coding::Raw, Reason::Unknown))
            }
            (Some(codecs), Policy::Auto) => (codecs, None),
        };
        // ZSTD 1 first: it costs what LZ4 costs and gives more. When the link turns out quicker, little is lost.
        let first = if codecs.know(zstd(1)) { 2 } else { 1 };
        Self {
            fixed,
            codecs,
            mode: Mode::Measuring,
            current: first,
            trial: None,
            last: first,
            window: Window::default(),
            rate: None,
            ratio: None,
            known: [Known::default(); LADDER.len()],
            bytes: 0,
        }
    }

    /// What the next piece is to travel as.
    pub fn next_coding(&mut self) -> Coding {
        if let Some(fixed) = self.fixed {
            return fixed.coding;
        }
        match &mut self.mode {
            Mode::NoGain(0) => {
                self.mode = Mode::NoGain(PROBE_EVERY - 1);
                LADDER[self.last].coding
            }
            Mode::NoGain(left) => {
                *left -= 1;
                Coding::Raw
            }
            _ => LADDER[self.trial.unwrap_or(self.current)].coding,
        }
    }

    /// What most pieces travel as at present, and why.
    #[must_use]
    pub fn choice(&self) -> Choice {
        let coding = LADDER[self.current].coding;
        self.fixed.unwrap_or(match self.mode {
            Mode::NoGain(_) => Choice { coding: Coding::Raw, reason: Reason::NoGain },
            Mode::Measuring => Choice { coding, reason: Reason::Measuring },
            Mode::Settled if coding == Coding::Raw => Choice { coding, reason: Reason::LinkQuicker },
            Mode::Settled => Choice { coding, reason: Reason::LinkSlower },
        })
    }

    /// A piece has arrived at `now`.
    pub fn moved(&mut self, now: Duration, moved: &Moved) {
        self.bytes += moved.plain_bytes;
        let Some(rung) = LADDER.iter().position(|rung| rung.coding == moved.asked) else { return };
        if self.fixed.is_some() || moved.plain_bytes == 0 {
            return;
        }
        if moved.asked != Coding::Raw && !self.learn(rung, moved) {
            return;
        }
        if matches!(self.mode, Mode::NoGain(_)) || rung != self.trial.unwrap_or(self.current) {
            // It left before the last decision.
            return;
        }
        self.window.add(now, moved);
        if self.window.is_full(now) {
            let window = core::mem::take(&mut self.window);
            self.judge(now, &window);
        }
    }

    /// Takes in what a coded piece tells of its codec; false when that ends the present way.
    fn learn(&mut self, rung: usize, moved: &Moved) -> bool {
        let (plain, carried) = (as_rate(moved.plain_bytes), as_rate(moved.carried_bytes));
        let known = &mut self.known[rung];
        blend(&mut known.ratio, carried / plain);
        if moved.used != Coding::Raw {
            for (rate, worked) in [(&mut known.encode, moved.encoded), (&mut known.decode, moved.decoded)] {
                if let Some((took, threads)) = worked {
                    blend(rate, plain * f64::from(threads) / took.as_secs_f64().max(1e-6));
                }
            }
        }
        if matches!(self.mode, Mode::NoGain(_)) {
            if carried / plain < NO_GAIN {
                // Other data have begun.
                self.ratio = Some(carried / plain);
                self.known[rung].ratio = self.ratio;
                self.restart(rung);
            }
            return false;
        }
        blend(&mut self.ratio, carried / plain);
        if self.ratio.is_some_and(|ratio| ratio >= NO_GAIN) {
            self.last = rung;
            self.mode = Mode::NoGain(PROBE_EVERY - 1);
            self.trial = None;
            self.window = Window::default();
            return false;
        }
        true
    }

    /// Measures anew, with this coding.
    fn restart(&mut self, rung: usize) {
        self.mode = Mode::Measuring;
        self.current = rung;
        self.trial = None;
        self.rate = None;
        self.window = Window::default();
    }

    /// A window has ended: whether its coding stays, and which is tried next.
    fn judge(&mut self, now: Duration, window: &Window) {
        let rate = window.rate(now, window.plain);
        if let Some(tried) = self.trial.take() {
            let before = self.rate.unwrap_or(0.0);
            let lost =
                if rate > before * GAIN { core::mem::replace(&mut self.current, tried) } else { tried };
            if lost != tried {
                self.rate = Some(rate);
            }
            self.put_off(lost);
            self.mode = Mode::Settled;
            return;
        }
        blend(&mut self.rate, rate);
        self.mode = Mode::Settled;
        let promised = |rung: usize| (rung, self.promise(rung, now, window));
        let best = (0..LADDER.len())
            .filter(|&rung| rung != self.current && self.may_try(rung))
            .map(promised)
            .max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((rung, promise)) = best
            && promise > rate.max(self.rate.unwrap_or(0.0)) * GAIN
        {
            self.trial = Some(rung);
        }
    }

    fn may_try(&self, rung: usize) -> bool {
        self.codecs.know(LADDER[rung].coding) && self.known[rung].retry_at <= self.bytes
    }

    /// What a coding that is not in use would give, as far as is known.
    fn promise(&self, rung: usize, now: Duration, window: &Window) -> f64 {
        let busy = window.busy(now);
        let link = if busy > BUSY { f64::INFINITY } else { window.rate(now, window.carried) };
        if LADDER[rung].coding == Coding::Raw {
            return link;
        }
        let Expected { ratio, encode, decode } = self.expected(rung);
        (link / ratio).min(encode).min(decode)
    }

    /// What is known of a coding, or follows from what is known of another.
    fn expected(&self, rung: usize) -> Expected {
        let from = if LADDER[self.current].coding == Coding::Raw { self.last } else { self.current };
        let (own, other) = (&self.known[rung], &self.known[from]);
        let by = |ours: f64, theirs: f64| ours / theirs;
        let (ours, theirs) = (&LADDER[rung], &LADDER[from]);
        let ratio = other.ratio.unwrap_or(1.0).powf(by(ours.shortens, theirs.shortens));
        let encode = other.encode.unwrap_or(f64::INFINITY) * by(ours.encodes, theirs.encodes);
        let decode = other.decode.unwrap_or(f64::INFINITY) * by(ours.decodes, theirs.decodes);
        Expected {
            ratio: own.ratio.unwrap_or(ratio).max(1e-4),
            encode: own.encode.unwrap_or(encode),
            decode: own.decode.unwrap_or(decode),
        }
    }

    /// A coding was tried in vain, or has lost its place.
    fn put_off(&mut self, rung: usize) {
        if LADDER[self.current].coding != Coding::Raw {
            self.last = self.current;
        } else if LADDER[rung].coding != Coding::Raw {
            self.last = rung;
        }
        let known = &mut self.known[rung];
        known.retry_after = (known.retry_after * 2).clamp(RETRY_FIRST, RETRY_LAST);
        known.retry_at = self.bytes + known.retry_after;
    }
}

struct Expected {
    ratio: f64,
    encode: f64,
    decode: f64,
}

impl Window {
    /// Counts a piece; the first one is where the window begins.
    fn add(&mut self, now: Duration, moved: &Moved) {
        if self.begun.is_none() {
            self.begun = Some(now);
            return;
        }
        self.pieces += 1;
        self.plain += moved.plain_bytes;
        self.carried += moved.carried_bytes;
        let each = |worked: Option<(Duration, u8)>| {
            worked.map_or(Duration::ZERO, |(took, threads)| took / u32::from(threads.max(1)))
        };
        self.encoding += each(moved.encoded);
        self.decoding += each(moved.decoded);
    }

    fn lasted(&self, now: Duration) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| now.saturating_sub(begun))
    }

    fn is_full(&self, now: Duration) -> bool {
        let lasted = self.lasted(now);
        (self.plain >= WINDOW_BYTES && lasted >= WINDOW_LEAST)
            || (self.pieces >= WINDOW_BLOCKS && lasted >= WINDOW_MOST)
    }

    /// Bytes a second.
    fn rate(&self, now: Duration, bytes: u64) -> f64 {
        as_rate(bytes) / self.lasted(now).as_secs_f64().max(1e-6)
    }

    /// For which part of the time the threads of the busier end worked.
    fn busy(&self, now: Duration) -> f64 {
        self.encoding.max(self.decoding).as_secs_f64() / self.lasted(now).as_secs_f64().max(1e-6)
    }
}

/// Moves an average an eighth of the way to a new value.
fn blend(average: &mut Option<f64>, value: f64) {
    *average = Some(average.map_or(value, |average| average + (value - average) / 8.0));
}

#[expect(clippy::cast_precision_loss, reason = "rates need no more digits than an f64 has")]
fn as_rate(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_kept_and_what_an_end_does_not_know_is_not_used() {
        let choice = |policy: &str, codecs| Chooser::new(policy.parse().unwrap(), codecs).choice();
        let lz4 = Some(Codecs { lz4: true, zstd: false });
        let cases = [
            ("off", Some(Codecs::ALL), Coding::Raw, Reason::Ordered),
            ("zstd:9", Some(Codecs::ALL), zstd(9), Reason::Ordered),
            ("zstd:9", lz4, Coding::Raw, Reason::Unknown),
            ("auto", lz4, Coding::Lz4, Reason::Measuring),
            ("auto", Some(Codecs::ALL), zstd(1), Reason::Measuring),
            ("auto", Some(Codecs::NONE), Coding::Raw, Reason::Unknown),
            ("lz4", None, Coding::Raw, Reason::NoLink),
        ];
        for (policy, codecs, coding, reason) in cases {
            assert_eq!(choice(policy, codecs), Choice { coding, reason }, "{policy} {codecs:?}");
        }
    }

    #[test]
    fn data_that_do_not_shrink_are_looked_at_once_in_a_while() {
        let mut chooser = Chooser::new(Policy::Auto, Some(Codecs::ALL));
        let mut now = Duration::ZERO;
        let mut looks = 0;
        for _ in 0..320 {
            let asked = chooser.next_coding();
            looks += u32::from(asked != Coding::Raw);
            now += Duration::from_millis(5);
            let (plain_bytes, carried_bytes) = (1 << 20, 1 << 20);
            let (encoded, decoded) = (None, None);
            chooser.moved(
                now,
                &Moved { asked, used: Coding::Raw, plain_bytes, carried_bytes, encoded, decoded },
            );
        }
        assert_eq!((looks, chooser.choice().reason), (10, Reason::NoGain));
    }
}
