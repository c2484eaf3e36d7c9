//! `lamina._core.Snapshot`.

use crate::arrow::{self, ArrowArray};
use crate::buffer::{Bytes, BytesMut};
use crate::errors::raise;
use crate::mapped::Mapped;
use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow_buffer::MutableBuffer;
use lamina_format::record::{Column, Table, TensorSpec};
use lamina_format::{Error, Value};
use lamina_store::reader::{Access, GroupInfo, Kind, Mapping, Mask, Region, Stretch};
use lamina_store::storage::Files;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// What a run held when it was opened.
#[pyclass(frozen, module = "lamina._core")]
pub struct Snapshot(pub Arc<lamina_store::Snapshot>);

type SiteRow = (String, &'static str, Vec<u64>, u64, u64, u64, bool);
type GroupRow<'py> = (usize, i64, u64, Bound<'py, PyTuple>, Option<i64>, Option<i64>, &'static str, i64);
type TensorRow = (String, &'static str, Vec<u64>, u64);
type PartRow = (i64, String, i64, usize, Vec<(usize, u64)>);

fn table(name: &str) -> PyResult<Table> {
    match name {
        "rows" => Ok(Table::Rows),
        "examples" => Ok(Table::Examples),
        other => Err(raise(Error::schema(format!("there is no table {other:?}")).hint("give rows or examples"))),
    }
}

impl Snapshot {
    fn batch(&self, table: Table, group: usize, columns: &[(String, Option<&Column>)]) -> PyResult<ArrowArray> {
        let rows = self.0.rows(table, group).map_err(raise)? as usize;
        let mut arrays: Vec<(String, ArrayRef)> = Vec::new();
        for (name, column) in columns {
            let array = match column {
                Some(column) => arrow::column(column.kind, rows, self.0.metadata(group, column).map_err(raise)?),
                None => Arc::new(Int64Array::from(self.0.names(group).map_err(raise)?)),
            };
            arrays.push((name.clone(), array));
        }
        ArrowArray::batch(rows, arrays)
    }
}

#[pymethods]
impl Snapshot {
    #[new]
    #[pyo3(signature = (path, *, strict=false, io="auto", verify="first", hidden=false))]
    fn new(py: Python<'_>, path: &str, strict: bool, io: &str, verify: &str, hidden: bool) -> PyResult<Self> {
        let access = Access::parse(io, verify).map_err(raise)?;
        let opening = lamina_store::Opening { strict, hidden };
        let open = || lamina_store::Snapshot::open(Arc::new(Files::new(path)), opening);
        Ok(Self(Arc::new(py.detach(open).map_err(raise)?.with_access(access))))
    }

    #[getter]
    fn id(&self) -> &str {
        &self.0.run().id
    }

    #[getter]
    fn created(&self) -> i64 {
        self.0.run().created
    }

    #[getter]
    fn config(&self) -> &str {
        &self.0.run().config
    }

    #[getter]
    fn sources(&self) -> Vec<(String, String, i64, String, u32)> {
        let row =
            |s: &lamina_format::runfile::Source| (s.id.clone(), s.name.clone(), s.created, s.config.clone(), s.shift);
        self.0.run().sources.iter().map(row).collect()
    }

    #[getter]
    fn problems(&self) -> Vec<(String, String, Option<u64>)> {
        let place = |error: &Error| (error.message.clone(), error.file.clone().unwrap_or_default(), error.offset);
        self.0.problems().iter().chain(&self.0.index_problems()).map(place).collect()
    }

    #[getter]
    fn bytes_read(&self) -> (u64, u64) {
        self.0.bytes_read()
    }

    #[getter]
    fn chunk_bytes_read(&self) -> u64 {
        self.0.chunk_bytes_read()
    }

    fn writers<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let describe = |info: &lamina_store::reader::WriterInfo| {
            let dict = PyDict::new(py);
            let open = info.open.as_ref();
            let close = info.close.as_ref();
            let error = close.and_then(|close| close.error.as_deref());
            let state = match (close, error, info.alive) {
                (Some(_), None, _) => "finished",
                (Some(_), Some(_), _) => "failed",
                (None, _, true) => "running",
                (None, _, false) => "abandoned",
            };
            dict.set_item("ordinal", info.ordinal)?;
            dict.set_item("state", state)?;
            dict.set_item("error", error)?;
            dict.set_item("host", open.map(|open| open.host.as_str()))?;
            dict.set_item("pid", open.map(|open| open.pid))?;
            dict.set_item("rank", open.and_then(|open| open.rank))?;
            dict.set_item("opened", open.map(|open| open.time))?;
            dict.set_item("closed", close.map(|close| close.time))?;
            let name = |id| self.0.site_by_id(id).map_or_else(|| format!("site {id}"), |site| site.name.clone());
            let lost = info.dropped.sites.iter().map(|site| (name(site.id), site.rows)).collect::<BTreeMap<_, _>>();
            dict.set_item("dropped_rows", info.dropped.rows)?;
            dict.set_item("dropped", lost)?;
            Ok(dict)
        };
        // those that keep the run do not record: how they stand says nothing of it
        let recording =
            |info: &&lamina_store::reader::WriterInfo| info.open.as_ref().is_none_or(|open| open.work.is_none());
        self.0.writers().iter().filter(recording).map(describe).collect()
    }

    fn notes(&self) -> Vec<(i64, Option<i64>, &str)> {
        self.0.notes().iter().map(|note| (note.time, note.step, note.text.as_str())).collect()
    }

    fn sites(&self) -> Vec<SiteRow> {
        let describe = |info: lamina_store::reader::SiteInfo| {
            let sparse = info.site.is_sparse();
            (info.site.name, info.site.dtype.name(), info.site.shape, info.rows, info.bytes, info.non_finite, sparse)
        };
        self.0.sites().into_iter().map(describe).collect()
    }

    #[pyo3(signature = (table="rows"))]
    fn columns(&self, table: &str) -> PyResult<Vec<(String, &'static str)>> {
        let columns = self.0.columns(self::table(table)?);
        Ok(columns.map(|column| (column.name.clone(), column.kind.name())).collect())
    }

    #[pyo3(signature = (some=None))]
    fn groups<'py>(&self, py: Python<'py>, some: Option<Vec<usize>>) -> PyResult<Vec<GroupRow<'py>>> {
        let mut shared = HashMap::new();
        let mut describe = |index: usize, info: GroupInfo| {
            let steps = info.steps.unzip();
            let kind = match info.kind {
                Kind::Own => "own",
                Kind::Named => "named",
                Kind::Attached => "attached",
            };
            // groups have mostly the same sites: one tuple of names for all of them
            let sites = match shared.entry(info.sites) {
                Entry::Occupied(there) => Bound::clone(there.get()),
                Entry::Vacant(free) => {
                    let names = free.key().iter().filter_map(|&id| self.0.site_by_id(id));
                    let names: Vec<&str> = names.map(|site| site.name.as_str()).collect();
                    free.insert(PyTuple::new(py, names)?).clone()
                }
            };
            Ok((index, info.first, info.rows, sites, steps.0, steps.1, kind, info.last))
        };
        match some {
            None => self.0.groups().into_iter().enumerate().map(|(index, info)| describe(index, info)).collect(),
            Some(some) => {
                some.into_iter().map(|index| describe(index, self.0.group_at(index).map_err(raise)?)).collect()
            }
        }
    }

    fn names<'py>(&self, py: Python<'py>, group: usize) -> PyResult<Bound<'py, PyBytes>> {
        let names = py.detach(|| self.0.names(group)).map_err(raise)?;
        let bytes: Vec<u8> = names.into_iter().flat_map(i64::to_le_bytes).collect();
        Ok(PyBytes::new(py, &bytes))
    }

    #[pyo3(signature = (group, site=None))]
    fn hidden<'py>(&self, py: Python<'py>, group: usize, site: Option<&str>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let site = site.map(|site| self.0.site(site)).transpose().map_err(raise)?;
        Ok(match self.0.hidden(group, site).map_err(raise)? {
            Mask::None => None,
            Mask::Some(mask) => Some(PyBytes::new(py, &mask)),
            Mask::All => Some(PyBytes::new(py, &vec![1; self.0.rows(Table::Rows, group).map_err(raise)? as usize])),
        })
    }

    fn constant<'py>(&self, py: Python<'py>, group: usize, column: &str) -> PyResult<(bool, Bound<'py, PyAny>)> {
        let column = self.0.column(Table::Rows, column).map_err(raise)?;
        Ok(match self.0.constant(group, column).map_err(raise)? {
            None => (false, py.None().into_bound(py)),
            Some(Value::Null) => (true, py.None().into_bound(py)),
            Some(Value::Int(x)) => (true, x.into_bound_py_any(py)?),
            Some(Value::Float(x)) => (true, x.into_bound_py_any(py)?),
            Some(Value::Bool(x)) => (true, x.into_bound_py_any(py)?),
            Some(Value::Str(x)) => (true, x.into_bound_py_any(py)?),
        })
    }

    fn metadata(&self, py: Python<'_>, group: usize, columns: Vec<String>) -> PyResult<ArrowArray> {
        let find = |name: String| match name.as_str() {
            "row" => Ok((name, None)),
            _ => Ok((name.clone(), Some(self.0.column(Table::Rows, &name).map_err(raise)?))),
        };
        let columns: Vec<_> = columns.into_iter().map(find).collect::<PyResult<_>>()?;
        py.detach(|| self.batch(Table::Rows, group, &columns))
    }

    #[pyo3(signature = (group, site, indices=None, *, widen=true))]
    fn vectors(
        &self,
        py: Python<'_>,
        group: usize,
        site: &str,
        indices: Option<Bound<'_, PyAny>>,
        widen: bool,
    ) -> PyResult<ArrowArray> {
        let indices = indices.as_ref().map(Bytes::get).transpose()?.map(|bytes| bytes.as_i64s());
        let site = self.0.site(site).map_err(raise)?;
        py.detach(|| {
            let item = site.row_bytes() as usize;
            let bytes = if let Some(indices) = &indices {
                let mut bytes = MutableBuffer::with_capacity(indices.len() * item);
                self.0.stretches(group, site, indices, |rows| bytes.extend_from_slice(rows)).map_err(raise)?;
                bytes
            } else {
                let mut bytes =
                    MutableBuffer::from_len_zeroed(self.0.rows_of(group, site).map_err(raise)? as usize * item);
                self.0.read(group, site, &mut bytes).map_err(raise)?;
                bytes
            };
            Ok(ArrowArray::new(&site.name, arrow::vectors(site, bytes, widen, None)?))
        })
    }

    fn examples(&self, py: Python<'_>) -> PyResult<Vec<ArrowArray>> {
        let batch = |group| {
            let columns = self.0.columns_of(Table::Examples, group).map_err(raise)?;
            let named: Vec<_> = columns.into_iter().map(|column| (column.name.clone(), Some(column))).collect();
            py.detach(|| self.batch(Table::Examples, group, &named))
        };
        (0..self.0.example_groups()).map(batch).collect()
    }

    fn metrics(&self) -> PyResult<ArrowArray> {
        let metrics = self.0.metrics();
        let text = |index: &u32| metrics.words[*index as usize].as_str();
        let texts = |indices: &[Option<u32>]| -> ArrayRef {
            let mut array = StringBuilder::new();
            indices.iter().for_each(|index| array.append_option(index.as_ref().map(text)));
            Arc::new(array.finish())
        };
        let times = TimestampMicrosecondArray::from(metrics.times.clone()).with_timezone("UTC");
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("step", Arc::new(Int64Array::from(metrics.steps.clone()))),
            ("time", Arc::new(times)),
            ("name", Arc::new(StringArray::from_iter_values(metrics.names.iter().map(text)))),
            ("site", texts(&metrics.sites)),
            ("source", texts(&metrics.sources)),
            ("rank", Arc::new(Int64Array::from(metrics.ranks.clone()))),
            ("value", Arc::new(Float64Array::from(metrics.values.clone()))),
        ];
        let columns = columns.into_iter().map(|(name, array)| (name.to_owned(), array)).collect();
        ArrowArray::batch(metrics.steps.len(), columns)
    }

    fn checkpoints(&self) -> (Vec<Vec<TensorRow>>, Vec<PartRow>) {
        let (mut layouts, mut numbers, mut rows) = (Vec::new(), HashMap::new(), Vec::new());
        for (step, parts) in self.0.checkpoints() {
            for part in parts {
                let tensor = |spec: &TensorSpec| {
                    (spec.name.clone(), spec.dtype.name(), spec.shape.clone(), spec.bytes().unwrap_or(0))
                };
                // many saves share a layout, which is told once
                let number = *numbers.entry(part.layout()).or_insert_with(|| {
                    layouts.push(part.specs().iter().map(tensor).collect());
                    layouts.len() - 1
                });
                rows.push((step, part.name.to_owned(), part.time, number, part.stored().to_vec()));
            }
        }
        (layouts, rows)
    }

    fn held_alone(&self, py: Python<'_>, parts: HashSet<(i64, String)>) -> u64 {
        py.detach(|| self.0.held_alone(&parts))
    }

    fn part(&self, step: i64, part: &str) -> PyResult<(String, String, String)> {
        self.0.saved_part(step, part).map_err(raise)
    }

    fn stretches<'py>(
        &self,
        py: Python<'py>,
        part: &str,
        wanted: Vec<(i64, usize, u64, Bound<'py, PyAny>)>,
        threads: usize,
    ) -> PyResult<Vec<(usize, Py<PyAny>)>> {
        let buffer = |(step, tensor, start, out): &(i64, usize, u64, Bound<'py, PyAny>)| {
            Ok((Stretch { step: *step, tensor: *tensor, start: *start }, BytesMut::get(out)?))
        };
        let mut buffers = wanted.iter().map(buffer).collect::<PyResult<Vec<_>>>()?;
        let outs = buffers.iter_mut().map(|(stretch, out)| (*stretch, out.as_mut_slice())).collect();
        let failed = py.detach(|| self.0.saved_stretches(part, outs, threads)).map_err(raise)?;
        Ok(failed.into_iter().map(|(number, error)| (number, raise(error).into_value(py).into_any())).collect())
    }

    fn map(&self, py: Python<'_>, step: i64, part: &str, tensor: usize, threads: usize) -> PyResult<Py<PyAny>> {
        match py.detach(|| self.0.map_tensor(step, part, tensor, threads)).map_err(raise)? {
            Mapping::Mapped(private) => Mapped(private).into_py_any(py),
            Mapping::Copied(why) => why.into_py_any(py),
        }
    }

    #[pyo3(name = "box")]
    #[expect(clippy::too_many_arguments, reason = "a tensor, a box of it, and where it goes")]
    fn region(
        &self,
        py: Python<'_>,
        step: i64,
        part: &str,
        index: usize,
        offsets: Vec<u64>,
        sizes: Vec<u64>,
        out: Bound<'_, PyAny>,
        threads: usize,
    ) -> PyResult<()> {
        let mut out = BytesMut::get(&out)?;
        let out = out.as_mut_slice();
        let region = Region { offsets: &offsets, sizes: &sizes };
        py.detach(|| self.0.saved_box(step, part, index, region, out, threads)).map_err(raise)
    }
}
