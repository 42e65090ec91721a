//! Hardware profiles: parse, check, explain.
