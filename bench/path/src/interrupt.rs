//! Ctrl-C and SIGTERM, seen between two steps, so that the region is always taken down.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Whether somebody asked us to stop. Copies share one answer.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches SIGINT and SIGTERM from now on, for this process.
    ///
    /// # Errors
    /// When the kernel does not take the handler.
    pub fn catch() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Self(asked))
    }

    /// Whether a signal came.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Ends the work under way when a signal came.
    ///
    /// # Errors
    /// When a signal came.
    pub fn check(&self) -> Result<()> {
        if self.asked() {
            bail!("stopped by a signal");
        }
        Ok(())
    }
}
