//! Which cipher seals on this machine: the quicker one, measured at start.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nova_units::{BlockId, Generation, UnitIndex};
use novafs_format::seal::{BlockKey, CipherKind, DomainKey};

/// How long each cipher is measured, over all rounds: long enough for some hundred units, too short to be felt.
const MEASURE_EACH: Duration = Duration::from_millis(12);
/// The ciphers alternate, so that another program's work meets both.
const ROUNDS: u32 = 4;
/// A full unit, as most are.
const UNIT_BYTES: usize = 64 << 10;

/// How quickly a cipher opens units, in its best one: there is hardly a round of a busy machine in which nobody else ran,
/// but many a unit. Opening is measured because sealing spends most of its time in SHA-256, whatever the cipher.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) cipher: CipherKind,
    pub(crate) bytes_per_s: f64,
}

/// Measures every cipher, the quickest first.
pub(crate) fn measure() -> Vec<Measured> {
    let mut measured: Vec<_> =
        CipherKind::ALL.iter().map(|cipher| Measured { cipher: *cipher, bytes_per_s: 0.0 }).collect();
    for _ in 0..ROUNDS {
        for one in &mut measured {
            one.bytes_per_s = one.bytes_per_s.max(best(one.cipher, MEASURE_EACH / ROUNDS));
        }
    }
    measured.sort_by(|a, b| b.bytes_per_s.total_cmp(&a.bytes_per_s));
    measured
}

fn best(cipher: CipherKind, time: Duration) -> f64 {
    // Of no domain, and thrown away: nothing that it seals is ever stored.
    let domain = DomainKey::new(0, 1, [0; 32]).with_cipher(cipher);
    let key = BlockKey::derive(&domain, &[0; 16], BlockId(0), Generation(0));
    let (mut stored, mut opened) = (vec![0; UNIT_BYTES], vec![0; UNIT_BYTES]);
    let sealed = key.seal(UnitIndex(0), 1, &opened, &mut stored);
    let (mut least, begun) = (time, Instant::now());
    while begun.elapsed() < time {
        let began = Instant::now();
        key.open(black_box(&sealed), black_box(&stored), &mut opened).expect("sealed with the same key");
        black_box(&opened);
        least = least.min(began.elapsed());
    }
    #[expect(clippy::cast_precision_loss, reason = "64 KiB")]
    let bytes = UNIT_BYTES as f64;
    bytes / least.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ciphers_are_measured_and_the_quicker_one_comes_first() {
        let measured = measure();
        assert_eq!(measured.len(), CipherKind::ALL.len());
        assert!(measured[0].bytes_per_s >= measured[1].bytes_per_s && measured[1].bytes_per_s > 0.0);
    }
}
