//! Where data enter and leave: seal, gather, write, read, check, fail over.
