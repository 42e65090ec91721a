//! Credit (Spec B.1): granted by the receiver in units of 256 KiB, used in bytes of slabs.

use nova_units::CREDIT_BYTES;
use novabulk_frame::PAYLOAD_BYTES_MAX;

const UNIT: u64 = CREDIT_BYTES as u64;

/// Beyond any connection's life: 2^40 units are 2^58 bytes.
const TOTAL_MAX: u64 = 1 << 40;

/// The slab that holds this many bytes of one frame: 4 KiB, 64 KiB, 256 KiB or 1 MiB; nothing for nothing.
///
/// # Panics
/// Over 1 MiB, which no frame carries.
#[must_use]
pub const fn slab_bytes(bytes: u32) -> u32 {
    match bytes {
        0 => 0,
        1..=0x1000 => 0x1000,
        0x1001..=0x1_0000 => 0x1_0000,
        0x1_0001..=0x4_0000 => 0x4_0000,
        0x4_0001..=PAYLOAD_BYTES_MAX => PAYLOAD_BYTES_MAX,
        _ => panic!("more than one frame"),
    }
}

/// What a body costs: the slabs its frames land in.
#[must_use]
pub const fn charge_bytes(body_bytes: u32) -> u64 {
    let rest = body_bytes % PAYLOAD_BYTES_MAX;
    (body_bytes - rest) as u64 + slab_bytes(rest) as u64
}

/// One hop's credit at the sender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowance {
    initial: u64,
    granted: u64,
    used_bytes: u64,
    said_blocked_at: Option<u64>,
}

impl Allowance {
    pub(crate) fn open(grant: u32) -> Self {
        Self { initial: grant.into(), granted: grant.into(), used_bytes: 0, said_blocked_at: None }
    }

    /// Whether a body of this charge can ever go: grants are whole units, so up to one of them may be stuck in the
    /// receiver's rounding.
    pub(crate) const fn ever(&self, charge: u64) -> bool {
        charge <= self.charge_max()
    }

    pub(crate) const fn charge_max(&self) -> u64 {
        self.initial.saturating_sub(1) * UNIT
    }

    pub(crate) const fn allows(&self, charge: u64) -> bool {
        self.used_bytes + charge <= self.granted * UNIT
    }

    pub(crate) fn take(&mut self, charge: u64) {
        assert!(self.allows(charge), "credit used twice");
        self.used_bytes += charge;
    }

    /// A CREDIT came; `Err` holds the last total when the new one does not rise.
    pub(crate) fn raise(&mut self, total: u64) -> Result<(), u64> {
        if total <= self.granted || total > TOTAL_MAX {
            return Err(self.granted);
        }
        self.granted = total;
        Ok(())
    }

    /// The total to name in BLOCKED, once per level.
    pub(crate) fn say_blocked(&mut self) -> Option<u64> {
        if self.said_blocked_at == Some(self.granted) {
            return None;
        }
        self.said_blocked_at = Some(self.granted);
        Some(self.granted)
    }
}

/// One hop's slabs at the receiver.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pool_units: u64,
    announced: u64,
    charged_bytes: u64,
    freed_bytes: u64,
    starved: bool,
    peer_blocked_at: Option<u64>,
}

impl Grant {
    pub(crate) fn open(units: u32) -> Self {
        Self {
            pool_units: units.into(),
            announced: units.into(),
            charged_bytes: 0,
            freed_bytes: 0,
            starved: false,
            peer_blocked_at: None,
        }
    }

    /// A body is announced; `Err` holds by how much it is over.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<(), u64> {
        let over = (self.charged_bytes + bytes).saturating_sub(self.announced * UNIT);
        if over > 0 {
            return Err(over);
        }
        self.charged_bytes += bytes;
        Ok(())
    }

    /// The slabs of a body are free again.
    pub(crate) fn free(&mut self, bytes: u64) {
        self.freed_bytes += bytes;
        assert!(self.freed_bytes <= self.charged_bytes, "more slabs freed than charged");
    }

    /// Bytes of slabs that the peer's requests hold.
    pub(crate) const fn held_bytes(&self) -> u64 {
        self.charged_bytes - self.freed_bytes
    }

    /// The peer waits at `total`; `Err` holds its last one when it says so twice.
    pub(crate) fn blocked(&mut self, total: u64) -> Result<(), u64> {
        if total > self.announced {
            return Err(self.announced);
        }
        if let Some(last) = self.peer_blocked_at
            && total <= last
        {
            return Err(last);
        }
        self.peer_blocked_at = Some(total);
        // When a higher total is on its way already, that is the answer.
        self.starved = total == self.announced;
        Ok(())
    }

    /// The total to announce, when enough is free: a quarter of the pool, or anything for a peer that waits.
    pub(crate) fn announce(&mut self) -> Option<u64> {
        let possible = self.freed_bytes / UNIT + self.pool_units;
        let step = if self.starved { 1 } else { (self.pool_units / 4).max(1) };
        if possible < self.announced + step {
            return None;
        }
        self.announced = possible;
        self.starved = false;
        Some(possible)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_costs_the_slabs_it_lands_in() {
        assert_eq!(charge_bytes(0), 0);
        assert_eq!(charge_bytes(1), 4096);
        assert_eq!(charge_bytes(4097), 65_536);
        assert_eq!(charge_bytes(PAYLOAD_BYTES_MAX), 1 << 20);
        assert_eq!(charge_bytes(PAYLOAD_BYTES_MAX + 1), (1 << 20) + 4096);
        assert_eq!(charge_bytes(u32::MAX), 1 << 32);
    }

    #[test]
    fn held_slabs_never_exceed_the_pool() {
        let (mut grant, mut allowance) = (Grant::open(5), Allowance::open(5));
        let mut held = std::collections::VecDeque::new();
        for round in 0..10_000u32 {
            let charge = charge_bytes(round.wrapping_mul(2_654_435_761) % (1 << 20) + 1);
            assert!(allowance.ever(charge));
            while !allowance.allows(charge) {
                if let Some(total) = allowance.say_blocked() {
                    grant.blocked(total).unwrap();
                }
                if let Some(total) = grant.announce() {
                    allowance.raise(total).unwrap();
                } else {
                    grant.free(held.pop_front().expect("blocked with nothing held"));
                }
            }
            allowance.take(charge);
            grant.charge(charge).unwrap();
            held.push_back(charge);
            assert!(grant.held_bytes() <= 5 * UNIT);
        }
    }

    #[test]
    fn more_than_granted_is_an_overrun() {
        let mut grant = Grant::open(1);
        grant.charge(UNIT).unwrap();
        assert_eq!(grant.charge(4096), Err(4096));
    }

    #[test]
    fn totals_only_rise() {
        let mut allowance = Allowance::open(4);
        assert_eq!(allowance.raise(4), Err(4));
        allowance.raise(5).unwrap();
        assert_eq!(allowance.raise(u64::MAX), Err(5));
        let mut grant = Grant::open(4);
        grant.blocked(4).unwrap();
        assert_eq!(grant.blocked(4), Err(4));
        assert_eq!(grant.blocked(9), Err(4));
    }
}
