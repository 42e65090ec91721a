//! The slice as one message; the composed state wraps it.

use imbl::OrdMap;
use nova_units::Timestamp;
use prost::Message;

use crate::apply::{is_name, is_wrapped};
use crate::model::{Domain, DomainState, KeyVersion, Keys};

/// A snapshot that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot of the keys is damaged: {0}; fetch it again")]
pub struct SnapshotError(&'static str);

#[derive(Clone, PartialEq, Message)]
struct Rows {
    #[prost(message, repeated, tag = "1")]
    domains: Vec<DomainRow>,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(uint64, tag = "3")]
    clock_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
struct DomainRow {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint64, tag = "3")]
    created_ms: u64,
    #[prost(message, repeated, tag = "4")]
    versions: Vec<VersionRow>,
    /// Set on a dropped domain, which has no versions.
    #[prost(message, optional, tag = "5")]
    dropped: Option<DroppedRow>,
}

#[derive(Clone, PartialEq, Message)]
struct VersionRow {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    created_ms: u64,
    #[prost(uint32, tag = "3")]
    root_version: u32,
    #[prost(bytes = "vec", tag = "4")]
    wrapped: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct DroppedRow {
    #[prost(uint64, tag = "1")]
    at_ms: u64,
    #[prost(uint32, tag = "2")]
    last: u32,
}

impl Keys {
    /// The slice as bytes; equal slices give equal bytes, and the empty one gives none.
    #[must_use]
    pub fn encode_to_vec(&self) -> Vec<u8> {
        let row = |(id, domain): (u32, &Domain)| DomainRow {
            id,
            name: domain.name.clone(),
            created_ms: domain.created.0,
            versions: domain
                .versions()
                .map(|(version, key)| VersionRow {
                    version,
                    created_ms: key.created.0,
                    root_version: key.root_version,
                    wrapped: key.wrapped.clone(),
                })
                .collect(),
            dropped: match domain.state {
                DomainState::Live { .. } => None,
                DomainState::Dropped { at, last } => Some(DroppedRow { at_ms: at.0, last }),
            },
        };
        let domains = self.iter().map(row).collect();
        Rows { domains, revision: self.revision, clock_ms: self.clock.0 }.encode_to_vec()
    }

    /// Reads what [`Keys::encode_to_vec`] wrote. No bytes are the empty slice: a snapshot of a release without keys.
    ///
    /// # Errors
    /// Bytes that are something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let rows = Rows::decode(bytes).map_err(|_| SnapshotError("no message"))?;
        let mut keys = Self { revision: rows.revision, clock: Timestamp(rows.clock_ms), ..Self::default() };
        for row in rows.domains {
            if row.id != keys.next_id() {
                return Err(SnapshotError("a domain id"));
            }
            if !is_name(&row.name) || keys.names.insert(row.name.clone(), row.id).is_some() {
                return Err(SnapshotError("a domain's name"));
            }
            let mut versions = OrdMap::new();
            for key in row.versions {
                let is_next = versions.get_max().is_none_or(|(last, _)| *last < key.version);
                if key.version == 0 || !is_next || key.root_version == 0 || !is_wrapped(&key.wrapped) {
                    return Err(SnapshotError("a version of a key"));
                }
                let (created, root_version) = (Timestamp(key.created_ms), key.root_version);
                versions.insert(key.version, KeyVersion { created, root_version, wrapped: key.wrapped });
            }
            let state = match row.dropped {
                Some(dropped) if versions.is_empty() => {
                    DomainState::Dropped { at: Timestamp(dropped.at_ms), last: dropped.last }
                }
                None if !versions.is_empty() => DomainState::Live { versions },
                _ => return Err(SnapshotError("a domain that neither lives nor was dropped")),
            };
            let domain = Domain { name: row.name, created: Timestamp(row.created_ms), state };
            keys.domains.insert(row.id, domain);
        }
        Ok(keys)
    }
}
