//! The index of a segment's sparse codes by feature: how its file is laid out, and what must hold of it.
//!
//! Behind the magic lie parts, each of some consecutive features: their posting lists, a table with an entry a feature, and
//! their histograms. Behind the last part stands what the file is, with its hash. Each list, table and run of histograms has a
//! checksum of its own, so that it is checked when it is touched.

mod description;
mod part;
mod table;
#[cfg(test)]
mod tests;

pub use description::{Description, Indexed, LONGEST, Part, TAIL};
pub use part::{PartWriter, Sums};
pub use table::{ENTRY, Entry, Table};

use crate::error::{Error, ErrorKind, Result};

/// The first bytes of the file; the last of them is the version.
pub const MAGIC: [u8; 8] = *b"LAMFEAT1";

/// Whether the first bytes are those of an index that this version reads.
pub fn check_magic(first: &[u8]) -> Result<()> {
    if first == MAGIC {
        return Ok(());
    }
    if first.len() == MAGIC.len() && first[..7] == MAGIC[..7] {
        let error = Error::new(ErrorKind::Format, "an index of a newer version");
        return Err(error.hint("update Lamina, or build the index again"));
    }
    Err(Error::damaged("no index of sparse codes"))
}
