//! Which writers are done: closed, or fenced. Those whose process is gone are fenced here.

use crate::clock;
use crate::storage::Storage;
use lamina_format::record::{Op, Open};
use lamina_format::{Result, frame};
use std::collections::HashSet;

/// The writers of a run.
pub struct Writers {
    /// They will write nothing any more that counts.
    pub settled: HashSet<u32>,
    /// They may, and record.
    pub working: Vec<u32>,
}

/// Fences the writers whose process is gone, and says who is done.
pub fn settle(storage: &dyn Storage) -> Result<Writers> {
    let mut writers = Writers { settled: HashSet::new(), working: Vec::new() };
    for (writer, generation) in storage.logs()? {
        let (mut open, mut closed) = (None, false);
        // a log that cannot be read may be anybody's
        let bytes = storage.read_log(writer, generation).unwrap_or_default();
        for op in frame::scan(&bytes, generation)?.frames.into_iter().flat_map(|frame| frame.ops) {
            match op {
                Op::Open(record) => open = Some(record),
                Op::Close(_) => closed = true,
                _ => {}
            }
        }
        let records = open.as_ref().is_none_or(|open: &Open| open.work.is_none());
        let dead = open.is_some_and(|open| !clock::may_live(&open.host, open.pid));
        if !closed && (dead || storage.fenced(writer)?) {
            // a process that only seems to be gone finds the fence before it acknowledges anything
            storage.fence(writer)?;
        }
        if closed || dead || storage.fenced(writer)? {
            // its last record may not have reached the disk yet: rows must not outlive what stands before them
            storage.settle_log(writer, generation)?;
            writers.settled.insert(writer);
        } else if records {
            writers.working.push(writer);
        }
    }
    Ok(writers)
}
