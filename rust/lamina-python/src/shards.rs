//! Checkpoints of shards, as they come from Python.

use crate::errors::raise;
use lamina_format::record::TensorSpec;
use lamina_format::{DType, Error, ErrorKind};
use lamina_store::writer::{CompletePart, Keys, ShardInput, WholeInput};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A shard that was staged.
#[pyclass(frozen, module = "lamina._core")]
pub struct Shard(pub Keys);

#[pymethods]
impl Shard {
    /// The keys of its chunks, 32 bytes each; known when its ticket says that it is durable.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let missing = || raise(Error::new(ErrorKind::Writer, "a shard's keys are known when it is durable"));
        self.0.get().map(|keys| PyBytes::new(py, keys)).ok_or_else(missing)
    }
}

type ShardArgument = (Vec<u64>, Vec<u64>, Vec<u8>);
type WholeArgument = (String, String, Vec<u64>, Vec<ShardArgument>);

/// A part: name, tree, scalars, and its tensors with their shards.
pub type CompleteArgument = (String, String, String, Vec<WholeArgument>);

/// The same for the writer.
pub fn complete_part((name, tree, scalars, wholes): CompleteArgument) -> PyResult<CompletePart> {
    let shard = |(offsets, sizes, keys): ShardArgument| ShardInput { offsets, sizes, keys };
    let whole = |(name, dtype, shape, shards): WholeArgument| {
        let spec = TensorSpec { name, dtype: DType::parse(&dtype).map_err(raise)?, shape };
        Ok(WholeInput { spec, shards: shards.into_iter().map(shard).collect() })
    };
    let wholes = wholes.into_iter().map(whole).collect::<PyResult<_>>()?;
    Ok(CompletePart { name, tree, scalars, wholes })
}
