//! Task queues: how the core is divided.
//!
//! No queue states a latency, because that would set glommio's preemption timer, which a shard must not use; see
//! [`crate::slice`].

use glommio::{Latency, Shares, TaskQueueHandle};
use nova_units::TaskClass;

/// The queues of one shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queues {
    pub(crate) driver: TaskQueueHandle,
    control: TaskQueueHandle,
    wal: TaskQueueHandle,
    client: TaskQueueHandle,
    repair: TaskQueueHandle,
    background: TaskQueueHandle,
}

impl Queues {
    /// Makes them, inside a running executor.
    pub(crate) fn new() -> Self {
        let queue = |shares, name| {
            glommio::executor().create_task_queue(Shares::Static(shares), Latency::NotImportant, name)
        };
        Self {
            driver: queue(1000, "driver"),
            control: queue(1000, "control"),
            wal: queue(800, "wal"),
            client: queue(400, "client"),
            repair: queue(150, "repair"),
            background: queue(50, "background"),
        }
    }

    pub(crate) fn of(&self, class: TaskClass) -> TaskQueueHandle {
        match class {
            TaskClass::Control => self.control,
            TaskClass::Wal => self.wal,
            TaskClass::Client => self.client,
            TaskClass::Repair => self.repair,
            TaskClass::Background => self.background,
        }
    }
}
