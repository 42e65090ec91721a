//! How `nova` ends: a message that says what to do, and a code that scripts can act on.

use std::process::ExitCode;

use novafs_client::{ClientError, Trouble};
use novafs_fuse::MountError;

use crate::output;

/// Why a command stopped, as scripts see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The command was understood and did not succeed.
    Failed = 1,
    /// The command line asks for something that cannot be meant.
    Usage = 2,
    /// What the command names does not exist.
    NotFound = 3,
    /// Nobody could answer now; the same command may succeed later.
    Unavailable = 4,
}

impl Kind {
    const fn of(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NotFound => Self::NotFound,
            Trouble::Unavailable => Self::Unavailable,
            Trouble::Usage => Self::Usage,
            Trouble::Failed => Self::Failed,
        }
    }
}

/// An error that carries its exit code through `anyhow`.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Stop {
    kind: Kind,
    message: String,
}

impl Stop {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self::new(Kind::Usage, message).into()
    }

    pub(crate) fn not_found(message: impl Into<String>) -> anyhow::Error {
        Self::new(Kind::NotFound, message).into()
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> anyhow::Error {
        Self::new(Kind::Unavailable, message).into()
    }
}

/// Which code `error` ends the process with.
pub(crate) fn kind_of(error: &anyhow::Error) -> Kind {
    let known = |cause: &(dyn std::error::Error + 'static)| {
        let stop = cause.downcast_ref::<Stop>().map(|stop| stop.kind);
        let mount = || match cause.downcast_ref::<MountError>()? {
            MountError::NotADirectory { .. } | MountError::Mountpoint { .. } => Some(Kind::Usage),
            _ => None,
        };
        stop.or_else(mount).or_else(|| Some(Kind::of(cause.downcast_ref::<ClientError>()?.trouble())))
    };
    error.chain().find_map(known).unwrap_or(Kind::Failed)
}

/// Prints `error` and gives the code to end with.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    output::say(format_args!("nova: {error:#}"));
    ExitCode::from(kind_of(error) as u8)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_code_survives_context_added_on_the_way_out() {
        let error = Err::<(), _>(Stop::not_found("no /hot/a")).context("read").unwrap_err();
        assert_eq!((kind_of(&error), kind_of(&error) as u8), (Kind::NotFound, 3));
        assert_eq!(kind_of(&anyhow::anyhow!("other")) as u8, 1);
        let lost = Err::<(), _>(ClientError::Lost).context("get").unwrap_err();
        assert_eq!(kind_of(&lost) as u8, 4);
        assert_eq!(format!("{error:#}"), "read: no /hot/a");
    }
}
