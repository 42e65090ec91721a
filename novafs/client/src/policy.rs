//! Rules of a namespace, and what was removed and can still come back.

use nova_api::files::request::Op;
use nova_api::files::{self as api, Trashed, response};

use crate::client::Client;
use crate::error::ClientError;

/// Removed trees in one page of the trash.
const TRASH_LIMIT: u32 = 500;

/// Rules of a namespace, a directory under the root; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceRules {
    /// How long files are kept, in ms; 0: until they are removed.
    pub retention_ms: Option<u64>,
    /// Copies of each new block.
    pub replicas: Option<u32>,
    /// Key domain of new files.
    pub key_domain: Option<u32>,
    /// How long what is removed can come back, in ms; 0: not at all.
    pub undelete_ms: Option<u64>,
    /// Unit size of new blocks, 12..=16.
    pub unit_log2: Option<u32>,
}

impl Client {
    /// Sets rules of the namespace `name`, without a slash.
    ///
    /// # Errors
    /// When metadata refuses (there is no such namespace, or a rule is out of range) or is away.
    pub fn set_space(&self, name: &str, rules: SpaceRules) -> Result<(), ClientError> {
        let SpaceRules { retention_ms, replicas, key_domain, undelete_ms, unit_log2 } = rules;
        let ask =
            api::SetSpace { name: name.into(), retention_ms, replicas, key_domain, undelete_ms, unit_log2 };
        self.metadata.change(Op::SetSpace(ask)).map(drop)
    }

    /// What was removed from `namespace` (empty: from all) and can still come back, page by page.
    ///
    /// # Errors
    /// When metadata is away, or from `each`.
    pub fn trash(
        &self,
        namespace: &str,
        each: &mut dyn FnMut(Trashed) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let mut after = String::new();
        loop {
            let ask =
                api::ListTrash { namespace: namespace.into(), after: after.clone(), limit: TRASH_LIMIT };
            let listing = match self.metadata.read(Op::ListTrash(ask))? {
                response::Result::Trash(listing) => listing,
                _ => return Err(ClientError::Protocol("the trash was answered with something else")),
            };
            let Some(last) = listing.entries.last() else { return Ok(()) };
            after = last.id.to_string();
            for trashed in listing.entries {
                each(trashed)?;
            }
            if !listing.more {
                return Ok(());
            }
        }
    }

    /// Brings a removed tree back, to `target` or (empty) to where it was.
    ///
    /// # Errors
    /// When metadata refuses (it is gone, or the place is taken) or is away.
    pub fn undelete(&self, id: u64, target: &str) -> Result<(), ClientError> {
        self.metadata.change(Op::Undelete(api::Undelete { id, target: target.into() })).map(drop)
    }

    /// Ends the chance of a removed tree to come back; `None`: of all of them.
    ///
    /// # Errors
    /// When metadata refuses (it is gone) or is away.
    pub fn purge_trash(&self, id: Option<u64>) -> Result<(), ClientError> {
        self.metadata.change(Op::PurgeTrash(api::PurgeTrash { id: id.unwrap_or(0) })).map(drop)
    }
}
