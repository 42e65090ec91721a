//! The service's door: a small thread that accepts, asks, and answers.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::error::AttachError;
use crate::handshake::{self, Credentials, Hello};
use crate::layout::Terms;
use crate::link::{Link, welcome};

/// Handshakes at the same time; the next one is told to come back. A silent peer holds one for two seconds.
pub const HANDSHAKES_MAX: usize = 8;

/// Who may come in; called on threads of the door, so it hands over to its own runtime quickly.
pub trait Admission: Send + Sync + 'static {
    /// Decides over a hello whose version and layout were already checked. Tickets are used up here.
    ///
    /// # Errors
    /// The reason for the peer, in words.
    fn admit(&self, hello: &Hello, peer: Credentials) -> Result<Terms, String>;

    /// Takes over an attachment.
    fn attached(&self, hello: Hello, peer: Credentials, link: Link);
}

/// Listens on a Unix socket until it is dropped.
#[derive(Debug)]
pub struct Acceptor {
    path: PathBuf,
    listener: Arc<UnixListener>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Listens at `path` with these permission bits (0600 for one user); a socket left by a dead process is replaced.
    ///
    /// # Errors
    /// When a living process listens there already, or the folder does not let us.
    pub fn listen(path: &Path, mode: u32, admission: Arc<dyn Admission>) -> Result<Self, AttachError> {
        if UnixStream::connect(path).is_ok() {
            return Err(AttachError::System {
                doing: "listen on the ring socket: another process is listening there, stop it first",
                source: std::io::ErrorKind::AddrInUse.into(),
            });
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(AttachError::io("replace the ring socket of a dead process")(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(AttachError::io("listen on the ring socket"))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(AttachError::io("set the ring socket's permissions"))?;
        let (listener, stop) = (Arc::new(listener), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (listener, stop) = (Arc::clone(&listener), Arc::clone(&stop));
            std::thread::Builder::new()
                .name("ring-door".into())
                .spawn(move || accept(&listener, &stop, &admission))
                .map_err(AttachError::io("start the ring's door"))?
        };
        Ok(Self { path: path.to_owned(), listener, stop, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread out of accept, also when someone removed the socket's file. A socket that is not listening
        // any more has nobody to wake.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A door that panicked has said so; there is nothing left to stop.
            let _ = thread.join();
        }
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn accept(listener: &UnixListener, stop: &AtomicBool, admission: &Arc<dyn Admission>) {
    let under_way = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = listener.accept();
        if stop.load(Ordering::Acquire) {
            return;
        }
        let Ok((socket, _)) = accepted else {
            // Out of descriptors, most likely: give the process time to close some.
            std::thread::sleep(crate::lane::LOOK_AGAIN);
            continue;
        };
        if under_way.fetch_add(1, Ordering::AcqRel) >= HANDSHAKES_MAX {
            under_way.fetch_sub(1, Ordering::AcqRel);
            // The peer may be gone, which is as good as refused.
            let _ = handshake::refuse(&socket, "too many handshakes at once: try again in a moment");
            continue;
        }
        let (admission, counted) = (Arc::clone(admission), Arc::clone(&under_way));
        let spawned = std::thread::Builder::new().name("ring-hello".into()).spawn(move || {
            // A peer that fails its handshake is told so, or is gone; the service itself has lost nothing.
            let _ = meet(socket, &*admission);
            counted.fetch_sub(1, Ordering::AcqRel);
        });
        if spawned.is_err() {
            under_way.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// One handshake, on a thread of its own.
fn meet(socket: UnixStream, admission: &dyn Admission) -> Result<(), AttachError> {
    let hello = handshake::read_hello(&socket);
    handshake::hush(&socket)?;
    let hello = match hello {
        Ok(hello) => hello,
        Err(error) => {
            handshake::refuse(&socket, &error.to_string())?;
            return Err(error);
        }
    };
    let peer = Credentials::of(&socket)?;
    match hello.check().and_then(|()| admission.admit(&hello, peer)) {
        Err(reason) => handshake::refuse(&socket, &reason),
        Ok(terms) => {
            let link = welcome(socket, &hello, terms)?;
            admission.attached(hello, peer, link);
            Ok(())
        }
    }
}
