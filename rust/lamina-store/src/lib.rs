//! One writer's life and a reader's snapshot, on any storage. No Python.
//!
//! `create` makes a run; a `Writer` owns one log of it and appends; a `Snapshot` reads what was acknowledged.
#![deny(unsafe_code)]

mod chain;
mod clock;
mod create;
pub mod crew;
pub mod hide;
pub mod index;
pub mod keep;
pub mod note;
pub mod order;
mod places;
pub mod reader;
pub mod storage;
pub mod writer;

pub use create::create;
pub use reader::{Opening, Snapshot};
pub use writer::{Ticket, Writer};
