//! This writer's log: operations in, chained frames out.

use crate::storage::Log;
use lamina_format::record::Op;
use lamina_format::{Result, cbor, frame};

/// The log and where its chain has got to.
pub struct Journal {
    log: Box<dyn Log>,
    seq: u64,
    previous: [u8; 32],
}

impl Journal {
    pub fn new(log: Box<dyn Log>) -> Self {
        Self { log, seq: 0, previous: [0; 32] }
    }

    /// Appends the operations, durably, in as few frames as they fit.
    pub fn append(&mut self, ops: Vec<Op>) -> Result<()> {
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
        if batch.is_empty() { Ok(()) } else { self.frame(&batch) }
    }

    fn frame(&mut self, ops: &[Op]) -> Result<()> {
        let (bytes, hash) = frame::encode(0, self.seq, self.previous, ops)?;
        self.log.append(&bytes)?;
        self.seq += 1;
        self.previous = hash;
        Ok(())
    }
}
