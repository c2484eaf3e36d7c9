//! Columns and rows as Arrow arrays, handed over through the PyCapsule interface without a copy.

use crate::errors::raise;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array,
    PrimitiveArray, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{Field, FieldRef, Fields};
use half::f16;
use lamina_format::record::Site;
use lamina_format::{ColumnType, DType, Error, Value};
use lamina_store::reader::ColumnData;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use std::sync::Arc;

/// An array or record batch that exports itself.
#[pyclass(frozen, module = "lamina._core")]
pub struct ArrowArray {
    field: FieldRef,
    array: ArrayRef,
}

#[pymethods]
impl ArrowArray {
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        Ok(pyo3_arrow::ffi::to_array_pycapsules(py, self.field.clone(), self.array.as_ref(), requested_schema)?)
    }
}

impl ArrowArray {
    pub fn new(name: &str, array: ArrayRef) -> Self {
        Self { field: Arc::new(Field::new(name, array.data_type().clone(), true)), array }
    }

    /// A record batch: a struct array without nulls of its own.
    pub fn batch(rows: usize, columns: Vec<(String, ArrayRef)>) -> PyResult<Self> {
        let field = |(name, array): &(String, ArrayRef)| Field::new(name, array.data_type().clone(), true);
        let fields: Fields = columns.iter().map(field).collect();
        let arrays: Vec<ArrayRef> = columns.into_iter().map(|(_, array)| array).collect();
        let array = StructArray::try_new_with_length(fields, arrays, None, rows)
            .map_err(|error| raise(Error::damaged(error.to_string())))?;
        let field = Field::new("", array.data_type().clone(), false);
        Ok(Self { field: Arc::new(field), array: Arc::new(array) })
    }
}

fn nulls(valid: Option<Vec<u8>>) -> Option<NullBuffer> {
    valid.map(|valid| NullBuffer::new(BooleanBuffer::collect_bool(valid.len(), |row| valid[row] != 0)))
}

/// A metadata column.
pub fn column(kind: ColumnType, rows: usize, data: ColumnData) -> ArrayRef {
    match (kind, data) {
        (_, ColumnData::Constant(value)) => constant(kind, rows, value),
        (ColumnType::Int, ColumnData::Fixed(bytes, valid)) => {
            let values: Vec<i64> = bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect();
            Arc::new(Int64Array::new(values.into(), nulls(valid)))
        }
        (ColumnType::Time, ColumnData::Fixed(bytes, valid)) => {
            times(bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect(), nulls(valid))
        }
        (ColumnType::Bool, ColumnData::Fixed(bytes, valid)) => {
            let values = BooleanBuffer::collect_bool(rows, |row| bytes[row] != 0);
            Arc::new(BooleanArray::new(values, nulls(valid)))
        }
        (_, ColumnData::Fixed(bytes, valid)) => {
            let values: Vec<f64> = bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
            Arc::new(Float64Array::new(values.into(), nulls(valid)))
        }
        (_, ColumnData::Texts(offsets, bytes, valid)) => {
            // the store checked that offsets ascend; beyond 2 GiB of text a group cannot be one Arrow array
            let offsets: Vec<i32> =
                offsets.into_iter().map(|offset| i32::try_from(offset).unwrap_or(i32::MAX)).collect();
            let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
            Arc::new(StringArray::new(offsets, Buffer::from_vec(bytes), nulls(valid)))
        }
    }
}

/// Microseconds since the epoch as points in time.
pub fn times(values: Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::new(values.into(), nulls).with_timezone("UTC"))
}

fn constant(kind: ColumnType, rows: usize, value: Value) -> ArrayRef {
    match (kind, value) {
        (ColumnType::Int, Value::Int(x)) => Arc::new(Int64Array::from(vec![x; rows])),
        (ColumnType::Int, _) => Arc::new(Int64Array::new_null(rows)),
        (ColumnType::Time, Value::Int(x)) => times(vec![x; rows], None),
        (ColumnType::Time, _) => times(vec![0; rows], Some(NullBuffer::new_null(rows))),
        (ColumnType::Float, Value::Float(x)) => Arc::new(Float64Array::from(vec![x; rows])),
        (ColumnType::Float, _) => Arc::new(Float64Array::new_null(rows)),
        (ColumnType::Bool, Value::Bool(x)) => Arc::new(BooleanArray::from(vec![x; rows])),
        (ColumnType::Bool, _) => Arc::new(BooleanArray::new_null(rows)),
        (ColumnType::Str, Value::Str(x)) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(x, rows))),
        (ColumnType::Str, _) => Arc::new(StringArray::new_null(rows)),
    }
}

fn typed<T: ArrowPrimitiveType>(bytes: Buffer, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(bytes), nulls))
}

fn singles(values: impl Iterator<Item = f32>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(Float32Array::new(ScalarBuffer::from(values.collect::<Vec<f32>>()), nulls))
}

/// Rows of a site from their bytes: a list of fixed size a row, or plain values if the item is a scalar.
pub fn vectors(site: &Site, bytes: MutableBuffer, widen: bool, nulls: Option<NullBuffer>) -> PyResult<ArrayRef> {
    let bytes = Buffer::from(bytes);
    // elements of a row without a value are null as well: older versions of Polars look at nothing else
    let inner = nulls.as_ref().map(|nulls| nulls.expand(site.width() as usize));
    let values = match site.dtype {
        DType::F64 => typed::<Float64Type>(bytes, inner),
        DType::F32 => typed::<Float32Type>(bytes, inner),
        DType::F16 => typed::<Float16Type>(bytes, inner),
        DType::Bf16 if widen => {
            // the bits are the upper half of the single, those of a NaN too
            let widen = |&bytes: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16);
            singles(bytes.as_chunks().0.iter().map(widen), inner)
        }
        DType::Bf16 => typed::<UInt16Type>(bytes, inner),
        DType::F8E5m2 if widen => singles(bytes.iter().map(|&byte| f16::from_le_bytes([0, byte]).to_f32()), inner),
        DType::F8E4m3 if widen => singles(bytes.iter().map(|&byte| e4m3(byte)), inner),
        DType::I64 => typed::<Int64Type>(bytes, inner),
        DType::I32 => typed::<Int32Type>(bytes, inner),
        DType::I16 => typed::<Int16Type>(bytes, inner),
        DType::I8 => typed::<Int8Type>(bytes, inner),
        DType::Bool => {
            Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(bytes.len(), |at| bytes[at] != 0), inner))
        }
        DType::F8E5m2 | DType::F8E4m3 | DType::U8 => typed::<UInt8Type>(bytes, inner),
        other => return Err(raise(Error::schema(format!("{} does not fit a frame", other.name())))),
    };
    if site.shape.is_empty() {
        return Ok(values);
    }
    let broken = |why: String| raise(Error::damaged(why));
    let width = i32::try_from(site.width()).map_err(|_| broken("a row is too wide for a frame".to_owned()))?;
    let item = Arc::new(Field::new("item", values.data_type().clone(), true));
    Ok(Arc::new(FixedSizeListArray::try_new(item, width, values, nulls).map_err(|error| broken(error.to_string()))?))
}

/// The value of a float8 with four exponent bits, bias 7, no infinity, and NaN where all other bits are set.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    size.copysign(if byte & 0x80 == 0 { 1.0 } else { -1.0 })
}
