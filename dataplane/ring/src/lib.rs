//! Shared-memory rings between processes: commands in, completions out.
