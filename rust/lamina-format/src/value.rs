//! One metadata value. On disk it is the CBOR value of its own type.

use crate::dtype::ColumnType;
use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Str(String),
}

impl Value {
    /// Whether a column of that type holds it; every column holds null.
    pub fn fits(&self, kind: ColumnType) -> bool {
        match self {
            Self::Null => true,
            Self::Int(_) => matches!(kind, ColumnType::Int | ColumnType::Time),
            Self::Float(_) => kind == ColumnType::Float,
            Self::Bool(_) => kind == ColumnType::Bool,
            Self::Str(_) => kind == ColumnType::Str,
        }
    }
}

impl<C> Encode<C> for Value {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> std::result::Result<(), encode::Error<W::Error>> {
        match self {
            Self::Null => e.null()?,
            Self::Int(x) => e.i64(*x)?,
            Self::Float(x) => e.f64(*x)?,
            Self::Bool(x) => e.bool(*x)?,
            Self::Str(x) => e.str(x)?,
        };
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Value {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> std::result::Result<Self, decode::Error> {
        Ok(match d.datatype()? {
            Type::Null => {
                d.null()?;
                Self::Null
            }
            Type::F64 => Self::Float(d.f64()?),
            Type::Bool => Self::Bool(d.bool()?),
            Type::String => Self::Str(d.str()?.to_owned()),
            _ => Self::Int(d.i64()?),
        })
    }
}
