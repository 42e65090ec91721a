//! Open, read, write and list for programs, over rings; std threads only.
