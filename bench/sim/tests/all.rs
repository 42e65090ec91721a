//! Seeds that every change must pass; `sim run` tries many more.

#[cfg(test)]
mod all {
    mod drills;
    mod hedge;
    mod regressions;
    mod rot;
    mod seeds;
}
