//! Many files in: workers write, one thread publishes, what a restart interrupted begins again.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use nova_api::files::failure::Code;
use nova_api::files::{NewFile, Xattr};

use crate::attributes::XattrMode;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::content::LocalContent;
use crate::error::ClientError;
use crate::local::{self, Version};
use crate::progress::Progress;
use crate::publish::{Ready, publish_all};
use crate::session::Session;
use crate::write::write_file;

/// A file to put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The local file.
    pub local: PathBuf,
    /// Its absolute path in NovaFS; missing directories are made.
    pub target: String,
}

/// How to put.
#[derive(Clone, Debug)]
pub struct PutOptions {
    /// Files in flight; each has a thread.
    pub files_in_flight: usize,
    /// Namespace whose groups take the blocks; empty: the first part of each path decides at the controllers.
    pub namespace: String,
    /// Whether a file that exists is replaced.
    pub replace: bool,
    /// Unit size, 12..=16; `None`: what the namespace of each file asks for.
    pub unit_log2: Option<u8>,
    /// How long one step of a file may take before the file fails.
    pub deadline: Duration,
}

impl Default for PutOptions {
    fn default() -> Self {
        Self {
            files_in_flight: 32,
            namespace: String::new(),
            replace: false,
            unit_log2: None,
            deadline: Duration::from_secs(60),
        }
    }
}

/// What a put did.
#[derive(Debug, Default)]
pub struct PutReport {
    /// Files published.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that failed.
    pub failed: u64,
    /// The first hundred of them.
    pub failures: Vec<(PathBuf, ClientError)>,
    /// Files that were read again because the data plane or the session went away in the middle, or the file changed.
    pub restarted: u64,
}

/// Failures kept with their reason.
const FAILURES_MAX: usize = 100;
/// A file is begun this often, however long that takes; more often only until the deadline has passed.
const ATTEMPTS_SURE: u32 = 5;
/// Files durable and waiting to be published.
const READY_MAX: usize = 1024;

/// A file in the hands of a put.
struct Job {
    source: Source,
    /// Extended attributes that it gets when it is published.
    xattrs: Vec<Xattr>,
    published: bool,
    /// Whether the source changed while it was read; then it is read once more.
    changed: bool,
    attempt: u32,
    bytes: u64,
    /// Since the data plane or the session went away for the first time: the next may go at once, too.
    backoff: Option<Backoff>,
}

impl Job {
    fn new(source: Source) -> Self {
        let xattrs = Vec::new();
        Self { source, xattrs, published: false, changed: false, attempt: 0, bytes: 0, backoff: None }
    }
}

struct Feed<I> {
    files: I,
    exhausted: bool,
    again: VecDeque<Job>,
    /// Jobs handed out and not yet finished for good.
    open: usize,
    report: PutReport,
}

struct Put<'c, I> {
    client: &'c Client,
    options: &'c PutOptions,
    progress: &'c Progress,
    feed: Mutex<Feed<I>>,
    changed: Condvar,
    session: Mutex<Arc<Session>>,
}

impl Client {
    /// Puts files, many at a time, with their modes, owners, times, and extended attributes (`user.`); holes are not
    /// stored. A file that fails does not stop the others: see the report. One that is written to while it is read is
    /// read once more, and fails when that happens again.
    ///
    /// # Errors
    /// When no file can be put at all: no session, or wrong options.
    pub fn put(
        &self,
        files: impl Iterator<Item = Source> + Send,
        options: &PutOptions,
        progress: &Progress,
    ) -> Result<PutReport, ClientError> {
        if let Some(log2) = options.unit_log2
            && !(nova_units::UNIT_LOG2_MIN..=nova_units::UNIT_LOG2_MAX).contains(&log2)
        {
            return Err(ClientError::Usage(format!("unit_log2 = {log2}: must be 12 to 16")));
        }
        let session = Arc::new(Session::open(&self.metadata, &options.namespace)?);
        let feed =
            Feed { files, exhausted: false, again: VecDeque::new(), open: 0, report: PutReport::default() };
        let put = Put {
            client: self,
            options,
            progress,
            feed: Mutex::new(feed),
            changed: Condvar::new(),
            session: Mutex::new(session),
        };
        let (ready, to_publish) = sync_channel(READY_MAX);
        std::thread::scope(|scope| {
            for _ in 0..options.files_in_flight.clamp(1, 256) {
                let (put, ready) = (&put, ready.clone());
                scope.spawn(move || put.work(&ready));
            }
            drop(ready);
            let done = |job, session, outcome| put.settle(job, session, outcome);
            publish_all(&self.metadata, &to_publish, options.replace, done);
        });
        Ok(put.feed.into_inner().expect("no holder of this lock panics").report)
    }
}

