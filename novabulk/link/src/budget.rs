//! What accepted connections may hold in request bodies, all together.

use std::{cell::Cell, rc::Rc};

use nova_units::CREDIT_BYTES;
use novabulk_frame::HOPS;

use crate::options::{ACCEPTED_MAX, GRANT_UNITS_MIN};

/// Hands out grants. A lease lives until the last handler of its connection has ended, so that a peer which
/// reconnects again and again does not collect memory.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: u64,
    leased_bytes: Cell<u64>,
    leases: Cell<usize>,
}

/// The grants of one connection.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: Rc<Budget>,
    bytes: u64,
    pub(crate) grants: [u32; HOPS],
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Rc<Self> {
        Rc::new(Self { bytes, leased_bytes: Cell::new(0), leases: Cell::new(0) })
    }

    /// `wished` while the budget lasts, then the least that works; nothing past [`ACCEPTED_MAX`].
    pub(crate) fn lease(self: &Rc<Self>, wished: [u32; HOPS]) -> Option<Lease> {
        if self.leases.get() >= ACCEPTED_MAX {
            return None;
        }
        let fits = self.leased_bytes.get() + grant_bytes(wished) <= self.bytes;
        let grants = if fits { wished } else { [GRANT_UNITS_MIN; HOPS] };
        let bytes = grant_bytes(grants);
        self.leased_bytes.set(self.leased_bytes.get() + bytes);
        self.leases.set(self.leases.get() + 1);
        Some(Lease { budget: Rc::clone(self), bytes, grants })
    }
}

impl Lease {
    /// The connection turned out to be for control: it holds no bodies.
    pub(crate) fn give_back_bytes(&mut self) {
        let bytes = core::mem::take(&mut self.bytes);
        self.budget.leased_bytes.set(self.budget.leased_bytes.get() - bytes);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back_bytes();
        self.budget.leases.set(self.budget.leases.get() - 1);
    }
}

fn grant_bytes(grants: [u32; HOPS]) -> u64 {
    grants.iter().map(|units| u64::from(*units) * u64::from(CREDIT_BYTES)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_budget_connections_get_the_least_and_past_the_count_nothing() {
        let wished = [16, 16, 5];
        let budget = Budget::new(2 * grant_bytes(wished));
        let mut leases: Vec<Lease> = (0..ACCEPTED_MAX).map(|_| budget.lease(wished).unwrap()).collect();
        assert_eq!(leases[1].grants, wished);
        assert_eq!(leases[2].grants, [GRANT_UNITS_MIN; HOPS]);
        assert!(budget.lease(wished).is_none());
        leases.clear();
        assert_eq!((budget.leased_bytes.get(), budget.leases.get()), (0, 0));
    }
}
