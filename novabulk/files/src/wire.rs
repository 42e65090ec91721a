//! Fields of a head, one after another, in network order.

use crate::{Digest, HEAD_BYTES_MAX, MessageError, Name};

/// The version that this host speaks.
pub(crate) const VERSION: u8 = 1;

/// Writes the fields of a head.
#[derive(Debug)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn new(kind: u8) -> Self {
        Self(vec![VERSION, kind])
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn flag(&mut self, value: bool) {
        self.byte(u8::from(value));
    }

    pub(crate) fn short(&mut self, value: u16) {
        self.0.extend(value.to_be_bytes());
    }

    pub(crate) fn word(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    pub(crate) fn long(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    pub(crate) fn digest(&mut self, digest: &Digest) {
        self.0.extend(digest.0);
    }

    /// A length, then the bytes.
    ///
    /// # Panics
    /// Over 64 KiB, which nothing of ours has.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.short(u16::try_from(bytes.len()).expect("a field is shorter than a head"));
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        let mut end = text.len().min(4096);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes(&text.as_bytes()[..end]);
    }

    pub(crate) fn name(&mut self, name: &Name) {
        self.bytes(name.as_bytes());
    }

    /// A count, then what `write` makes of each item.
    pub(crate) fn list<T>(&mut self, items: &[T], write: impl Fn(&mut Self, &T)) {
        self.short(u16::try_from(items.len()).expect("a list of a head has fewer items than bytes"));
        for item in items {
            write(self, item);
        }
    }
}

/// Reads the fields of a head.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The kind, and a reader of what follows it.
    pub(crate) fn new(head: &'a [u8]) -> Result<(u8, Self), MessageError> {
        if head.len() > HEAD_BYTES_MAX {
            return Err(MessageError::TooLong { bytes: head.len() });
        }
        let mut reader = Self(head);
        match reader.byte()? {
            VERSION => Ok((reader.byte()?, reader)),
            found => Err(MessageError::Version { found }),
        }
    }

    pub(crate) fn finish(self) -> Result<(), MessageError> {
        if self.0.is_empty() { Ok(()) } else { Err(MessageError::Length) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], MessageError> {
        let (front, rest) = self.0.split_at_checked(count).ok_or(MessageError::Length)?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        Ok(self.take(N)?.try_into().expect("as many as were taken"))
    }

    pub(crate) fn byte(&mut self) -> Result<u8, MessageError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, MessageError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(MessageError::Value { field: "flag", value: other.into() }),
        }
    }

    pub(crate) fn short(&mut self) -> Result<u16, MessageError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn word(&mut self) -> Result<u32, MessageError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn long(&mut self) -> Result<u64, MessageError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, MessageError> {
        Ok(Digest(self.array()?))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], MessageError> {
        let count = self.short()?.into();
        self.take(count)
    }

    pub(crate) fn text(&mut self) -> Result<String, MessageError> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    pub(crate) fn name(&mut self) -> Result<Name, MessageError> {
        Ok(Name::new(self.bytes()?)?)
    }

    /// What `read` makes of each item; the count is believed as far as there are bytes.
    pub(crate) fn list<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, MessageError>,
    ) -> Result<Vec<T>, MessageError> {
        let count = self.short()?;
        let mut items = Vec::with_capacity(usize::from(count).min(self.0.len()));
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }
}
