//! Extended attributes: which names there are, and how lists of them look.

use fuser::Errno;
use novafs_client::Xattr;

/// A name that metadata keeps.
///
/// Names of `security.` and `system.` are not kept. The kernel asks for `security.capability` before every write: that
/// is answered here, without asking metadata.
pub(crate) fn kept(name: &std::ffi::OsStr) -> Result<&str, Errno> {
    let name = name.to_str().ok_or(Errno::EILSEQ)?;
    if name.starts_with("user.") || name.starts_with("trusted.") { Ok(name) } else { Err(Errno::EOPNOTSUPP) }
}

/// Names one behind the other, each with a zero at its end.
pub(crate) fn names(xattrs: &[Xattr]) -> Vec<u8> {
    let mut list = Vec::new();
    for xattr in xattrs {
        list.extend_from_slice(xattr.name.as_bytes());
        list.push(0);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_kernel_are_refused_here() {
        assert_eq!(kept("user.note".as_ref()), Ok("user.note"));
        assert_eq!(kept("security.capability".as_ref()), Err(Errno::EOPNOTSUPP));
        assert_eq!(kept("system.posix_acl_access".as_ref()), Err(Errno::EOPNOTSUPP));
    }

    #[test]
    fn a_list_has_a_zero_after_every_name() {
        let xattr = |name: &str| Xattr { name: name.into(), ..Xattr::default() };
        assert_eq!(names(&[xattr("user.a"), xattr("user.b")]), b"user.a\0user.b\0");
    }
}
