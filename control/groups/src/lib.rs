//! Replica groups as a pure slice: members, epochs, incarnations, placement.
//!
//! What it guards, whatever is asked in whatever order: an epoch only grows and changes by one step at a time; a
//! group never loses its last in-sync member; only a member that held every acknowledged write is ever in sync; a
//! device that came back with an old image, or under another host, is a new incarnation and starts empty.
#![forbid(unsafe_code)]

mod apply;
mod command;
mod fillings;
mod load;
mod model;
mod moves;
mod pace;
mod placement;
mod plan;
mod snapshot;

pub use command::{
    AddJoining, Admit, Answer, CloseDevice, Command, ConfirmGroup, CreateGroups, Drop, DropMembers,
    FailDevice, ForgetDevice, Incarnated, Joining, Mount, MovePrimary, NewGroup, Op, Outcome, PaceDevice,
    Reinstate, ReinstateGroup, Restart,
};
pub use fillings::{FILL_SHUNNED_FOR, FILL_STALLED_AFTER, FillReport, FillState, Fillings};
pub use model::{Device, DeviceState, Flaps, Group, Groups, Member, Role};
pub use moves::{MOVES_MAX, MOVES_TO_ONE_MAX};
pub use pace::{
    PACE_FRESH, PEERS_MIN, Paces, RECOVERED_FACTOR, RECOVERED_WINDOWS, SLOW_FACTOR, SLOW_MIN, SLOW_WINDOWS,
    plan_paces,
};
pub use placement::lay_out;
pub use plan::{
    COLD_START_WAIT, COLD_START_WAIT_MAX, GATHER, GROUPS_DEFAULT, GROUPS_MAX, HEARD_WITHIN, Heard, LEASE_OUT,
    MountReport, Observed, REPLACE_AFTER, REPLACE_FROZEN_AFTER, REPLICAS_A_DEVICE, REPORT_FRESH, ReadyReport,
    SLOW_MOVES_AFTER, SilenceReport, plan,
};
pub use snapshot::SnapshotError;
