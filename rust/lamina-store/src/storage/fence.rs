//! Fences: how a writer that may be dead is closed to its owner.
//!
//! The fence comes first, then a look at the log's length. An owner that still lives looks for the fence after each
//! frame: either it was there before the frame was durable, then the frame is not acknowledged, or the length counts it.

use super::files::{Files, refused};
use lamina_format::{Error, Result, checksum, names};
use std::io;

impl Files {
    pub(super) fn raise_fence(&self, writer: u32) -> Result<()> {
        let name = names::fence(writer);
        let fail = |error: io::Error| refused(&error, "cannot create", &name);
        let log = self.root.join(names::log(writer, 0));
        if !self.fs.exists(&log) {
            return Err(Error::damaged("a writer that has no log cannot be fenced").in_file(names::log(writer, 0)));
        }
        self.add_folder("fences").map_err(fail)?;
        match self.fs.create_new(&self.root.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => drop(created.map_err(fail)?),
        }
        self.sync_folder("fences")?;
        // a damaged end can be neither mended nor replaced
        if !matches!(self.fence_end(writer), Ok(None)) {
            return Ok(());
        }
        let length = self.fs.open(&log).and_then(|file| file.length()).map_err(fail)?.to_le_bytes();
        let bytes = [length.as_slice(), &checksum::hash(&length)].concat();
        // if somebody else was faster, the fence stands just as well
        self.create_whole("fences", &names::fence_end(writer), &bytes).map(drop)
    }

    /// How much of a writer's log counts; None for all of it. A fence without an end was raised by somebody who did not
    /// get further.
    pub(super) fn fence_end(&self, writer: u32) -> Result<Option<u64>> {
        let name = names::fence_end(writer);
        if !self.fs.exists(&self.root.join(&name)) {
            return Ok(None);
        }
        let bytes = self.read(&name, 8 + 32)?;
        match bytes.split_first_chunk::<8>() {
            Some((length, hash)) if checksum::hash(length) == hash => Ok(Some(u64::from_le_bytes(*length))),
            _ => {
                let error = Error::damaged("where the log of a fenced writer ends cannot be read");
                Err(error.in_file(name).hint("all that the log holds is shown, what was never acknowledged too"))
            }
        }
    }
}
