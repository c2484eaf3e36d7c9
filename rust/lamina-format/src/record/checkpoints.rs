//! What operations say of checkpoints: chunks, the shapes of states, saves.

use crate::chunk::Key;
use crate::dtype::DType;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

/// How a chunk is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Codec {
    /// As it is.
    #[n(0)]
    Raw,
    /// Byte planes of its elements.
    #[n(1)]
    Planes,
    /// Byte planes of the elements' differences from those of another chunk.
    #[n(2)]
    Delta,
}

/// Body of [`Op::Chunks`](super::Op::Chunks).
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Chunks {
    /// The pack.
    #[n(0)]
    pub pack: String,
    /// The chunks in order of offset.
    #[n(1)]
    pub chunks: Vec<Chunk>,
}

/// Where a chunk lies.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Chunk {
    /// What it holds.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub key: Key,
    /// First byte in the pack.
    #[n(1)]
    pub offset: u64,
    /// Bytes in the pack.
    #[n(2)]
    pub stored: u64,
    /// Bytes when decoded.
    #[n(3)]
    pub raw: u64,
    /// How it is coded.
    #[n(4)]
    pub codec: Codec,
    /// CRC32C of every 128 KiB block as it lies in the pack, u32 little-endian.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub crcs: Vec<u8>,
    /// Of a coded chunk: bytes of every 128 KiB block in the pack, u32 little-endian.
    #[n(6)]
    pub lengths: Option<ByteVec>,
    /// Of a delta: the chunk that it is the difference from, of the same type and length.
    #[n(7)]
    pub base: Option<ByteArray<32>>,
}

/// Body of [`Op::Layout`](super::Op::Layout). Its key is BLAKE3 of `content`.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Layout {
    /// CBOR of a [`LayoutContent`].
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub content: Vec<u8>,
}

/// What is alike in every save of a part.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct LayoutContent {
    /// JSON of the nested state, with numbers in place of tensors and scalars.
    #[n(0)]
    pub tree: String,
    /// The tensors in order; each has chunks of its own.
    #[n(1)]
    pub tensors: Vec<TensorSpec>,
    /// Of a part that several processes saved: the state's tensors, which lie in pieces that `tensors` holds.
    #[n(2)]
    pub wholes: Option<Vec<Whole>>,
}

/// A tensor that lies in pieces.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Whole {
    /// What it is, put together.
    #[n(0)]
    pub spec: TensorSpec,
    /// Boxes that fill it.
    #[n(1)]
    pub pieces: Vec<Piece>,
}

/// A box of a tensor.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Piece {
    /// Index of the tensor that holds it.
    #[n(0)]
    pub tensor: u32,
    /// Where it begins in each dimension.
    #[n(1)]
    pub offsets: Vec<u64>,
}

/// A tensor of a part.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct TensorSpec {
    /// Dotted name.
    #[n(0)]
    pub name: String,
    /// Element type.
    #[n(1)]
    pub dtype: DType,
    /// Shape.
    #[n(2)]
    pub shape: Vec<u64>,
}

impl TensorSpec {
    /// Bytes of the whole tensor, or None if that overflows.
    pub fn bytes(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.dtype.size(), |bytes, &n| bytes.checked_mul(n))
    }
}

/// The step of a save whose parts are of no step: what is attached to the run.
pub const ATTACHED: i64 = i64::MIN;

/// Body of [`Op::Save`](super::Op::Save).
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Save {
    /// The step whose state it is.
    #[n(0)]
    pub step: i64,
    /// Microseconds since the epoch.
    #[n(1)]
    pub time: i64,
    /// The named parts.
    #[n(2)]
    pub parts: Vec<Part>,
}

/// A part of a save.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Part {
    /// Name.
    #[n(0)]
    pub name: String,
    /// Key of the layout.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub layout: Key,
    /// Keys of all chunks, tensor after tensor, 32 bytes each.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub keys: Vec<u8>,
    /// JSON of the scalars.
    #[n(3)]
    pub scalars: String,
}
