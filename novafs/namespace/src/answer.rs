//! What `apply` answers. Answers are messages because the last ones of each client are part of the state.

/// Why a request was refused; the numbers are those of the wire schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Code {
    /// Never answered.
    Unspecified = 0,
    /// No such path.
    NotFound = 1,
    /// The name is taken.
    AlreadyExists = 2,
    /// A name on the way is a file.
    NotADirectory = 3,
    /// A file was expected.
    IsADirectory = 4,
    /// The directory has entries.
    NotEmpty = 5,
    /// A name that may not be.
    InvalidName = 6,
    /// The session has ended; open another.
    Fenced = 7,
    /// A directory would be moved below itself.
    Loop = 8,
    /// Source and target have different keys: copy instead.
    CrossDomain = 9,
    /// A limit of the metadata state is reached.
    Full = 10,
    /// The request makes no sense.
    Invalid = 11,
    /// No replica group can take blocks now.
    NoGroups = 12,
    /// No leader now.
    Unavailable = 13,
    /// The file has another writer.
    Busy = 14,
    /// A quota would be exceeded.
    Quota = 15,
    /// No such extended attribute.
    NoData = 16,
    /// A file or an attribute would be too large.
    TooLarge = 17,
    /// The file has as many names as one may have.
    TooManyLinks = 18,
    /// It cannot be changed.
    ReadOnly = 19,
    /// The inode is gone.
    Stale = 20,
}

/// A refusal: nothing was changed by the part of the request that `path` names.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Failure {
    /// Why; see [`Failure::code`].
    #[prost(enumeration = "Code", tag = "1")]
    pub code: i32,
    /// The part of the request that it concerns.
    #[prost(string, tag = "2")]
    pub path: String,
    /// For people.
    #[prost(string, tag = "3")]
    pub message: String,
}

impl Failure {
    /// A refusal about `path`.
    #[must_use]
    pub fn new(code: Code, path: &str, message: &str) -> Self {
        Self { code: code.into(), path: path.to_owned(), message: message.to_owned() }
    }
}

/// Done, and there is nothing to tell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Done {}

/// A new writer session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct SessionOpened {
    /// Its id.
    #[prost(uint64, tag = "1")]
    pub session: u64,
    /// It must be renewed within this time.
    #[prost(uint32, tag = "2")]
    pub lease_ms: u32,
    /// Era of the block ids it will be given.
    #[prost(uint32, tag = "3")]
    pub era: u32,
}

/// Block ids `[first_block, first_block + count)`; block i goes to `groups[i % n]`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct BlocksReserved {
    /// The first id.
    #[prost(uint64, tag = "1")]
    pub first_block: u64,
    /// How many.
    #[prost(uint32, tag = "2")]
    pub count: u32,
    /// The groups that may hold them.
    #[prost(uint32, repeated, tag = "3")]
    pub groups: Vec<u32>,
}

/// One outcome for each file of a publish command, in order.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Published {
    /// The outcomes.
    #[prost(message, repeated, tag = "1")]
    pub outcomes: Vec<Outcome>,
}

/// What became of one file.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Outcome {
    /// Its inode; 0 when it failed.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// Why it was refused.
    #[prost(message, optional, tag = "2")]
    pub failure: Option<Failure>,
}

/// What a sweep did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Swept {
    /// Entries it took out.
    #[prost(uint32, tag = "1")]
    pub entries: u32,
    /// There is more to sweep.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// An inode was made or changed; what it is now is in the state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Touched {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// Cookie of the name that the request was about; 0: of its first.
    #[prost(uint64, tag = "2")]
    pub cookie: u64,
}

/// A file was opened for writing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Opened {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    /// Cookie of the name that the request was about; 0: of its first.
    #[prost(uint64, tag = "2")]
    pub cookie: u64,
    /// The turn of the session on it.
    #[prost(uint32, tag = "3")]
    pub generation: u32,
    /// It did not exist before.
    #[prost(bool, tag = "4")]
    pub created: bool,
}

/// The answer to one command.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Answer {
    /// What it is.
    #[prost(oneof = "Reply", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub result: Option<Reply>,
}

/// One kind of answer.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum Reply {
    /// Refused.
    #[prost(message, tag = "1")]
    Failure(Failure),
    /// Done.
    #[prost(message, tag = "2")]
    Done(Done),
    /// A session was opened.
    #[prost(message, tag = "3")]
    SessionOpened(SessionOpened),
    /// Blocks were reserved.
    #[prost(message, tag = "4")]
    BlocksReserved(BlocksReserved),
    /// Files were published.
    #[prost(message, tag = "5")]
    Published(Published),
    /// Removed trees were swept.
    #[prost(message, tag = "6")]
    Swept(Swept),
    /// An inode was made or changed.
    #[prost(message, tag = "7")]
    Touched(Touched),
    /// A file was opened for writing.
    #[prost(message, tag = "8")]
    Opened(Opened),
    /// The length of a file was changed.
    #[prost(message, tag = "9")]
    Resized(Touched),
}

impl Answer {
    /// The refusal in it, if it is one.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match &self.result {
            Some(Reply::Failure(failure)) => Some(failure),
            _ => None,
        }
    }

    /// A refusal that changed nothing and holds only for the time being: the same request may succeed later.
    pub(crate) fn is_for_now(&self) -> bool {
        self.failure().is_some_and(|failure| failure.code() == Code::NoGroups)
    }

    /// How many outcomes it holds; at least 1.
    pub(crate) fn weight(&self) -> usize {
        match &self.result {
            Some(Reply::Published(published)) => published.outcomes.len().max(1),
            Some(Reply::BlocksReserved(reserved)) => reserved.groups.len().max(1),
            _ => 1,
        }
    }
}

impl From<Reply> for Answer {
    fn from(result: Reply) -> Self {
        Self { result: Some(result) }
    }
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        Reply::Failure(failure).into()
    }
}

impl From<Done> for Answer {
    fn from(done: Done) -> Self {
        Reply::Done(done).into()
    }
}
