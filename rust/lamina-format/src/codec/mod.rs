//! Lossless codings of tensor bytes. Each piece of 128 KiB is coded by itself, so that a slice decodes only what it overlaps.

pub mod chunks;
pub mod delta;
pub mod planes;

pub use chunks::{Coded, Coder};
pub use planes::Planes;
