//! Copies that others have this host drive to a third one.

use core::cell::{Cell, RefCell};
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::rc::Rc;

use nova_device::{Clock as _, Shard as _};
use nova_shard::RealShard;
use nova_units::TaskClass;
use novabulk_files::{Fault, Name, Orders, Relayed, Reply};

use super::Host;
use crate::driver::{Job, Source, copy};
use crate::end::End;
use crate::tally::Tally;
use crate::trouble::Trouble;

/// Copies that are driven, or have ended and were not asked about for a while.
const RELAYS_MAX: usize = 16;
/// Nobody asked for this long: nobody wants to know any more, and the copy ends.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Failures that an answer tells of.
const FAILURES_TOLD: usize = 10;

/// By the number that who asks has chosen.
#[derive(Debug, Default)]
pub(super) struct Relays(RefCell<BTreeMap<u64, Rc<Driven>>>);

#[derive(Debug)]
struct Driven {
    tally: Rc<Tally>,
    ended: Cell<bool>,
    error: RefCell<Option<String>>,
    asked_at: Cell<Duration>,
}

impl Relays {
    /// How far a copy is.
    pub(super) fn status(&self, shard: &RealShard, id: u64) -> Result<Reply, Trouble> {
        let driven = self.0.borrow().get(&id).cloned();
        let driven = driven.ok_or_else(|| {
            Trouble::new(Fault::NotOpen, "this host does not know that copy: it started anew; ask it again")
        })?;
        driven.asked_at.set(shard.clock().now());
        Ok(Reply::Relayed(driven.status()))
    }

    /// Forgets copies that nobody asks about.
    fn forget(&self, now: Duration) {
        let mut all = self.0.borrow_mut();
        all.retain(|_, driven| {
            let forgotten = driven.asked_at.get() + FORGOTTEN_AFTER <= now;
            if forgotten {
                driven.tally.stop();
            }
            !forgotten
        });
    }
}

impl Driven {
    fn status(&self) -> Relayed {
        let counts = self.tally.counts();
        let mut failures = self.tally.failures();
        failures.truncate(FAILURES_TOLD);
        failures.splice(0..0, self.error.borrow().clone());
        Relayed {
            ended: self.ended.get(),
            entries: counts.entries,
            files_total: counts.files_total,
            files: counts.files,
            bytes_total: counts.bytes_total,
            bytes: counts.bytes,
            same: counts.same,
            removed: counts.removed,
            skipped: counts.skipped,
            bytes_resumed: counts.bytes_resumed,
            failed: counts.failed + u64::from(self.error.borrow().is_some()),
            failures,
            limit: self.tally.limit().to_string(),
        }
    }
}

impl Host {
    /// Begins to copy from here to the host at `address`, if it is not under way already.
    pub(super) fn relay(
        self: &Rc<Self>,
        id: u64,
        sources: Vec<(Name, bool)>,
        address: String,
        target: Name,
        into: bool,
        orders: Orders,
    ) -> Result<Reply, Trouble> {
        if !self.options.relay {
            let text = "this host copies to no other for somebody else: serve it with --relay";
            return Err(Trouble::new(Fault::Denied, text));
        }
        let now = self.shard.clock().now();
        self.relays.forget(now);
        let known = self.relays.0.borrow().contains_key(&id);
        if known {
            return self.relays.status(&self.shard, id);
        }
        if self.relays.0.borrow().len() >= RELAYS_MAX {
            return Err(Trouble::new(
                Fault::Busy,
                "this host drives as many copies as it may: try again later",
            ));
        }
        let to: SocketAddr = address.parse().map_err(|_| {
            Trouble::new(Fault::Invalid, format!("{address} is no address: give it as 10.0.0.1:9470"))
        })?;
        let Some(door) = self.door.clone() else {
            return Err(Trouble::new(Fault::Invalid, "this host has no identity to reach others with"));
        };
        let driven = Rc::new(Driven {
            tally: Rc::new(Tally::new(&self.shard)),
            ended: Cell::new(false),
            error: RefCell::default(),
            asked_at: Cell::new(now),
        });
        self.relays.0.borrow_mut().insert(id, Rc::clone(&driven));
        let sources = sources.into_iter().map(|(name, content)| Source { name, content }).collect();
        let job = Job { sources, target, into, orders };
        let here = End::Here(Rc::clone(self));
        let shard = self.shard.clone();
        self.shard.spawn(TaskClass::Client, async move {
            let there = door.dial(&shard, to, job.orders.streams);
            let done = copy(&shard, &here, &there, &job, &driven.tally).await;
            driven.error.replace(done.err().map(|error| error.to_string()));
            driven.ended.set(true);
        });
        self.relays.status(&self.shard, id)
    }
}
