//! Lossless codings of tensor bytes. Each piece of 128 KiB is coded by itself, so that a slice decodes only what it overlaps.

pub mod planes;

pub use planes::Planes;
