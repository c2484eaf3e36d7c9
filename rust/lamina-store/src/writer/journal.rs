//! This writer's log: operations in, chained frames out.

use crate::storage::{Log, Storage};
use lamina_format::record::Op;
use lamina_format::{Error, ErrorKind, Result, cbor, frame, names};
use std::sync::Arc;

/// The log and where its chain has got to.
pub struct Journal {
    storage: Arc<dyn Storage>,
    ordinal: u32,
    log: Box<dyn Log>,
    seq: u64,
    previous: [u8; 32],
    /// Whether an append failed: nobody can tell what of it reached the disk.
    failed: bool,
}

impl Journal {
    pub fn new(storage: Arc<dyn Storage>, ordinal: u32, log: Box<dyn Log>) -> Self {
        Self { storage, ordinal, log, seq: 0, previous: [0; 32], failed: false }
    }

    /// Whether all that was appended is durable, and counts.
    pub fn sound(&self) -> bool {
        !self.failed
    }

    /// Appends the operations, durably, in as few frames as they fit. Behind a fence they do not count, which is an
    /// error: nothing of them is acknowledged, nor anything built on them.
    pub fn append(&mut self, ops: Vec<Op>) -> Result<()> {
        let done = self.frames(ops);
        self.failed |= done.is_err();
        done
    }

    fn frames(&mut self, ops: Vec<Op>) -> Result<()> {
        let (mut batch, mut size) = (Vec::new(), 0);
        for op in ops {
            let bytes = cbor::encode(&op).len();
            // 16 bytes cover the array's head
            if size + bytes + 16 > frame::LONGEST && !batch.is_empty() {
                self.frame(&batch)?;
                (batch, size) = (Vec::new(), 0);
            }
            size += bytes;
            batch.push(op);
        }
        if !batch.is_empty() {
            self.frame(&batch)?;
        }
        if self.storage.fenced(self.ordinal)? {
            let error = Error::new(ErrorKind::Writer, "another process closed this writer for good");
            return Err(error
                .in_file(names::fence(self.ordinal))
                .hint("open a new writer; what was acknowledged is there"));
        }
        Ok(())
    }

    fn frame(&mut self, ops: &[Op]) -> Result<()> {
        let (bytes, hash) = frame::encode(0, self.seq, self.previous, ops)?;
        self.log.append(&bytes)?;
        self.seq += 1;
        self.previous = hash;
        Ok(())
    }
}
