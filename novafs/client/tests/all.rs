//! Integration tests of the client, against an agent and a data plane that speak the ring and keep bytes in memory.
#[cfg(test)]
mod all {
    mod fake_agent;
    mod fake_inodes;
    mod fake_novad;
    mod files;
    mod kept;
    mod open_files;
    mod region;
    mod restarts;
}
