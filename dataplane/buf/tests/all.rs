//! Properties of the pool over generated sequences of requests.

#[path = "all/prop_pool.rs"]
mod prop_pool;
