//! Which number of the system says what a client's error says. The one table of it.

use fuser::Errno;
use novafs_client::{ClientError, DataStatus, RefusalCode};

/// The `errno` of an error.
///
/// | what happened | errno |
/// | --- | --- |
/// | no such name | `ENOENT` |
/// | the inode is gone | `ESTALE` |
/// | it exists | `EEXIST` |
/// | a directory where none may be, or none where one must be | `EISDIR`, `ENOTDIR` |
/// | the directory holds something | `ENOTEMPTY` |
/// | the name or argument is not valid; a directory into itself | `EINVAL` |
/// | another host writes the file | `ETXTBSY` |
/// | moved to another key domain | `EXDEV` |
/// | a storage host or the metadata is full | `ENOSPC` |
/// | the quota of a directory is used up | `EDQUOT` |
/// | no such extended attribute | `ENODATA` |
/// | the attribute or the file would be too large | `EFBIG` (`E2BIG` for attributes, by their own calls) |
/// | too many names of a file | `EMLINK` |
/// | the namespace takes no changes | `EROFS` |
/// | nothing answered within the deadline, or no group takes blocks now | `ETIMEDOUT` |
/// | this host lacks the key of the data | `ENOKEY` |
/// | a write that was accepted is lost, no replica is intact, or a broken peer | `EIO` |
#[must_use]
pub fn errno(error: &ClientError) -> Errno {
    match error {
        ClientError::Refused { code, .. } => refused(*code),
        ClientError::Unavailable { .. } | ClientError::Agent(_) | ClientError::DataPlane(_) => {
            Errno::ETIMEDOUT
        }
        ClientError::Data { status, .. } => data(*status),
        ClientError::Usage(_) => Errno::EINVAL,
        _ => Errno::EIO,
    }
}

fn refused(code: RefusalCode) -> Errno {
    match code {
        RefusalCode::NotFound => Errno::ENOENT,
        RefusalCode::AlreadyExists => Errno::EEXIST,
        RefusalCode::NotADirectory => Errno::ENOTDIR,
        RefusalCode::IsADirectory => Errno::EISDIR,
        RefusalCode::NotEmpty => Errno::ENOTEMPTY,
        RefusalCode::InvalidName | RefusalCode::Invalid | RefusalCode::Loop => Errno::EINVAL,
        RefusalCode::CrossDomain => Errno::EXDEV,
        RefusalCode::Full => Errno::ENOSPC,
        RefusalCode::Unavailable | RefusalCode::NoGroups => Errno::ETIMEDOUT,
        RefusalCode::Busy => Errno::ETXTBSY,
        RefusalCode::Quota => Errno::EDQUOT,
        RefusalCode::NoData => Errno::ENODATA,
        RefusalCode::TooLarge => Errno::EFBIG,
        RefusalCode::TooManyLinks => Errno::EMLINK,
        RefusalCode::ReadOnly => Errno::EROFS,
        RefusalCode::Stale => Errno::ESTALE,
        RefusalCode::Fenced | RefusalCode::Unspecified => Errno::EIO,
    }
}

fn data(status: DataStatus) -> Errno {
    match status {
        DataStatus::Full => Errno::ENOSPC,
        DataStatus::Unavailable | DataStatus::Busy | DataStatus::TimedOut => Errno::ETIMEDOUT,
        DataStatus::NoKey => Errno::from_i32(rustix::io::Errno::NOKEY.raw_os_error()),
        DataStatus::TooMany => Errno::EMFILE,
        DataStatus::KeyDropped => Errno::from_i32(rustix::io::Errno::KEYREVOKED.raw_os_error()),
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_and_failures_keep_their_meaning() {
        let refused =
            |code| errno(&ClientError::Refused { code, path: String::new(), message: String::new() });
        assert_eq!(refused(RefusalCode::NotFound), Errno::ENOENT);
        assert_eq!(refused(RefusalCode::Busy), Errno::ETXTBSY);
        assert_eq!(refused(RefusalCode::Quota).code(), rustix::io::Errno::DQUOT.raw_os_error());
        let data = |status| errno(&ClientError::Data { what: String::new(), status });
        assert_eq!((data(DataStatus::Full), data(DataStatus::Corrupt)), (Errno::ENOSPC, Errno::EIO));
        assert_eq!((data(DataStatus::NoKey).code(), data(DataStatus::KeyDropped).code()), (126, 128));
        let lost = ClientError::Broken { inode: 7, reason: String::new() };
        assert_eq!((errno(&lost), errno(&ClientError::Usage(String::new()))), (Errno::EIO, Errno::EINVAL));
    }
}
