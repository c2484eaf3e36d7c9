//! The run on disk: bytes to structures and back.
//!
//! `docs/format.md` is the authority on every byte; this crate is its implementation. It does no input or
//! output and allocates no more than a small multiple of the bytes that it is given.
#![forbid(unsafe_code)]

pub mod cbor;
pub mod check;
pub mod checksum;
pub mod chunk;
pub mod codec;
pub mod commit;
pub mod dtype;
pub mod error;
pub mod feature_index;
pub mod frame;
pub mod histogram;
pub mod names;
pub mod packing;
pub mod posting;
pub mod record;
pub mod runfile;
pub mod segment;
pub mod sparse;
pub mod value;
pub mod whole;

pub use dtype::{ColumnType, DType};
pub use error::{Error, ErrorKind, Result};
pub use value::Value;
