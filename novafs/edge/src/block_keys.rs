//! Block keys that were derived lately: a read derives none when it, or another, opened the block before.

use std::collections::HashMap;
use std::mem;
use std::rc::Rc;

use nova_units::{BlockId, Generation};
use novafs_format::SealedUnit;
use novafs_format::seal::{BlockKey, DomainKey, SALT_BYTES};

/// Keys of one generation of the cache; it holds two of them, some 2 KiB a key with its tables.
pub(crate) const BLOCK_KEYS_MAX: usize = 256;

/// What a block key is derived from beside the domain's secret, and the unit size that it is for.
type Name = (BlockId, Generation, [u8; SALT_BYTES], u8);

/// Derived keys of one version of one domain, at most twice [`BLOCK_KEYS_MAX`]. Each wipes itself when the last one who
/// works with it lets go; all of them go when the domain's key does, because it owns them ([`crate::keyring::HeldKey`]).
///
/// A key that was not asked for while [`BLOCK_KEYS_MAX`] others were is forgotten.
#[derive(Debug, Default)]
pub(crate) struct BlockKeys {
    young: HashMap<Name, Rc<BlockKey>>,
    old: HashMap<Name, Rc<BlockKey>>,
}

impl BlockKeys {
    /// The key that a unit says it was sealed under; only its tag proves it.
    pub(crate) fn of(&mut self, domain: &DomainKey, sealed: &SealedUnit, unit_log2: u8) -> Rc<BlockKey> {
        let name = (sealed.block, sealed.generation, sealed.salt, unit_log2);
        if let Some(key) = self.young.get(&name) {
            return Rc::clone(key);
        }
        let key = self.old.remove(&name).unwrap_or_else(|| {
            let key = BlockKey::derive(domain, &sealed.salt, sealed.block, sealed.generation);
            Rc::new(key.with_unit_log2(unit_log2))
        });
        if self.young.len() >= BLOCK_KEYS_MAX {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(name, Rc::clone(&key));
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nova_units::UnitIndex;
    use novafs_format::PAGE;

    fn domain() -> DomainKey {
        DomainKey::new(1, 1, [7; 32])
    }

    fn sealed(block: u64, generation: u32, salt: u8) -> (SealedUnit, Vec<u8>) {
        let key = BlockKey::derive(&domain(), &[salt; 16], BlockId(block), Generation(generation));
        let mut stored = vec![0; PAGE];
        (key.seal(UnitIndex(0), 1, b"words", &mut stored), stored)
    }

    #[test]
    fn a_key_is_derived_once_and_opens_what_only_it_can() {
        let mut keys = BlockKeys::default();
        let mut derived = Vec::new();
        for (block, generation, salt) in [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)] {
            let (sealed, stored) = sealed(block, generation, salt);
            let first = keys.of(&domain(), &sealed, 16);
            let mut plain = [0; 5];
            first.open(&sealed, &stored, &mut plain).unwrap();
            assert_eq!(&plain, b"words");
            derived.push((sealed, first));
        }
        for (sealed, first) in &derived {
            assert!(Rc::ptr_eq(first, &keys.of(&domain(), sealed, 16)));
            let small = SealedUnit { unit_log2: 12, ..*sealed };
            assert!(keys.of(&domain(), &small, 12).is_of(&small), "another unit size is another key");
        }
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_asked_for() {
        let mut keys = BlockKeys::default();
        let unit = sealed(0, 1, 1).0;
        let of = |block| SealedUnit { block: BlockId(block), ..unit };
        let (asked, left) = (keys.of(&domain(), &of(0), 16), Rc::downgrade(&keys.of(&domain(), &of(1), 16)));
        for block in 2..10 * BLOCK_KEYS_MAX as u64 {
            keys.of(&domain(), &of(block), 16);
            assert!(Rc::ptr_eq(&asked, &keys.of(&domain(), &of(0), 16)));
            assert!(keys.young.len() <= BLOCK_KEYS_MAX && keys.old.len() <= BLOCK_KEYS_MAX);
        }
        assert!(left.upgrade().is_none(), "nobody asked for it, so it is gone");
    }
}
