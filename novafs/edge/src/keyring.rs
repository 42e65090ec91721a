//! The keys that this edge holds.

use std::rc::Rc;

use novafs_format::seal::DomainKey;

use crate::EdgeError;

/// Domain keys by domain and version; the newest version of the first domain seals new blocks.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Vec<Rc<DomainKey>>,
}

impl Keyring {
    /// A ring of one key: what a region's key file holds.
    #[must_use]
    pub fn of(key: DomainKey) -> Self {
        Self { keys: vec![Rc::new(key)] }
    }

    /// The key that new blocks are sealed with, if there is any.
    #[must_use]
    pub fn current(&self) -> Option<&Rc<DomainKey>> {
        self.keys.iter().max_by_key(|key| key.version())
    }

    /// The key of this domain and version.
    ///
    /// # Errors
    /// `NoKey` when the ring does not hold it.
    pub fn find(&self, domain: u32, version: u32) -> Result<&Rc<DomainKey>, EdgeError> {
        self.keys
            .iter()
            .find(|key| key.domain() == domain && key.version() == version)
            .ok_or(EdgeError::NoKey { domain, version })
    }
}
