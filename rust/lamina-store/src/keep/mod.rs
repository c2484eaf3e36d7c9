//! Keeping a run: what is done to it as a whole, beside writing and reading.

mod cold;
mod compact;
mod compactor;
mod inventory;
mod plan;
mod progress;
mod rewrite;
mod settle;
mod verify;

pub use compact::{Compaction, compact};
pub use progress::Progress;
pub use verify::{Damage, Verification, verify};
