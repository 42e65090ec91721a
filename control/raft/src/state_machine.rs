//! What a group replicates.

use core::fmt::Debug;

/// A state that commands change, the same way on every member.
///
/// `clone` is how a snapshot and every read begin, so it must be cheap: persistent maps, not deep copies.
pub trait StateMachine: Clone + Send + Sync + 'static {
    /// A request to change the state; it carries time, ids and randomness.
    type Command: prost::Message + Default + Clone + 'static;
    /// What the proposer is told on the leader; never durable.
    type Answer: Clone + Send + Sync + Debug + 'static;

    /// Carries out the command of log entry `index`. Pure and deterministic: a refusal is an answer, not an error.
    fn apply(&mut self, index: u64, command: Self::Command) -> Self::Answer;

    /// Writes the state in pieces of bounded size.
    fn encode(&self, out: &mut dyn FnMut(&[u8]));

    /// Reads what [`StateMachine::encode`] wrote.
    ///
    /// # Errors
    /// What does not read, for the operator.
    fn decode(bytes: &[u8]) -> Result<Self, String>;
}
