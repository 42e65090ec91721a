//! One glommio executor per core with its own io_uring: task queues, poll loop, parking.
