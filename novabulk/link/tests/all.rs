//! Integration tests of the link, over connections in memory.
#[cfg(test)]
mod all {
    mod calls;
    mod failures;
    mod hostile;
    mod hosts;
    mod kernel_tcp;
    mod pressure;
}
