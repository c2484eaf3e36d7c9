//! What Python hands to a writer.

use crate::buffer::Bytes;
use crate::errors::raise;
use crate::memory::Memory;
use lamina_format::{ColumnType, DType, Error, Value};
use lamina_store::writer::{ColumnInput, Lent, SiteInput, Values};
use pyo3::prelude::*;
use pyo3::types::PyList;

/// A site of an append: name, dtype, item shape, rows.
#[derive(FromPyObject)]
pub struct SiteArgument<'py>(String, String, Vec<u64>, Bound<'py, PyAny>);

/// A column: name, type, values, validity.
#[derive(FromPyObject)]
pub struct ColumnArgument<'py>(String, String, Bound<'py, PyAny>, Option<Bound<'py, PyAny>>);

/// Rows that share their metadata: how many, sites, columns, and the names of rows that exist.
#[derive(FromPyObject)]
pub struct SetArgument<'py>(u64, Vec<SiteArgument<'py>>, Vec<ColumnArgument<'py>>, Option<Bound<'py, PyAny>>);

/// A set of rows with its bytes borrowed.
pub struct HeldSet {
    rows: u64,
    sites: Vec<HeldSite>,
    columns: Vec<HeldColumn>,
    pub names: Option<Vec<i64>>,
}

impl SetArgument<'_> {
    pub fn hold(self) -> PyResult<HeldSet> {
        let sites = self.1.into_iter().map(SiteArgument::hold).collect::<PyResult<_>>()?;
        let columns = self.2.into_iter().map(ColumnArgument::hold).collect::<PyResult<_>>()?;
        let names = self.3.map(|names| Ok::<_, PyErr>(Bytes::get(&names)?.as_i64s())).transpose()?;
        Ok(HeldSet { rows: self.0, sites, columns, names })
    }
}

impl HeldSet {
    /// The rows, their sites and their columns.
    pub fn inputs(&self) -> (u64, Vec<SiteInput<'_>>, Vec<ColumnInput<'_>>) {
        let sites = self.sites.iter().map(HeldSite::input).collect();
        (self.rows, sites, self.columns.iter().map(HeldColumn::input).collect())
    }
}

/// A site with its bytes borrowed, and lent if they are memory of a pool.
pub struct HeldSite {
    name: String,
    dtype: DType,
    shape: Vec<u64>,
    bytes: Bytes,
    lent: Option<Lent>,
}

/// A column with its values taken or borrowed.
pub struct HeldColumn {
    name: String,
    kind: ColumnType,
    values: HeldValues,
    valid: Option<Bytes>,
}

enum HeldValues {
    Constant(Value),
    Fixed(Bytes),
    Texts(Vec<Option<String>>),
}

impl SiteArgument<'_> {
    pub fn hold(self) -> PyResult<HeldSite> {
        let dtype = DType::parse(&self.1).map_err(raise)?;
        let lent = self.3.cast::<Memory>().ok().map(|memory| memory.get().lent());
        Ok(HeldSite { name: self.0, dtype, shape: self.2, bytes: Bytes::get(&self.3)?, lent })
    }
}

impl HeldSite {
    pub fn input(&self) -> SiteInput<'_> {
        let (bytes, lent) = (self.bytes.as_slice(), self.lent.clone());
        SiteInput { name: &self.name, dtype: self.dtype, shape: self.shape.clone(), bytes, lent, codes: None }
    }
}

impl ColumnArgument<'_> {
    pub fn hold(self) -> PyResult<HeldColumn> {
        let kind = ColumnType::parse(&self.1).map_err(raise)?;
        let values = match scalar(kind, &self.2) {
            Ok(Some(value)) => HeldValues::Constant(value),
            Ok(None) if kind == ColumnType::Str => HeldValues::Texts(self.2.extract()?),
            Ok(None) => HeldValues::Fixed(Bytes::get(&self.2)?),
            Err(error) => {
                let text = format!("column {:?} cannot hold this value as {}: {error}", self.0, kind.name());
                return Err(raise(Error::schema(text)));
            }
        };
        let valid = self.3.as_ref().map(Bytes::get).transpose()?;
        Ok(HeldColumn { name: self.0, kind, values, valid })
    }
}

/// The constant that the object is, or None if it is a list or buffer.
fn scalar(kind: ColumnType, object: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    if object.is_none() {
        return Ok(Some(Value::Null));
    }
    if object.is_instance_of::<PyList>() || object.hasattr("__buffer__")? || object.hasattr("__array_interface__")? {
        return Ok(None);
    }
    Ok(Some(match kind {
        ColumnType::Int | ColumnType::Time => Value::Int(object.extract()?),
        ColumnType::Float => Value::Float(object.extract()?),
        ColumnType::Bool => Value::Bool(object.extract()?),
        ColumnType::Str => Value::Str(object.extract()?),
    }))
}

impl HeldColumn {
    pub fn input(&self) -> ColumnInput<'_> {
        let values = match &self.values {
            HeldValues::Constant(value) => Values::Constant(value.clone()),
            HeldValues::Fixed(bytes) => Values::Fixed(bytes.as_slice()),
            HeldValues::Texts(texts) => Values::Texts(texts.clone()),
        };
        let valid = self.valid.as_ref().map(Bytes::as_slice);
        ColumnInput { name: &self.name, kind: self.kind, values, valid }
    }
}
