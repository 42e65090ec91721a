//! Which cipher seals on this machine: the quicker one, measured at start.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nova_units::{BlockId, Generation, UnitIndex};
use novafs_format::seal::{BlockKey, CipherKind, DomainKey};

/// How long each cipher is measured, over all rounds: long enough for some hundred units, too short to be felt.
const MEASURE_EACH: Duration = Duration::from_millis(12);
/// The ciphers alternate, so that another program's work meets both; the best round of each counts.
const ROUNDS: u32 = 4;
/// A full unit, as most are.
const UNIT_BYTES: usize = 64 << 10;

/// How quickly a cipher seals units, page sums and digest included.
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
            one.bytes_per_s = one.bytes_per_s.max(round(one.cipher, MEASURE_EACH / ROUNDS));
        }
    }
    measured.sort_by(|a, b| b.bytes_per_s.total_cmp(&a.bytes_per_s));
    measured
}

fn round(cipher: CipherKind, time: Duration) -> f64 {
    // Of no domain, and thrown away: nothing that it seals is ever stored.
    let domain = DomainKey::new(0, 1, [0; 32]).with_cipher(cipher);
    let key = BlockKey::derive(&domain, &[0; 16], BlockId(0), Generation(0));
    let plain = vec![0; UNIT_BYTES];
    let mut stored = vec![0; UNIT_BYTES];
    let (mut units, begun) = (0_u32, Instant::now());
    loop {
        units += 1;
        black_box(key.seal(UnitIndex(0), u64::from(units), black_box(&plain), &mut stored));
        let took = begun.elapsed();
        if took >= time {
            #[expect(clippy::cast_precision_loss, reason = "64 KiB")]
            return f64::from(units) * UNIT_BYTES as f64 / took.as_secs_f64();
        }
    }
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
