//! Checkpoints that several processes save: each stores its shards, and one of them, when all are durable, the
//! checkpoint. Until then the shards are chunks that nothing names, and nobody sees them.

use super::Writer;
use super::pack::PackWriter;
use super::stage::Job;
use super::ticket::Ticket;
use crate::chain::Chain;
use crate::clock;
use crate::storage::Storage;
use lamina_format::chunk;
use lamina_format::record::{LayoutContent, Op, Part, Piece, TensorSpec, Whole};
use lamina_format::{DType, Error, Result};
use std::sync::{Arc, OnceLock};

/// The keys of a shard's chunks, known when it is durable.
pub type Keys = Arc<OnceLock<Vec<u8>>>;

/// A staged shard.
pub struct ShardJob {
    pub dtype: DType,
    pub bytes: Vec<u8>,
    keys: Keys,
}

/// A checkpoint of shards that are durable.
pub struct CompleteJob {
    step: i64,
    time: i64,
    condemned: usize,
    parts: Vec<(String, String, LayoutContent, Vec<u8>)>,
}

/// A shard of a tensor.
pub struct ShardInput {
    /// Where it begins in the tensor.
    pub offsets: Vec<u64>,
    /// Its lengths.
    pub sizes: Vec<u64>,
    /// Of its chunks, 32 bytes each.
    pub keys: Vec<u8>,
}

/// A tensor whose shards are durable.
pub struct WholeInput {
    /// Name, type and shape of the whole.
    pub spec: TensorSpec,
    /// What fills it.
    pub shards: Vec<ShardInput>,
}

/// A part of a checkpoint of shards.
pub struct CompletePart {
    /// Name.
    pub name: String,
    /// JSON of the nested state.
    pub tree: String,
    /// JSON of the scalars.
    pub scalars: String,
    /// Tensors in order.
    pub wholes: Vec<WholeInput>,
}

impl CompletePart {
    /// Its layout, and the keys of all chunks.
    fn layout(self) -> Result<(String, String, LayoutContent, Vec<u8>)> {
        let (mut tensors, mut wholes, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for whole in self.wholes {
            let mut pieces = Vec::new();
            for shard in whole.shards {
                let spec = TensorSpec { shape: shard.sizes, ..whole.spec.clone() };
                if spec.bytes().and_then(|bytes| chunk::count(bytes).checked_mul(32)) != Some(shard.keys.len() as u64) {
                    return Err(Error::schema(format!(
                        "a shard of tensor {:?} has not the keys of its chunks",
                        spec.name
                    )));
                }
                pieces.push(Piece { tensor: tensors.len() as u32, offsets: shard.offsets });
                keys.extend(shard.keys);
                tensors.push(spec);
            }
            wholes.push(Whole { spec: whole.spec, pieces });
        }
        let layout = LayoutContent { tree: self.tree, tensors, wholes: Some(wholes) };
        layout.check_wholes().map_err(|error| Error::schema(error.message))?;
        Ok((self.name, self.scalars, layout, keys))
    }
}

impl Writer {
    /// Stages a tensor that no checkpoint holds yet. Its keys are there when the ticket says that it is durable; nobody
    /// sees it, and after the writer's end `gc` may take it, unless [`Writer::complete`] is called with them.
    pub fn shard(&self, spec: &TensorSpec, bytes: &[u8]) -> Result<(Ticket, Keys)> {
        self.check()?;
        if spec.bytes() != Some(bytes.len() as u64) {
            let text =
                format!("a shard of tensor {:?} has {} bytes, its shape takes another number", spec.name, bytes.len());
            return Err(Error::schema(text));
        }
        let shared = &self.committer.shared;
        shared.with_room(shared.lock(), |stage| stage.is_saving(bytes.len()))?.saving += bytes.len();
        let keys = Keys::default();
        let job = ShardJob { dtype: spec.dtype, bytes: bytes.to_vec(), keys: Arc::clone(&keys) };
        let mut stage = shared.lock();
        stage.check()?;
        stage.queue.push_back(Job::Shard(job));
        stage.note(0, bytes.len() as u64);
        Ok((self.staged(stage), keys))
    }

    /// How many files were condemned in all: whoever completes a checkpoint asks before the first shard of it is staged.
    pub fn condemned(&self) -> Result<usize> {
        self.check()?;
        Ok(Chain::read(self.committer.storage.as_ref())?.doomed().condemned.len())
    }

    /// Stages a checkpoint of shards that are durable, whoever stored them. `condemned` is from before they were.
    pub fn complete(&self, step: i64, condemned: usize, parts: Vec<CompletePart>) -> Result<Ticket> {
        self.check()?;
        let parts = parts.into_iter().map(CompletePart::layout).collect::<Result<_>>()?;
        let mut stage = self.committer.shared.lock();
        stage.check()?;
        stage.queue.push_back(Job::Complete(CompleteJob { step, time: clock::now(), condemned, parts }));
        Ok(self.staged(stage))
    }
}

impl PackWriter {
    /// Writes a shard's chunks that the run does not hold; returns what must stand in the log.
    pub fn shard(&mut self, storage: &dyn Storage, job: ShardJob) -> Result<Vec<Op>> {
        self.look(storage)?;
        let (mut keys, mut ops) = (Vec::new(), Vec::new());
        self.chunks(storage, job.dtype, &job.bytes, &mut keys, &mut ops)?;
        // it is set once
        let _ = job.keys.set(keys);
        Ok(ops)
    }

    /// Makes a checkpoint of shards; returns what must stand in the log.
    pub fn complete(&mut self, storage: &dyn Storage, job: CompleteJob) -> Result<Vec<Op>> {
        self.look(storage)?;
        let (mut ops, mut parts) = (Vec::new(), Vec::new());
        for (name, scalars, layout, keys) in job.parts {
            self.rely(storage, &keys, job.condemned, &mut ops)?;
            let layout = self.layout_of_pieces(storage, &layout, &mut ops)?;
            parts.push(Part { name, layout, keys, scalars });
        }
        ops.push(Op::Save(self.save(job.step, job.time, parts)));
        Ok(ops)
    }
}
