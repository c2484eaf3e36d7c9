//! Element types of tensors, and types of metadata columns. On disk both are their names.

use crate::error::{Error, Result};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

macro_rules! named {
    ($(#[$doc:meta])* $kind:ident { $($(#[$vdoc:meta])* $variant:ident = $name:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $kind { $($(#[$vdoc])* $variant),+ }

        impl $kind {
            /// Every variant, in order of declaration.
            pub const ALL: &[$kind] = &[$($kind::$variant),+];

            /// The name on disk.
            pub fn name(self) -> &'static str {
                match self { $($kind::$variant => $name),+ }
            }

            /// The variant of that name.
            pub fn parse(name: &str) -> Result<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
                    Error::schema(format!("unknown type {name:?}")).hint(format!("known are {}", known.join(" ")))
                })
            }
        }

        impl<C> Encode<C> for $kind {
            fn encode<W: encode::Write>(
                &self, e: &mut Encoder<W>, _: &mut C,
            ) -> std::result::Result<(), encode::Error<W::Error>> {
                e.str(self.name())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $kind {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> std::result::Result<Self, decode::Error> {
                Self::parse(d.str()?).map_err(|e| decode::Error::message(e.message))
            }
        }
    };
}

named! {
    /// The type of a tensor's elements.
    DType {
        /// IEEE double.
        F64 = "f64",
        /// IEEE single.
        F32 = "f32",
        /// IEEE half.
        F16 = "f16",
        /// The upper half of a single.
        Bf16 = "bf16",
        /// Float8 with four exponent bits and no infinity.
        F8E4m3 = "f8_e4m3",
        /// Float8 with five exponent bits.
        F8E5m2 = "f8_e5m2",
        /// Signed 64-bit integer.
        I64 = "i64",
        /// Signed 32-bit integer.
        I32 = "i32",
        /// Signed 16-bit integer.
        I16 = "i16",
        /// Signed byte.
        I8 = "i8",
        /// Unsigned 64-bit integer.
        U64 = "u64",
        /// Unsigned 32-bit integer.
        U32 = "u32",
        /// Unsigned 16-bit integer.
        U16 = "u16",
        /// Unsigned byte.
        U8 = "u8",
        /// One byte, 0 or 1.
        Bool = "bool",
        /// Two singles.
        C64 = "c64",
        /// Two doubles.
        C128 = "c128",
    }
}

named! {
    /// The type of a metadata column.
    ColumnType {
        /// Signed 64-bit integer.
        Int = "int",
        /// IEEE double.
        Float = "float",
        /// True or false.
        Bool = "bool",
        /// UTF-8 text.
        Str = "str",
        /// A point in time: microseconds since the epoch, UTC, as a signed 64-bit integer.
        Time = "time",
    }
}

impl DType {
    /// Bytes an element.
    pub fn size(self) -> u64 {
        match self {
            Self::C128 => 16,
            Self::F64 | Self::I64 | Self::U64 | Self::C64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F8E4m3 | Self::F8E5m2 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether rows may have it: the others are for checkpoints alone.
    pub fn is_for_rows(self) -> bool {
        !matches!(self, Self::U64 | Self::U32 | Self::U16 | Self::C64 | Self::C128)
    }

    /// Whether values of sparse codes may have it.
    pub fn is_for_codes(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32)
    }

    /// The name that the safetensors header uses, or None where that format has none.
    pub fn safetensors(self) -> Option<&'static str> {
        Some(match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F8E4m3 => "F8_E4M3",
            Self::F8E5m2 => "F8_E5M2",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
            Self::C64 => "C64",
            Self::C128 => return None,
        })
    }

    /// How many of the elements are NaN or infinite; 0 for integers.
    pub fn count_non_finite(self, bytes: &[u8]) -> u64 {
        // an element is NaN or infinite if all bits of its exponent are set (and for e4m3 those of its mantissa);
        // counts of the element's own width keep the loop in vector registers
        macro_rules! count {
            ($kind:ty, $mask:expr) => {{
                let elements = bytes.as_chunks::<{ size_of::<$kind>() }>().0;
                let bad = |&chunk: &_| <$kind>::from(<$kind>::from_le_bytes(chunk) & $mask == $mask);
                elements.chunks(128).map(|some| some.iter().map(bad).sum::<$kind>() as u64).sum()
            }};
        }
        match self {
            Self::F64 | Self::C128 => count!(u64, 0x7ff0_0000_0000_0000),
            Self::F32 | Self::C64 => count!(u32, 0x7f80_0000),
            Self::F16 => count!(u16, 0x7c00),
            Self::Bf16 => count!(u16, 0x7f80),
            Self::F8E5m2 => count!(u8, 0x7c),
            Self::F8E4m3 => count!(u8, 0x7f),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_ones_list_the_known() {
        for dtype in DType::ALL {
            assert_eq!(DType::parse(dtype.name()), Ok(*dtype));
        }
        let error = DType::parse("f12").expect_err("no such type");
        assert!(error.to_string().contains("bf16"));
    }

    #[test]
    fn non_finite_values_are_counted_in_every_float_type() {
        let f32s: Vec<u8> = [1.0f32, f32::NAN, -f32::INFINITY, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(DType::F32.count_non_finite(&f32s), 2);
        let f64s: Vec<u8> = [f64::MAX, f64::NAN].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(DType::F64.count_non_finite(&f64s), 1);
        let halves: Vec<u8> = [half::f16::INFINITY, half::f16::MAX].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(DType::F16.count_non_finite(&halves), 1);
        let bf16s: Vec<u8> = [half::bf16::NAN, half::bf16::MIN].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(DType::Bf16.count_non_finite(&bf16s), 1);
        // e4m3fn has one NaN a sign and no infinity: 0x7e is 448, its greatest value
        assert_eq!(DType::F8E4m3.count_non_finite(&[0x7f, 0xff, 0x7e, 0x78]), 2);
        assert_eq!(DType::F8E5m2.count_non_finite(&[0x7c, 0x7f, 0x7b]), 2);
        assert_eq!(DType::I32.count_non_finite(&[0xff; 8]), 0);
    }
}
