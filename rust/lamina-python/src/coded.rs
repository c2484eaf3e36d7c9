//! `lamina._core.Coded`: what a tensor's bytes become in the packs of checkpoints.

use crate::buffer::{Bytes, BytesMut};
use crate::errors::raise;
use lamina_format::chunk::CHUNK;
use lamina_format::codec::Coder;
use lamina_format::record::{Chunk, Codec};
use lamina_format::{DType, Error, Result};
use pyo3::prelude::*;

/// The chunks of a tensor, as planes where that saves enough.
#[pyclass(frozen, module = "lamina._core")]
pub struct Coded {
    dtype: DType,
    chunks: Vec<(Chunk, Vec<u8>)>,
}

impl Coded {
    fn encode(dtype: DType, bytes: &[u8]) -> Result<Self> {
        let mut coder = Coder::default();
        let one = |raw: &[u8]| {
            Ok(match coder.encode_chunk(dtype, raw, None)? {
                Some(coded) => (coded.record([0; 32], raw.len(), None), coded.bytes),
                None => (Chunk::raw([0; 32], raw), raw.to_vec()),
            })
        };
        Ok(Self { dtype, chunks: bytes.chunks(CHUNK).map(one).collect::<Result<_>>()? })
    }

    fn decode(&self, out: &mut [u8]) -> Result<()> {
        if out.len() as u64 != self.chunks.iter().map(|(chunk, _)| chunk.raw).sum::<u64>() {
            return Err(Error::schema("the buffer does not have the tensor's bytes"));
        }
        let mut coder = Coder::default();
        for ((chunk, stored), out) in self.chunks.iter().zip(out.chunks_mut(CHUNK)) {
            chunk.verify(stored)?;
            match chunk.codec {
                Codec::Raw => out.copy_from_slice(stored),
                _ => coder.decode_chunk(chunk, self.dtype, stored, None, out)?,
            }
        }
        Ok(())
    }
}

#[pymethods]
impl Coded {
    #[new]
    fn new(py: Python<'_>, dtype: &str, data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (dtype, bytes) = (DType::parse(dtype).map_err(raise)?, Bytes::get(data)?);
        py.detach(|| Self::encode(dtype, bytes.as_slice())).map_err(raise)
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.chunks.iter().map(|(chunk, _)| chunk.stored).sum()
    }

    fn read(&self, py: Python<'_>, out: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut out = BytesMut::get(out)?;
        py.detach(|| self.decode(out.as_mut_slice())).map_err(raise)
    }
}
