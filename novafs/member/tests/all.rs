//! Members over real stores on simulated disks.

#[cfg(test)]
mod all {
    mod rig;
    mod scrub;
    mod serving;
}
