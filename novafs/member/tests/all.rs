//! Members over real stores on simulated disks.

#[cfg(test)]
mod all {
    mod collecting;
    mod rig;
    mod serving;
}
