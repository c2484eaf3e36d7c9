//! What operations hide: rows, metrics and checkpoints that a reader passes over.

use minicbor::{Decode, Encode};

/// A place in every log: what its frames below `frames` say came before.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Position {
    /// The log's writer.
    #[n(0)]
    pub writer: u32,
    /// Sequence number of the first frame behind the place.
    #[n(1)]
    pub frames: u64,
}

/// Body of [`Op::Rewind`](super::Op::Rewind).
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Rewind {
    /// Rows and metrics of this step and later ones are hidden, and checkpoints of later ones.
    #[n(0)]
    pub step: i64,
    /// What came after this is not; a log that is not named came after.
    #[n(1)]
    pub before: Vec<Position>,
}

/// Numbers from the first to the last, both included.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Span {
    /// The least.
    #[n(0)]
    pub first: i64,
    /// The greatest.
    #[n(1)]
    pub last: i64,
}

impl Span {
    /// Whether it holds the number.
    pub fn holds(&self, number: i64) -> bool {
        self.first <= number && number <= self.last
    }
}

/// Body of [`Op::Delete`](super::Op::Delete): rows that satisfy all of what is given.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Delete {
    /// Sites whose values are hidden; none stands for all.
    #[n(0)]
    pub sites: Vec<u32>,
    /// Steps; none stands for all.
    #[n(1)]
    pub steps: Vec<Span>,
    /// Row names; none stands for all.
    #[n(2)]
    pub rows: Vec<Span>,
    /// As in [`Rewind::before`].
    #[n(3)]
    pub before: Vec<Position>,
}

/// Body of [`Op::Discard`](super::Op::Discard): parts of checkpoints.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Discard {
    /// Names of parts.
    #[n(0)]
    pub parts: Vec<String>,
    /// Steps whose saves lose these parts.
    #[n(1)]
    pub steps: Vec<Span>,
    /// As in [`Rewind::before`].
    #[n(2)]
    pub before: Vec<Position>,
}
