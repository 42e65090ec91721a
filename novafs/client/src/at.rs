//! Where a name is: an absolute path, or a path below an inode.

/// What a request is about. `&str` and `&String` are absolute paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At<'p> {
    pub(crate) base: u64,
    pub(crate) path: &'p str,
}

impl<'p> At<'p> {
    /// `path` below the directory `inode`; one name, or several with slashes between them.
    #[must_use]
    pub const fn below(inode: u64, path: &'p str) -> Self {
        Self { base: inode, path }
    }

    /// The inode itself, whatever its name is now.
    #[must_use]
    pub const fn inode(inode: u64) -> Self {
        Self { base: inode, path: "" }
    }

    /// The number of the inode when that is all there is.
    pub(crate) const fn only_inode(&self) -> Option<u64> {
        if self.base != 0 && self.path.is_empty() { Some(self.base) } else { None }
    }
}

impl<'p> From<&'p str> for At<'p> {
    fn from(path: &'p str) -> Self {
        Self { base: 0, path }
    }
}

impl<'p> From<&'p String> for At<'p> {
    fn from(path: &'p String) -> Self {
        path.as_str().into()
    }
}

impl std::fmt::Display for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.base, self.path) {
            (0, path) => f.write_str(path),
            (inode, "") => write!(f, "inode {inode}"),
            (inode, path) => write!(f, "{path} below inode {inode}"),
        }
    }
}
