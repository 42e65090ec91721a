//! What hangs on a name: mode, owner, times, extended attributes, quota; and the room behind it.

use nova_api::files::request::Op;
use nova_api::files::{self as api, Entry, StatfsReport, Xattr, response};

use crate::at::At;
use crate::client::Client;
use crate::error::ClientError;
use crate::names::entry;

/// What changes; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits and set-id and sticky bits, at most 0o7777.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group of the owner.
    pub gid: Option<u32>,
    /// Nanoseconds since 1970.
    pub modified_ns: Option<u64>,
    /// Nanoseconds since 1970. Reading a file does not change it.
    pub accessed_ns: Option<u64>,
}

/// When setting an extended attribute is an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrMode {
    /// Never: it is made or replaced.
    #[default]
    Set,
    /// When it exists.
    Create,
    /// When it does not exist.
    Replace,
}

impl Client {
    /// Changes attributes. A time that is set stays, also when this client has the file open with writes that are not
    /// yet committed: those are committed first.
    ///
    /// # Errors
    /// When metadata refuses or is away; of the open file when its writes cannot be committed.
    pub fn set_attributes<'p>(
        &self,
        at: impl Into<At<'p>>,
        attributes: Attributes,
    ) -> Result<Entry, ClientError> {
        let at = at.into();
        let Attributes { mode, uid, gid, modified_ns, accessed_ns } = attributes;
        let ask = api::SetAttributes {
            base: at.base,
            path: at.path.into(),
            mode,
            uid,
            gid,
            modified_ns,
            accessed_ns,
        };
        let set = || entry(self.metadata.change(Op::SetAttributes(ask.clone()))?, "set attributes");
        let open = match modified_ns {
            // Its time must not be set anew by a later commit.
            Some(_) if self.files.any_open() => self.files.find(self.inode_of(at)?),
            _ => None,
        };
        match open {
            Some(node) => node.settled(set),
            None => self.files.own_view(set),
        }
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// When metadata refuses (NO_DATA: nothing to replace; TOO_LARGE) or is away.
    pub fn set_xattr<'p>(
        &self,
        at: impl Into<At<'p>>,
        name: &str,
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), ClientError> {
        let At { base, path } = at.into();
        let ask = api::SetXattr {
            base,
            path: path.into(),
            name: name.into(),
            value: value.to_vec().into(),
            create_only: mode == XattrMode::Create,
            replace_only: mode == XattrMode::Replace,
        };
        self.metadata.change(Op::SetXattr(ask)).map(drop)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// When metadata refuses (NO_DATA: it has none of that name) or is away.
    pub fn remove_xattr<'p>(&self, at: impl Into<At<'p>>, name: &str) -> Result<(), ClientError> {
        let At { base, path } = at.into();
        let ask = api::RemoveXattr { base, path: path.into(), name: name.into() };
        self.metadata.change(Op::RemoveXattr(ask)).map(drop)
    }

    /// All extended attributes, in order of their names.
    ///
    /// # Errors
    /// When there is no such name, or metadata is away.
    pub fn xattrs<'p>(&self, at: impl Into<At<'p>>) -> Result<Vec<Xattr>, ClientError> {
        let At { base, path } = at.into();
        match self.metadata.read(Op::Xattrs(api::Xattrs { base, path: path.into() }))? {
            response::Result::XattrList(list) => Ok(list.xattrs),
            _ => Err(ClientError::Protocol("a question for attributes was answered with something else")),
        }
    }

    /// Room and names behind a path; the quota of its directory narrows it.
    ///
    /// # Errors
    /// When there is no such name, or metadata is away.
    pub fn statfs<'p>(&self, at: impl Into<At<'p>>) -> Result<StatfsReport, ClientError> {
        let At { base, path } = at.into();
        match self.metadata.read(Op::Statfs(api::Statfs { base, path: path.into() }))? {
            response::Result::Statfs(report) => Ok(report),
            _ => Err(ClientError::Protocol("a question for room was answered with something else")),
        }
    }

    /// Limits what a directory may hold, with everything below it: bytes and files; 0 is no limit.
    ///
    /// # Errors
    /// When metadata refuses (it is no directory) or is away.
    pub fn set_quota<'p>(
        &self,
        at: impl Into<At<'p>>,
        bytes_max: u64,
        files_max: u64,
    ) -> Result<(), ClientError> {
        let At { base, path } = at.into();
        let ask = api::SetQuota { base, path: path.into(), bytes_max, files_max };
        self.metadata.change(Op::SetQuota(ask)).map(drop)
    }
}
