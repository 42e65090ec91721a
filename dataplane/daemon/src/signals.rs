//! SIGTERM and SIGINT ask the shards to stop in order; a second one ends the process as the system would.

use std::sync::Arc;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::switchboard::Switchboard;

/// Takes the two signals over, on a thread of their own.
pub(crate) fn stop_on_signals(switchboard: &Arc<Switchboard>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let switchboard = Arc::clone(switchboard);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if switchboard.stop_asked() {
                // Only fails for signals that have no default, and these two have.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            switchboard.ask_stop();
        }
    })?;
    Ok(())
}
