//! A file from one name of NovaFS to another, through this host.

use std::io::{self, Read};

use nova_api::files::failure::Code;
use nova_api::files::request::Op;
use nova_api::files::{NewFile, Publish, Resolved, response};

use crate::client::Client;
use crate::error::ClientError;
use crate::progress::Progress;
use crate::put::namespace_of;
use crate::write::write_file;

/// How often a copy is begun.
const ATTEMPTS_MAX: u32 = 5;

/// A file of NovaFS as a stream.
struct Stream<'c> {
    client: &'c Client,
    resolved: &'c Resolved,
    offset: u64,
    /// Why the last read failed: the stream itself can only say that it did.
    failed: Option<ClientError>,
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.resolved.entry.as_ref().map_or(0, |entry| entry.bytes);
        let wanted = u64::try_from(into.len()).expect("a length fits 64 bits");
        let end = bytes.min(self.offset.saturating_add(wanted));
        let count = usize::try_from(end.saturating_sub(self.offset)).expect("inside the caller's slice");
        let (range, mut sink) = (self.offset..end, &mut into[..count]);
        let name = std::path::Path::new("memory");
        let read =
            self.client.read_blocks(&self.resolved.blocks, range, &mut sink, name, &Progress::default());
        if let Err(error) = read {
            self.failed = Some(error);
            return Err(io::Error::other("the source cannot be read"));
        }
        self.offset = end.max(self.offset);
        Ok(count)
    }
}

impl Client {
    /// Copies the bytes, mode and time of a file; the target appears whole or not at all, with missing parents. It gets
    /// the keys of its own place: also where a rename answers CROSS_DOMAIN. Answers how many bytes.
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
        for attempt in 1.. {
            match self.copy_once(&resolved, source, target, replace, progress) {
                Err(ClientError::Lost | ClientError::Refused { code: Code::Fenced, .. })
                    if attempt < ATTEMPTS_MAX => {}
                outcome => {
                    if outcome.is_ok() {
                        progress.file_done();
                    }
                    return outcome;
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    fn copy_once(
        &self,
        resolved: &Resolved,
        source: &str,
        target: &str,
        replace: bool,
        progress: &Progress,
    ) -> Result<u64, ClientError> {
        let session = self.files.session()?;
        let link = self.data.attachment()?;
        let mut stream = Stream { client: self, resolved, offset: 0, failed: None };
        let written = write_file(
            &mut stream,
            source.as_ref(),
            &link,
            &session,
            namespace_of(target),
            None,
            self.deadline,
            progress,
        );
        let written = match stream.failed {
            Some(error) => return Err(error),
            None => written?,
        };
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
