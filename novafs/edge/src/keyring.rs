//! The keys that this edge holds: in memory only, each for a time, none after its domain was dropped.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use nova_device::sync::Notify;
use novafs_format::SealedUnit;
use novafs_format::seal::{BlockKey, DomainKey};

use crate::EdgeError;
use crate::block_keys::BlockKeys;

/// Domains that may be asked for and not be there; whoever asks for more is told at once that there is no key.
const WANTED_MAX: usize = 1024;

/// A version of a domain's key and the block keys that were derived from it: forgotten together.
#[derive(Debug)]
pub struct HeldKey {
    key: DomainKey,
    blocks: RefCell<BlockKeys>,
}

impl HeldKey {
    fn new(key: DomainKey) -> Rc<Self> {
        Rc::new(Self { key, blocks: RefCell::default() })
    }

    /// The key that a unit says it was sealed under, derived or remembered.
    pub(crate) fn block_key(&self, sealed: &SealedUnit, unit_log2: u8) -> Rc<BlockKey> {
        self.blocks.borrow_mut().of(&self.key, sealed, unit_log2)
    }
}

impl Deref for HeldKey {
    type Target = DomainKey;

    fn deref(&self) -> &DomainKey {
        &self.key
    }
}

/// A version of a domain's key, and until when it may be used.
#[derive(Debug)]
struct Held {
    key: Rc<HeldKey>,
    /// On the clock since boot; `None`: as long as the process lives.
    until: Option<Duration>,
}

/// One key domain as this edge knows it.
#[derive(Debug, Default)]
struct Domain {
    versions: BTreeMap<u32, Held>,
    /// Version that new blocks are sealed with; 0 while that is not known.
    current: u32,
    dropped: bool,
}

#[derive(Debug, Default)]
struct Inner {
    domains: BTreeMap<u32, Domain>,
    wanted: BTreeSet<u32>,
    /// Domains of `wanted` that nobody was told of yet.
    unsaid: Vec<u32>,
}

/// Domain keys by domain and version. Clones share what they hold.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    inner: Rc<RefCell<Inner>>,
    changed: Rc<Notify>,
}

impl Keyring {
    /// A ring without keys: they are given to it.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// A ring of one key that is held as long as the process lives: what a region's key file holds.
    #[must_use]
    pub fn of(key: DomainKey) -> Self {
        let ring = Self::default();
        let version = key.version();
        ring.give(key, version, None);
        ring
    }

    /// Takes a version of a domain's key, until a moment on the clock since boot; `current` is the version that new
    /// blocks of the domain are sealed with. A domain that was dropped takes none.
    pub fn give(&self, key: DomainKey, current: u32, until: Option<Duration>) {
        {
            let mut inner = self.inner.borrow_mut();
            let domain = inner.domains.entry(key.domain()).or_default();
            if domain.dropped {
                return;
            }
            // Versions only grow, and word of them may come late.
            domain.current = domain.current.max(current);
            domain.versions.insert(key.version(), Held { key: HeldKey::new(key), until });
        }
        self.changed.notify_all();
    }

    /// Forgets every key of a domain, for good: the domain was dropped.
    pub fn drop_domain(&self, domain: u32) {
        self.inner.borrow_mut().domains.insert(domain, Domain { dropped: true, ..Domain::default() });
        self.changed.notify_all();
    }

    /// Forgets the keys whose time is over; answers their domains and versions.
    pub fn expire(&self, now: Duration) -> Vec<(u32, u32)> {
        let mut gone = Vec::new();
        for (name, domain) in &mut self.inner.borrow_mut().domains {
            domain.versions.retain(|version, held| {
                let stays = held.until.is_none_or(|until| now < until);
                if !stays {
                    gone.push((*name, *version));
                }
                stays
            });
        }
        gone
    }

    /// Domains that were asked for since the last call and are not here, or for which somebody still waits: they have to be
    /// brought.
    #[must_use]
    pub fn take_unsaid(&self) -> Vec<u32> {
        std::mem::take(&mut self.inner.borrow_mut().unsaid)
    }

    /// Somebody waits for a key of this domain: it is to be said once more, unless that is still to come.
    pub(crate) fn ask_again(&self, domain: u32) {
        let mut inner = self.inner.borrow_mut();
        if inner.wanted.contains(&domain) && !inner.unsaid.contains(&domain) {
            inner.unsaid.push(domain);
        }
    }

    /// Every domain that was ever asked for and not here at that time.
    #[must_use]
    pub fn wanted(&self) -> Vec<u32> {
        self.inner.borrow().wanted.iter().copied().collect()
    }

