//! A file from one name of NovaFS to another, through this host.

use nova_api::files::failure::Code;
use nova_api::files::request::Op;
use nova_api::files::{NewFile, Publish, Resolved, response};

use crate::at::At;
use crate::attributes::XattrMode;
use crate::client::Client;
use crate::content::StoredContent;
use crate::error::ClientError;
use crate::progress::Progress;
use crate::put::namespace_of;
use crate::write::write_file;

/// How often a copy is begun.
const ATTEMPTS_MAX: u32 = 5;

impl Client {
    /// Copies the bytes, mode, owner, time and extended attributes of a file; the target appears whole or not at all, with
    /// missing parents, and gets its extended attributes right after that. It gets the keys of its own place: also where a
    /// rename answers CROSS_DOMAIN. Holes are not stored. Answers how many bytes.
    ///
    /// # Errors
    /// When the source cannot be read, the target exists and is not to be replaced, or something is away.
    pub fn copy_file(
        &self,
        source: &str,
        target: &str,
        replace: bool,
        progress: &Progress,
    ) -> Result<u64, ClientError> {
        let resolved = self.resolve(source)?;
        let entry = resolved.entry.as_ref();
        let xattrs = match entry.filter(|entry| entry.xattrs > 0) {
            Some(entry) => self.xattrs(At::inode(entry.inode))?,
            None => Vec::new(),
        };
        for attempt in 1.. {
            match self.copy_once(&resolved, target, replace, progress) {
                Err(ClientError::Lost | ClientError::Refused { code: Code::Fenced, .. })
                    if attempt < ATTEMPTS_MAX => {}
                Err(error) => return Err(error),
                Ok(bytes) => {
                    for xattr in &xattrs {
                        self.set_xattr(target, &xattr.name, &xattr.value, XattrMode::Set)?;
                    }
                    progress.file_done();
                    return Ok(bytes);
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    fn copy_once(
        &self,
        resolved: &Resolved,
        target: &str,
        replace: bool,
        progress: &Progress,
    ) -> Result<u64, ClientError> {
        let session = self.files.session()?;
        let link = self.data.attachment()?;
        let mut content = StoredContent::new(self, resolved);
        let namespace = namespace_of(target);
        let written = write_file(&mut content, &link, &session, namespace, None, self.deadline, progress)?;
        let entry = resolved.entry.clone().unwrap_or_default();
        let file = NewFile {
            path: target.into(),
            mode: entry.mode & 0o7777,
            modified_ms: entry.modified_ms,
            modified_ns: entry.modified_ns,
            bytes: written.bytes,
            blocks: written.blocks,
            sha256: entry.sha256,
            uid: entry.uid,
            gid: entry.gid,
            ..NewFile::default()
        };
        let ask = Publish { session: session.id, files: vec![file], make_parents: true, replace };
        let published = match self.metadata.change(Op::Publish(ask)) {
            Ok(response::Result::Published(published)) => published,
            Ok(_) => return Err(ClientError::Protocol("a publish was answered with something else")),
            Err(error) => {
                if matches!(error, ClientError::Refused { code: Code::Fenced, .. }) {
                    session.mark_ended();
                }
                return Err(error);
            }
        };
        match published.outcomes.into_iter().next().and_then(|outcome| outcome.failure) {
            None => Ok(written.bytes),
            Some(failure) => {
                let code = failure.code();
                Err(ClientError::Refused { code, path: failure.path, message: failure.message })
            }
        }
    }
}
