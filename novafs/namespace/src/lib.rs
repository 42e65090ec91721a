//! File metadata as a pure slice: inodes, directories, block maps, sessions.
