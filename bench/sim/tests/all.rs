//! Seeds that every change must pass; `sim run` tries many more.

#[cfg(test)]
mod all {
    mod drills;
    mod regressions;
    mod rot;
    mod seeds;
    mod hedge;
}
