//! Ctrl-C and SIGTERM, as something a task of a shard can wait for.

use std::io;
use std::os::fd::OwnedFd;

use nova_shard::RealShard;
use rustix::event::{EventfdFlags, eventfd};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Becomes readable when the process is asked to end.
#[derive(Debug)]
pub(crate) struct Interrupt(OwnedFd);

impl Interrupt {
    /// Listens from now on; the second signal ends the process at once.
    ///
    /// # Errors
    /// When there is no descriptor or thread left for it.
    pub(crate) fn listen() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let ours = bell.try_clone()?;
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for (count, _) in signals.forever().enumerate() {
                if count > 0 {
                    std::process::exit(1);
                }
                // The counter of an eventfd does not fill up.
                let _ = rustix::io::write(&ours, &1u64.to_le_bytes());
            }
        })?;
        Ok(Self(bell))
    }

    /// Waits until the process is asked to end.
    pub(crate) async fn asked(&self, shard: &RealShard) -> io::Result<()> {
        shard.wait_fd(self.0.try_clone()?).await
    }
}