impl<I: Iterator<Item = Source> + Send> Put<'_, I> {
    /// The next file; waits while files that may come back are still under way. `None`: all is done.
    fn next(&self) -> Option<Job> {
        let mut feed = self.feed.lock().expect("no holder of this lock panics");
        loop {
            if let Some(job) = feed.again.pop_front() {
                return Some(job);
            }
            if !feed.exhausted {
                match feed.files.next() {
                    Some(source) => {
                        feed.open += 1;
                        return Some(Job::new(source));
                    }
                    None => {
                        feed.exhausted = true;
                        self.changed.notify_all();
                    }
                }
            }
            if feed.open == 0 {
                return None;
            }
            feed = self.changed.wait(feed).expect("no holder of this lock panics");
        }
    }

    fn work(&self, ready: &SyncSender<Ready<Job>>) {
        while let Some(mut job) = self.next() {
            if job.published {
                let labelled = self.label(&job);
                self.settle(job, 0, labelled);
                continue;
            }
            let paused =
                job.backoff.as_mut().map(|backoff| backoff.pause("write a file", "it was cut off again"));
            if let Some(Err(error)) = paused
                && job.attempt >= ATTEMPTS_SURE
            {
                self.settle(job, 0, Err(error));
                continue;
            }
            let session = match self.session() {
                Ok(session) => session,
                Err(error) => {
                    self.settle(job, 0, Err(error));
                    continue;
                }
            };
            match self.write(&mut job, &session) {
                Ok(file) => {
                    if let Err(lost) = ready.send(Ready { session: session.id, file, token: job }) {
                        self.settle(lost.0.token, 0, Err(ClientError::Protocol("the publisher ended early")));
                    }
                }
                Err(error) => self.settle(job, session.id, Err(error)),
            }
        }
    }

    /// Gives a published file its extended attributes.
    fn label(&self, job: &Job) -> Result<(), ClientError> {
        let target = job.source.target.as_str();
        let set = |xattr: &Xattr| self.client.set_xattr(target, &xattr.name, &xattr.value, XattrMode::Set);
        job.xattrs.iter().try_for_each(set)
    }

    /// The session in use; another one when metadata ended it.
    fn session(&self) -> Result<Arc<Session>, ClientError> {
        let mut session = self.session.lock().expect("no holder of this lock panics");
        if session.has_ended() {
            *session = Arc::new(Session::open(&self.client.metadata, &self.options.namespace)?);
        }
        Ok(Arc::clone(&session))
    }

    fn write(&self, job: &mut Job, session: &Session) -> Result<NewFile, ClientError> {
        let path = &job.source.local;
        let file = File::open(path).map_err(ClientError::local("open", path))?;
        let about = file.metadata().map_err(ClientError::local("look at", path))?;
        let link = self.client.data.attachment()?;
        let PutOptions { unit_log2, deadline, .. } = *self.options;
        let namespace = match session.namespace() {
            "" => namespace_of(&job.source.target),
            chosen => chosen,
        };
        let mut content = LocalContent::new(&file, path, about.len());
        let written = write_file(&mut content, &link, session, namespace, unit_log2, deadline, self.progress)
            .inspect_err(|error| {
                if error.is_no_key() {
                    link.forget_writers();
                }
            })?;
        let xattrs = local::xattrs(&file, path);
        let after = file.metadata().map_err(ClientError::local("look at", path));
        let stayed = after.as_ref().is_ok_and(|after| Version::of(after) == Version::of(&about));
        if !stayed || xattrs.is_err() {
            self.progress.take_back(written.bytes);
        }
        (job.xattrs, _) = (xattrs?, after?);
        if !stayed {
            return Err(ClientError::SourceChanged { path: path.clone() });
        }
        job.bytes = written.bytes;
        let modified =
            about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Ok(NewFile {
            path: job.source.target.clone(),
            mode: about.mode() & 0o7777,
            modified_ms: u64::try_from(modified.as_millis()).unwrap_or(u64::MAX),
            modified_ns: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX),
            bytes: written.bytes,
            blocks: written.blocks,
            uid: about.uid(),
            gid: about.gid(),
            ..NewFile::default()
        })
    }

    /// A file is published, fails, or begins again: after the end of the data plane or of the session.
    fn settle(&self, mut job: Job, session: u64, outcome: Result<(), ClientError>) {
        let fenced = matches!(outcome, Err(ClientError::Refused { code: Code::Fenced, .. }));
        if fenced {
            let current = self.session.lock().expect("no holder of this lock panics");
            if current.id == session {
                current.mark_ended();
            }
        }
        let again = fenced || matches!(outcome, Err(ClientError::Lost));
        let changed = matches!(outcome, Err(ClientError::SourceChanged { .. })) && !job.changed;
        let mut feed = self.feed.lock().expect("no holder of this lock panics");
        match outcome {
            Err(_) if changed => {
                feed.report.restarted += 1;
                job.changed = true;
                job.bytes = 0;
                feed.again.push_back(job);
            }
            Ok(()) if !job.published && !job.xattrs.is_empty() => {
                job.published = true;
                feed.again.push_back(job);
            }
            Err(_) if again => {
                feed.report.restarted += 1;
                job.attempt += 1;
                job.backoff.get_or_insert_with(|| Backoff::new(self.options.deadline));
                job.bytes = 0;
                feed.again.push_back(job);
            }
            Ok(()) => {
                feed.open -= 1;
                feed.report.files += 1;
                feed.report.bytes += job.bytes;
                self.progress.file_done();
            }
            Err(error) => {
                feed.open -= 1;
                feed.report.failed += 1;
                self.progress.file_failed();
                if feed.report.failures.len() < FAILURES_MAX {
                    feed.report.failures.push((job.source.local, error));
                }
            }
        }
        drop(feed);
        self.changed.notify_all();
    }
}
/// The namespace that a path of the region lies in; empty for none.
pub(crate) fn namespace_of(target: &str) -> &str {
    target.trim_start_matches('/').split('/').next().unwrap_or_default()
}
