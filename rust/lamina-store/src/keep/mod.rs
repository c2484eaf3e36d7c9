//! Keeping a run: what is done to it as a whole, beside writing and reading.

mod clear;
mod cold;
mod compact;
mod compactor;
mod garbage;
mod gc;
mod inventory;
mod merge;
mod plan;
mod progress;
mod recode;
mod rewrite;
mod settle;
mod verify;

use compact::declarations;
pub use compact::{Compaction, compact};
pub use gc::{Collection, GRACE, gc};
pub use merge::{Merged, merge};
pub use progress::Progress;
pub use verify::{Damage, Verification, verify};
