//! Ctrl-C and its kin, seen between two steps, so that what was started is always ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::exit::{Kind, Stop};

/// What asks us to stop, by name.
const SIGNALS: [(i32, &str); 3] =
    [(SIGINT, "SIGINT (Ctrl-C)"), (SIGTERM, "SIGTERM"), (SIGHUP, "SIGHUP (the terminal is gone)")];
/// No signal came: the place after the last of [`SIGNALS`].
const NONE: usize = SIGNALS.len();

/// Whether somebody asked us to stop.
#[derive(Debug)]
pub(super) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Catches the signals from now on, for this process. What our parent had us ignore (`nohup`, a job in the
    /// background of a script) stays ignored.
    pub(super) fn catch() -> anyhow::Result<Self> {
        let status =
            std::fs::read_to_string("/proc/self/status").context("read which signals are ignored")?;
        let ignored = ignored_signals(&status).context("/proc/self/status has no SigIgn")?;
        let came = Arc::new(AtomicUsize::new(NONE));
        for (place, (signal, name)) in SIGNALS.iter().enumerate() {
            if ignored & (1 << (signal - 1)) == 0 {
                signal_hook::flag::register_usize(*signal, Arc::clone(&came), place)
                    .with_context(|| format!("catch {name}"))?;
            }
        }
        Ok(Self(came))
    }

    /// The signal that came last.
    pub(super) fn asked(&self) -> Option<&'static str> {
        SIGNALS.get(self.0.load(Ordering::Relaxed)).map(|(_, name)| *name)
    }

    /// Ends the work under way when a signal came.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match self.asked() {
            None => Ok(()),
            Some(name) => Err(Stop::new(Kind::Failed, format!("stopped by {name}")).into()),
        }
    }
}

/// The mask of ignored signals, as proc(5) shows it: bit 0 is signal 1.
fn ignored_signals(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        assert_eq!(ignored_signals("SigBlk:\t0\nSigIgn:\t0000000000001001\n"), Some(0x1001));
        assert_eq!(ignored_signals("Name:\tnova\n"), None);
    }

    #[test]
    fn a_signal_is_seen_by_name() {
        let interrupt = Interrupt::catch().unwrap();
        assert_eq!(interrupt.asked(), None);
        interrupt.check().unwrap();
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(interrupt.asked(), Some("SIGTERM"));
        assert!(interrupt.check().unwrap_err().to_string().contains("SIGTERM"));
    }
}
