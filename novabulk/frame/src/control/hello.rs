//! The beginning and the end of a connection.

use nova_units::{BootId, NodeId};

use crate::error::FrameError;
use crate::header::StreamId;
use crate::reader::Reader;

use super::message::MessageId;

/// Credit pools of a connection: ingress, forwarded once, forwarded twice.
pub const HOPS: usize = 3;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkRole {
    /// Any frame up to 1 MiB.
    Bulk,
    /// Connection 0 of a pair of hosts: no frame over 64 KiB, so that a ping never waits behind a block.
    Control,
}

/// HELLO: the first frame in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest protocol version the sender speaks; at least 1.
    pub version_min: u8,
    /// Highest protocol version the sender speaks; not below `version_min`.
    pub version_max: u8,
    /// What the connection is for; both ends say the same.
    pub role: LinkRole,
    /// Optional abilities, one bit each; none are defined in version 1, unknown bits are ignored.
    pub features: u64,
    /// The sender's host.
    pub node: NodeId,
    /// The start of the process that sends: a restarted peer is a new one.
    pub boot: BootId,
    /// Longest body of a request that the sender of this HELLO takes, in bytes.
    pub body_bytes_max: u32,
    /// Port of the sender's first shard; shard `i` listens on `port_base + i`. 0 when it does not listen.
    pub port_base: u16,
    /// How many shards listen.
    pub port_count: u16,
    /// What the receiver of this HELLO may send at once, per hop, in units of 256 KiB.
    pub grants: [u32; HOPS],
}

impl Hello {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.extend([self.version_min, self.version_max, u8::from(self.role == LinkRole::Control)]);
        into.extend(self.features.to_be_bytes());
        into.extend(self.node.0.to_be_bytes());
        into.extend(self.boot.0.to_be_bytes());
        into.extend(self.body_bytes_max.to_be_bytes());
        into.extend(self.port_base.to_be_bytes());
        into.extend(self.port_count.to_be_bytes());
        for grant in self.grants {
            into.extend(grant.to_be_bytes());
        }
    }

    pub(super) fn decode(mut fields: Reader<'_>) -> Result<Self, FrameError> {
        let (version_min, version_max) = (fields.u8()?, fields.u8()?);
        if version_min == 0 || version_max < version_min {
            return Err(fields.refuse("version_max", version_max.into()));
        }
        let role = match fields.u8()? {
            0 => LinkRole::Bulk,
            1 => LinkRole::Control,
            other => return Err(fields.refuse("role", other.into())),
        };
        let hello = Self {
            version_min,
            version_max,
            role,
            features: fields.u64()?,
            node: NodeId(fields.u64()?),
            boot: BootId(fields.u64()?),
            body_bytes_max: fields.u32()?,
            port_base: fields.u16()?,
            port_count: fields.u16()?,
            grants: [fields.u32()?, fields.u32()?, fields.u32()?],
        };
        fields.finish()?;
        Ok(hello)
    }
}

/// GOAWAY: the sender takes no new work. What it had begun ends normally; the rest goes elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoAway {
    /// Highest stream of the peer that will still be served.
    pub last_stream: StreamId,
    /// Highest request of the peer that will still be answered.
    pub last_message: MessageId,
}

impl GoAway {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.extend([0; 3]);
        into.extend(self.last_stream.0.to_be_bytes());
        into.extend(self.last_message.0.to_be_bytes());
    }

    pub(super) fn decode(mut fields: Reader<'_>) -> Result<Self, FrameError> {
        super::message::zeroes(&mut fields, 3)?;
        let goaway = Self { last_stream: StreamId(fields.u32()?), last_message: MessageId(fields.u64()?) };
        fields.finish()?;
        Ok(goaway)
    }
}
