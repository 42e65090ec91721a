//! What may be asked. Commands are entries of the Raft log: fields are only ever added. No field is a key.

/// A change, and when the leader decided it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// The leader's wall clock; the state never lets it go back.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// What is asked.
    #[prost(oneof = "Op", tags = "10, 11, 12, 13")]
    pub op: Option<Op>,
}

/// The kinds of [`Command`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Op {
    /// A new domain with its first key.
    #[prost(message, tag = "10")]
    Create(Create),
    /// A new version of a domain's key.
    #[prost(message, tag = "11")]
    Rotate(Rotate),
    /// The same key, wrapped under another version of the root key.
    #[prost(message, tag = "12")]
    Rewrap(Rewrap),
    /// Crypto-erase.
    #[prost(message, tag = "13")]
    Drop(Drop),
}

/// A new domain with its first key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Create {
    /// Its id: the next one, because the wrapped key is bound to it.
    #[prost(uint32, tag = "1")]
    pub domain: u32,
    /// Its name: 1 to 63 of a-z, 0-9 and '-'.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Version of the key: 1, or that of a key that blocks were sealed with before.
    #[prost(uint32, tag = "3")]
    pub version: u32,
    /// Version of the root key that wraps it.
    #[prost(uint32, tag = "4")]
    pub root_version: u32,
    /// The wrapped key.
    #[prost(bytes = "vec", tag = "5")]
    pub wrapped: Vec<u8>,
}

/// A new version of a domain's key: new blocks are sealed with it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Rotate {
    /// The domain.
    #[prost(uint32, tag = "1")]
    pub domain: u32,
    /// The new version: the current one and 1. Another one is stale.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// Version of the root key that wraps it.
    #[prost(uint32, tag = "3")]
    pub root_version: u32,
    /// The wrapped key.
    #[prost(bytes = "vec", tag = "4")]
    pub wrapped: Vec<u8>,
}

/// The same key, wrapped under another version of the root key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Rewrap {
    /// The domain.
    #[prost(uint32, tag = "1")]
    pub domain: u32,
    /// Which version of its key.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// Version of the root key that wrapped it; another one makes this stale.
    #[prost(uint32, tag = "3")]
    pub from_root_version: u32,
    /// Version of the root key that wraps it now.
    #[prost(uint32, tag = "4")]
    pub root_version: u32,
    /// The wrapped key.
    #[prost(bytes = "vec", tag = "5")]
    pub wrapped: Vec<u8>,
}

/// Crypto-erase: the wrapped keys of all versions leave the state.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Drop {
    /// The domain.
    #[prost(uint32, tag = "1")]
    pub domain: u32,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is so now. Which version the domain has, or had.
    Done {
        /// The domain.
        domain: u32,
        /// The version made, wrapped anew, or dropped last.
        version: u32,
    },
    /// It was decided about another state; look again.
    Stale,
    /// It cannot be; the text says why.
    Refused(&'static str),
}
