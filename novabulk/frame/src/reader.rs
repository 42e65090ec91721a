//! A cursor over the fields of one control header.

use crate::error::FrameError;

/// Takes fields off the front; running out is an error that names the header's kind and length.
pub(crate) struct Reader<'a> {
    kind: u8,
    bytes_total: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Over the bytes after the kind.
    pub(crate) const fn new(kind: u8, rest: &'a [u8]) -> Self {
        Self { kind, bytes_total: rest.len() + 1, rest }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (front, rest) = self.rest.split_first_chunk().ok_or(self.wrong_length())?;
        self.rest = rest;
        Ok(*front)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FrameError> {
        self.take().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FrameError> {
        self.take().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FrameError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FrameError> {
        self.take().map(u64::from_be_bytes)
    }

    /// Everything that is left.
    pub(crate) fn remaining(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// Ends a header of fixed length.
    pub(crate) const fn finish(self) -> Result<(), FrameError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.wrong_length()) }
    }

    /// Ends a header with the named field out of range.
    pub(crate) const fn refuse(&self, field: &'static str, value: u64) -> FrameError {
        FrameError::ControlField { kind: self.kind, field, value }
    }

    const fn wrong_length(&self) -> FrameError {
        FrameError::ControlBytes { kind: self.kind, bytes: self.bytes_total }
    }
}
