//! The client: what a program holds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nova_api::files as api;
use nova_ring::abi::{ClientCommand, LOCATE_BYTES_MAX, LOCATE_UNITS_MAX};
use nova_ring::snapshot::Located;
use nova_units::{BLOCK_BYTES_MAX, BlockId, GroupId};
use prost::Message;

use crate::data::DataPlane;
use crate::error::ClientError;
use crate::file::Files;
use crate::metadata::Metadata;

/// How to attach.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Shared memory for bytes in flight: 4 MiB to 64 MiB.
    pub arena_bytes: u64,
    /// How long metadata and attaching are tried before an error.
    pub deadline: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { arena_bytes: 32 << 20, deadline: Duration::from_secs(60) }
    }
}

/// NovaFS as one program sees it. Any number of threads may use it at once; a clone is the same client.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) data: Arc<DataPlane>,
    pub(crate) deadline: Duration,
    pub(crate) files: Arc<Files>,
}

/// One unit of a file on one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitPlace {
    /// Block of the file.
    pub block: BlockId,
    /// Its replica group.
    pub group: GroupId,
    /// Unit of the block.
    pub unit: u32,
    /// Host of the replica.
    pub node: u64,
    /// Device, 128 bits.
    pub device: u128,
    /// Byte offset on the device.
    pub position: u64,
    /// Sealed bytes stored.
    pub stored_bytes: u32,
    /// Bytes of plaintext in it.
    pub plain_bytes: u32,
    /// Generation that sealed it, and the seal counter within that: the higher pair is the newer version.
    pub version: (u32, u64),
    /// SHA-256 of the sealed unit, as the record of that replica has it. The bytes on the device are not looked at.
    pub digest: [u8; 32],
}

/// Where a file lies, as far as its hosts told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// In order of blocks, units and hosts.
    pub units: Vec<UnitPlace>,
    /// Hosts that did not tell of all units they should have, with the first reason of each.
    pub untold: BTreeMap<u64, String>,
}

impl Client {
    /// Attaches to the agent of this host, at its socket.
    ///
    /// # Errors
    /// [`ClientError::Agent`] when nobody is there or it refuses.
    pub fn connect(agent_socket: &Path) -> Result<Self, ClientError> {
        Self::connect_with(agent_socket, &ConnectOptions::default())
    }

    /// As [`Client::connect`], with options.
    ///
    /// # Errors
    /// [`ClientError::Agent`] when nobody is there or it refuses; [`ClientError::Usage`] for options out of range.
    pub fn connect_with(agent_socket: &Path, options: &ConnectOptions) -> Result<Self, ClientError> {
        if !(4 << 20..=64 << 20).contains(&options.arena_bytes) {
            return Err(ClientError::Usage(format!(
                "an arena of {} bytes: must be 4 to 64 MiB",
                options.arena_bytes
            )));
        }
        let metadata = Arc::new(Metadata::connect(agent_socket.to_owned(), options.deadline)?);
        let data = DataPlane::new(Arc::clone(&metadata), options.arena_bytes, options.deadline);
        let files = Arc::new(Files::new(Arc::clone(&metadata)));
        Ok(Self { metadata, data: Arc::new(data), deadline: options.deadline, files })
    }

    /// Where every unit of a file lies, on every replica that tells, and which hosts did not tell. It asks for 256 units
    /// at a time.
    ///
    /// # Errors
    /// When there is no such file, or its groups are away.
    pub fn locate(&self, path: &str) -> Result<Places, ClientError> {
        let resolved = self.resolve(path)?;
        let mut places = Places::default();
        for block in &resolved.blocks {
            let mut found = self.locate_block(block)?;
            // What lies behind the end of a block is no part of the file.
            found.units.retain(|place| u64::from(place.unit) << block.unit_log2 < block.bytes);
            places.units.append(&mut found.units);
            for (node, reason) in found.untold {
                places.untold.entry(node).or_insert(reason);
            }
        }
        places.units.sort_by_key(|place| (place.block, place.unit, place.node));
        Ok(places)
    }

    /// The same of one block, and of up to 256 units behind its end, where there should be none. It changes nothing, but a
    /// host moves small units that ride in its log to their cells first.
    ///
    /// # Errors
    /// When its group is not in the map of this host, or the data plane is away.
    pub fn locate_block(&self, block: &api::Block) -> Result<Places, ClientError> {
        let impossible = || ClientError::Protocol("the file's metadata has a block that cannot be");
        if !(12..=16).contains(&block.unit_log2) || block.bytes > BLOCK_BYTES_MAX {
            return Err(impossible());
        }
        let units = u16::try_from(block.bytes.div_ceil(1 << block.unit_log2)).map_err(|_| impossible())?;
        let most = u16::try_from(BLOCK_BYTES_MAX >> block.unit_log2).map_err(|_| impossible())?;
        let mut places = Places::default();
        let mut first_unit = 0;
        while first_unit == 0 || first_unit < units {
            let count = LOCATE_UNITS_MAX.min(most - first_unit);
            self.locate_page(block, first_unit, count, &mut places)?;
            first_unit += count;
        }
        places.units.sort_by_key(|place| (place.unit, place.node));
        Ok(places)
    }

    fn locate_page(
        &self,
        block: &api::Block,
        first_unit: u16,
        count: u16,
        places: &mut Places,
    ) -> Result<(), ClientError> {
        let located = self.locate_units(block, first_unit, count)?;
        for unit in located.replicas {
            let device = <[u8; 16]>::try_from(unit.device.as_slice())
                .map_err(|_| ClientError::Protocol("a device without 16 bytes of name"))?;
            let digest = <[u8; 32]>::try_from(unit.digest.as_slice())
                .map_err(|_| ClientError::Protocol("a unit without a digest of 32 bytes"))?;
            places.units.push(UnitPlace {
                block: BlockId(block.block),
                group: GroupId(block.group),
                unit: unit.unit,
                node: unit.node,
                device: u128::from_be_bytes(device),
                position: unit.position,
                stored_bytes: unit.stored_bytes,
                plain_bytes: unit.plain_bytes,
                version: (unit.generation, unit.counter),
                digest,
            });
        }
        let mut reasons = located.silent_reasons.into_iter();
        for node in located.silent_nodes {
            let reason = reasons.next().unwrap_or_else(|| "it did not say why".into());
            places.untold.entry(node).or_insert(reason);
        }
        Ok(())
    }

    fn locate_units(&self, block: &api::Block, first_unit: u16, count: u16) -> Result<Located, ClientError> {
        let link = self.data.attachment()?;
        let piece = link.room(u64::from(LOCATE_BYTES_MAX))?;
        let answer = link.call("locate a block", self.deadline, |request| ClientCommand::Locate {
            request,
            group: GroupId(block.group),
            block: BlockId(block.block),
            first_unit,
            count,
            arena_offset: piece.offset,
            arena_bytes: LOCATE_BYTES_MAX,
        })?;
        if answer.bytes > LOCATE_BYTES_MAX {
            return Err(ClientError::Protocol("the answer to locate is longer than its room"));
        }
        let mut message = vec![0; usize::try_from(answer.bytes).expect("at most 1 MiB")];
        link.area.copy_out(piece.offset, &mut message).expect("the slab lies in the area");
        Located::decode(&*message).map_err(|_| ClientError::Protocol("the answer to locate cannot be read"))
    }
}
