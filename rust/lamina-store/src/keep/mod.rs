//! Keeping a run: what is done to it as a whole, beside writing and reading.

mod inventory;
mod progress;
mod verify;

pub use progress::Progress;
pub use verify::{Damage, Verification, verify};
