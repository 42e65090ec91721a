//! Streams for transfers: asked for, granted or refused.

use core::time::Duration;

use nova_units::Priority;

use crate::error::FrameError;
use crate::reader::Reader;

use super::message::{millis, zeroes};

/// A job's token, as the agent signed it, is far below this.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// OPEN: asks for the stream of its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The class asked for; what is granted comes from the token.
    pub class: Priority,
    /// The transfer that the stream belongs to.
    pub transfer: u64,
    /// Proof of the class, at most [`TOKEN_BYTES_MAX`] bytes; NovaBulk does not look inside.
    pub token: Vec<u8>,
}

impl Open {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        assert!(self.token.len() <= TOKEN_BYTES_MAX, "token of {} bytes", self.token.len());
        into.extend([self.class as u8, 0, 0]);
        into.extend(self.transfer.to_be_bytes());
        into.extend(&self.token);
    }

    pub(super) fn decode(mut fields: Reader<'_>) -> Result<Self, FrameError> {
        let class = fields.u8()?;
        let class = Priority::from_number(class).ok_or(fields.refuse("class", class.into()))?;
        zeroes(&mut fields, 2)?;
        let transfer = fields.u64()?;
        let token = fields.remaining();
        if token.len() > TOKEN_BYTES_MAX {
            return Err(fields.refuse("token_bytes", token.len() as u64));
        }
        Ok(Self { class, transfer, token: token.to_vec() })
    }
}

/// ACCEPT: the stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// What may be sent on the stream at once, in units of 256 KiB; it permits, the hop's pool still pays.
    pub grant: u32,
}

impl Accept {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.extend([0; 3]);
        into.extend(self.grant.to_be_bytes());
    }

    pub(super) fn decode(mut fields: Reader<'_>) -> Result<Self, FrameError> {
        zeroes(&mut fields, 3)?;
        let accept = Self { grant: fields.u32()? };
        fields.finish()?;
        Ok(accept)
    }
}

/// REJECT: no stream now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// When to ask again, whole milliseconds; [`Reject::NEVER`] when this peer never serves such a stream.
    pub retry_after: Duration,
}

impl Reject {
    /// Asking again does not help.
    pub const NEVER: Duration = Duration::from_millis(u32::MAX as u64);

    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.extend([0; 3]);
        into.extend(millis(self.retry_after).to_be_bytes());
    }

    pub(super) fn decode(mut fields: Reader<'_>) -> Result<Self, FrameError> {
        zeroes(&mut fields, 3)?;
        let reject = Self { retry_after: Duration::from_millis(fields.u32()?.into()) };
        fields.finish()?;
        Ok(reject)
    }
}