    /// Domain and version that new blocks of `domain` are sealed with; 0 stands for the first domain that is here.
    ///
    /// # Errors
    /// `NoKey` when the ring does not hold it, `KeyDropped` when it never will again.
    pub fn current(&self, domain: u32) -> Result<Rc<HeldKey>, EdgeError> {
        let name = match domain {
            0 => self.inner.borrow().domains.iter().find(|(_, found)| !found.dropped).map(|(name, _)| *name),
            name => Some(name),
        };
        let name = name.ok_or(EdgeError::NoKey { domain, version: 0 })?;
        let version = self.inner.borrow().domains.get(&name).map_or(0, |found| found.current);
        self.find(name, version)
    }

    /// The key of this domain and version.
    ///
    /// # Errors
    /// `NoKey` when the ring does not hold it, `KeyDropped` when it never will again.
    pub fn find(&self, domain: u32, version: u32) -> Result<Rc<HeldKey>, EdgeError> {
        let mut inner = self.inner.borrow_mut();
        let found = inner.domains.get(&domain);
        if found.is_some_and(|found| found.dropped) {
            return Err(EdgeError::KeyDropped { domain });
        }
        if let Some(held) = found.and_then(|found| found.versions.get(&version)) {
            return Ok(Rc::clone(&held.key));
        }
        if domain != 0 && inner.wanted.len() < WANTED_MAX && inner.wanted.insert(domain) {
            inner.unsaid.push(domain);
        }
        Err(EdgeError::NoKey { domain, version })
    }

    /// Done when a key came or a domain was dropped.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nova_units::{BlockId, Generation, UnitIndex};
    use novafs_format::PAGE;

    fn key(domain: u32, version: u32) -> DomainKey {
        DomainKey::new(domain, version, [9; 32])
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn new_blocks_take_the_current_version_and_old_ones_keep_theirs() {
        let ring = Keyring::of(key(1, 1));
        assert_eq!(ring.current(1).unwrap().version(), 1);
        ring.give(key(1, 2), 2, None);
        assert_eq!(ring.current(1).unwrap().version(), 2);
        assert_eq!(ring.find(1, 1).unwrap().version(), 1);
        ring.give(key(1, 1), 1, None);
        assert_eq!(ring.current(0).unwrap().version(), 2, "late word of an older version changes nothing");
        assert_eq!(ring.current(2).unwrap_err(), EdgeError::NoKey { domain: 2, version: 0 });
    }

    #[test]
    fn what_is_not_here_is_asked_for_once() {
        let ring = Keyring::empty();
        for _ in 0..3 {
            assert!(ring.find(7, 1).is_err());
        }
        assert_eq!((ring.take_unsaid(), ring.take_unsaid()), (vec![7], vec![]));
        assert_eq!(ring.wanted(), [7]);
    }

    #[test]
    fn what_is_waited_for_is_said_again_once_a_time() {
        let ring = Keyring::empty();
        ring.ask_again(7);
        assert!(ring.take_unsaid().is_empty(), "nobody ever asked for it");
        assert!(ring.find(7, 1).is_err());
        ring.ask_again(7);
        assert_eq!(ring.take_unsaid(), [7]);
        ring.ask_again(7);
        ring.ask_again(7);
        assert_eq!(ring.take_unsaid(), [7]);
    }

    #[test]
    fn a_key_is_forgotten_when_its_time_is_over_and_said_again_it_stays() {
        let ring = Keyring::empty();
        ring.give(key(3, 1), 1, Some(seconds(10)));
        assert!(ring.expire(seconds(9)).is_empty());
        ring.give(key(3, 1), 1, Some(seconds(20)));
        assert!(ring.expire(seconds(10)).is_empty());
        assert_eq!(ring.expire(seconds(20)), [(3, 1)]);
        assert!(ring.find(3, 1).is_err());
    }

    #[test]
    fn what_was_derived_from_a_key_is_forgotten_with_it() {
        let unit = {
            let block = BlockKey::derive(&key(1, 1), &[3; 16], BlockId(1), Generation(1));
            block.seal(UnitIndex(0), 1, b"words", &mut vec![0; PAGE])
        };
        let ring = Keyring::of(key(1, 1));
        let held = ring.find(1, 1).unwrap();
        let derived = Rc::downgrade(&held.block_key(&unit, 16));
        drop(held);
        assert!(derived.upgrade().is_some(), "remembered while the key is held");
        ring.drop_domain(1);
        assert!(derived.upgrade().is_none());
    }

    #[test]
    fn a_dropped_domain_takes_no_key_any_more() {
        let ring = Keyring::of(key(1, 1));
        ring.drop_domain(1);
        ring.give(key(1, 1), 1, None);
        assert_eq!(ring.find(1, 1).unwrap_err(), EdgeError::KeyDropped { domain: 1 });
        assert_eq!(ring.current(1).unwrap_err(), EdgeError::KeyDropped { domain: 1 });
    }
}
