//! Members over real stores on simulated disks.

#[cfg(test)]
mod all {
    mod collecting;
    mod filling;
    mod lost;
    mod rig;
    mod scrub;
    mod serving;
    mod survivor;
}
