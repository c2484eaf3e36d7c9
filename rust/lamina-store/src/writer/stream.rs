//! A writer of checkpoints that come piece by piece: whoever imports one holds a piece of it, never the whole.

use super::committer::claim;
use super::journal::Journal;
use super::pack::PackWriter;
use crate::storage::Storage;
use crate::{chain, clock};
use lamina_format::record::{ATTACHED, Close, Op, Open, Part, Save, TensorSpec};
use lamina_format::{DType, Error, Result, chunk, commit};
use std::sync::Arc;

/// Bytes after which the records of chunks go to the log, so that an import that is tried again finds them.
const ENOUGH: u64 = 1 << 30;

/// Writes checkpoints into packs of a log of its own. They are all there once [`CheckpointStream::commit`] returns, and
/// none of them before.
pub struct CheckpointStream {
    storage: Arc<dyn Storage>,
    ordinal: u32,
    journal: Journal,
    packs: PackWriter,
    /// What must stand in the log before the saves.
    pending: Vec<Op>,
    saves: Vec<Op>,
    fresh: u64,
}

/// A part of a checkpoint whose chunks were [`put`](CheckpointStream::put).
pub struct StreamedPart {
    /// Name.
    pub name: String,
    /// JSON of the nested state.
    pub tree: String,
    /// JSON of the scalars.
    pub scalars: String,
    /// Tensors in order.
    pub tensors: Vec<TensorSpec>,
    /// The keys of their chunks, one tensor after the other.
    pub keys: Vec<u8>,
}

impl CheckpointStream {
    /// Opens the first free log of the run; `work` says what for, if not to record.
    pub fn open(storage: Arc<dyn Storage>, work: Option<String>) -> Result<Self> {
        let (ordinal, log) = claim(storage.as_ref())?;
        let mut journal = Journal::new(Arc::clone(&storage), ordinal, log);
        let (host, pid) = (clock::host(), std::process::id());
        let open = Open { host, pid, rank: None, time: clock::now(), uuid: clock::unique(), work };
        journal.append(vec![Op::Open(open)])?;
        let mut packs = PackWriter::new(ordinal);
        packs.look(storage.as_ref())?;
        Ok(Self { storage, ordinal, journal, packs, pending: Vec::new(), saves: Vec::new(), fresh: 0 })
    }

    /// Which writer of the run this is.
    pub fn ordinal(&self) -> u32 {
        self.ordinal
    }

    /// Writes the chunks of some bytes of a tensor, and returns their keys. All pieces of a tensor but the last are whole
    /// numbers of chunks.
    pub fn put(&mut self, dtype: DType, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut keys = Vec::new();
        self.packs.chunks(self.storage.as_ref(), dtype, bytes, &mut keys, &mut self.pending)?;
        self.fresh += bytes.len() as u64;
        if self.fresh >= ENOUGH {
            self.record()?;
        }
        Ok(keys)
    }

    /// Takes up a checkpoint whose chunks were put, or with the step [`ATTACHED`] attachments.
    pub fn save(&mut self, step: i64, parts: Vec<StreamedPart>) -> Result<()> {
        if step == ATTACHED {
            chain::require(self.storage.as_ref(), Some(self.ordinal), commit::ATTACHED)?;
        }
        for part in &parts {
            let chunks = |spec: &TensorSpec| spec.bytes().map(chunk::count);
            let add = |sum: u64, spec: &TensorSpec| sum.checked_add(chunks(spec)?);
            let count = part.tensors.iter().try_fold(0u64, add);
            if count.and_then(|count| count.checked_mul(32)) != Some(part.keys.len() as u64) {
                return Err(Error::schema(format!("part {:?} has other chunks than its tensors take", part.name)));
            }
        }
        let mut saved = Vec::new();
        for part in parts {
            let layout = self.packs.layout(part.tree, part.tensors, &mut self.pending);
            saved.push(Part { name: part.name, layout, keys: part.keys, scalars: part.scalars });
        }
        let save: Save = self.packs.save(step, clock::now(), saved);
        self.saves.push(Op::Save(save));
        Ok(())
    }

    /// Makes the checkpoints durable, which shows them.
    pub fn commit(&mut self) -> Result<()> {
        self.record()?;
        self.journal.append(std::mem::take(&mut self.saves))?;
        let again = self.packs.confirm(self.storage.as_ref())?;
        if !again.is_empty() {
            self.packs.sync()?;
            self.journal.append(again)?;
        }
        Ok(())
    }

    /// Ends the log; what was not committed is not there.
    pub fn close(mut self, error: Option<String>) -> Result<()> {
        self.journal.append(vec![Op::Close(Close { error, time: clock::now() })])
    }

    fn record(&mut self) -> Result<()> {
        self.packs.flush()?;
        self.packs.sync()?;
        self.fresh = 0;
        self.journal.append(std::mem::take(&mut self.pending))
    }
}
