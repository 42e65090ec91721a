//! How `nova bulk` ends: a message that says what to do, and a code that scripts can act on.

use std::process::ExitCode;

use novabulk_copy::CopyError;
use novabulk_copy::files::Fault;

/// Why a command stopped, as scripts see it: the codes of `nova`.
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

/// An error that carries its exit code through `anyhow`.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Stop {
    kind: Kind,
    message: String,
}

impl Stop {
    pub(crate) fn error(kind: Kind, message: impl Into<String>) -> anyhow::Error {
        Self { kind, message: message.into() }.into()
    }

    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self::error(Kind::Usage, message)
    }
}

/// Which code `error` ends the process with.
pub(crate) fn kind_of(error: &anyhow::Error) -> Kind {
    let known = |cause: &(dyn std::error::Error + 'static)| {
        let stop = cause.downcast_ref::<Stop>().map(|stop| stop.kind);
        stop.or_else(|| cause.downcast_ref::<CopyError>().map(of_copy))
    };
    error.chain().find_map(known).unwrap_or(Kind::Failed)
}

const fn of_copy(error: &CopyError) -> Kind {
    match error {
        CopyError::Unavailable { .. } => Kind::Unavailable,
        CopyError::Pattern { .. } => Kind::Usage,
        error => match error.fault() {
            Some(Fault::NotFound) => Kind::NotFound,
            Some(Fault::Busy) => Kind::Unavailable,
            _ => Kind::Failed,
        },
    }
}

/// Prints `error` and gives the code to end with.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("nova bulk: {error:#}");
    ExitCode::from(kind_of(error) as u8)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_code_survives_context_added_on_the_way_out() {
        let gone = CopyError::Unavailable { address: "h:1".to_owned(), why: "nobody".to_owned() };
        let error = Err::<(), _>(gone).context("copy").unwrap_err();
        assert_eq!(kind_of(&error) as u8, 4);
        assert_eq!(kind_of(&Stop::usage("no")) as u8, 2);
        assert_eq!(kind_of(&anyhow::anyhow!("other")) as u8, 1);
    }
}
