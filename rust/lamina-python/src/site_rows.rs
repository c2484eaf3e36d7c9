//! `lamina._core.SiteRows`.

use crate::buffer::{Bytes, BytesMut};
use crate::errors::raise;
use crate::snapshot::Snapshot;
use lamina_format::Error;
use lamina_format::record::Table;
use lamina_store::reader::{Described, Features, Part, Selection, Wanted};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator};
use std::ops::Range;
use std::sync::Arc;

/// The rows of a site that were selected.
#[pyclass(frozen, module = "lamina._core")]
pub struct SiteRows(lamina_store::reader::SiteRows);

type Chosen<'py> = (usize, Option<Bound<'py, PyAny>>);
type State<'py> = Vec<(String, u32, u8, Bound<'py, PyBytes>)>;

#[pymethods]
impl SiteRows {
    #[new]
    fn new(snapshot: &Bound<'_, Snapshot>, site: &str, parts: &Bound<'_, PyAny>) -> PyResult<Self> {
        let snapshot = Arc::clone(&snapshot.get().0);
        // one at a time: whoever makes the parts need not hold them all
        let part = |chosen: PyResult<Bound<'_, PyAny>>| {
            let (group, at): Chosen = chosen?.extract()?;
            let rows = snapshot.rows(Table::Rows, group).map_err(raise)?;
            match at {
                None => Ok(Part::whole(group, rows)),
                Some(at) => Part::at(group, rows, &Bytes::get(&at)?.as_i64s()).map_err(raise),
            }
        };
        let parts = PyIterator::from_object(parts)?.map(part).collect::<PyResult<Vec<_>>>()?;
        let rows = lamina_store::reader::SiteRows::new(Arc::clone(&snapshot), site, Selection::new(parts));
        rows.map(Self).map_err(raise)
    }

    #[staticmethod]
    fn restore(snapshot: &Bound<'_, Snapshot>, site: &str, state: State<'_>) -> PyResult<Self> {
        let part = |(file, number, kind, data): (String, u32, u8, Bound<'_, PyBytes>)| {
            let data = data.as_bytes();
            let described = match (kind, data.as_chunks::<8>().0) {
                (0, &[first, count]) => Described::Side(u64::from_le_bytes(first), u64::from_le_bytes(count)),
                (1, _) => Described::Mask(data.to_vec()),
                (2, _) => Described::List(data.as_chunks().0.iter().map(|&row| u32::from_le_bytes(row)).collect()),
                _ => return Err(raise(Error::schema("this is no selection of rows"))),
            };
            Ok((file, number, described))
        };
        let parts = state.into_iter().map(part).collect::<PyResult<Vec<_>>>()?;
        lamina_store::reader::SiteRows::restore(Arc::clone(&snapshot.get().0), site, parts).map(Self).map_err(raise)
    }

    fn state<'py>(&self, py: Python<'py>) -> State<'py> {
        let part = |(file, number, described): (&str, u32, Described)| {
            let (kind, data) = match described {
                Described::Side(first, count) => (0, [first.to_le_bytes(), count.to_le_bytes()].concat()),
                Described::Mask(bits) => (1, bits),
                Described::List(rows) => (2, rows.into_iter().flat_map(u32::to_le_bytes).collect()),
            };
            (file.to_owned(), number, kind, PyBytes::new(py, &data))
        };
        self.0.described().into_iter().map(part).collect()
    }

    fn narrow(&self, py: Python<'_>, positions: &Bound<'_, PyAny>) -> PyResult<Self> {
        let positions = Bytes::get(positions)?.as_i64s();
        py.detach(|| self.0.narrow(&Wanted::At(&positions))).map(Self).map_err(raise)
    }

    fn narrow_span(&self, py: Python<'_>, start: u64, stop: u64) -> PyResult<Self> {
        py.detach(|| self.0.narrow(&Wanted::Span(start..stop))).map(Self).map_err(raise)
    }

    fn __len__(&self) -> usize {
        self.0.selection().len() as usize
    }

    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let ids = py.detach(|| self.0.ids()).map_err(raise)?;
        PyBytes::new_with(py, 8 * ids.len(), |bytes| {
            bytes.as_chunks_mut().0.iter_mut().zip(&ids).for_each(|(bytes, id)| *bytes = id.to_le_bytes());
            Ok(())
        })
    }

    fn gather(
        &self,
        py: Python<'_>,
        positions: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
        threads: usize,
    ) -> PyResult<()> {
        let positions = Bytes::get(positions)?.as_i64s();
        let mut out = BytesMut::get(out)?;
        let out = out.as_mut_slice();
        py.detach(|| self.0.gather(&Wanted::At(&positions), out, threads)).map_err(raise)
    }

    fn read(&self, py: Python<'_>, start: u64, out: &Bound<'_, PyAny>, threads: usize) -> PyResult<()> {
        let mut out = BytesMut::get(out)?;
        let out = out.as_mut_slice();
        let end = start.checked_add((out.len() / self.0.row_bytes().max(1)) as u64);
        let end = end.ok_or_else(|| raise(Error::schema(format!("there is no row {start}"))))?;
        py.detach(|| self.0.gather(&Wanted::Span(start..end), out, threads)).map_err(raise)
    }

    /// Fills `out`, zeros, with the values of features of sparse codes, by default of all.
    fn gather_codes(
        &self,
        py: Python<'_>,
        positions: &Bound<'_, PyAny>,
        features: Option<&Bound<'_, PyAny>>,
        out: &Bound<'_, PyAny>,
        threads: usize,
    ) -> PyResult<()> {
        let positions = Bytes::get(positions)?.as_i64s();
        let features = features.map(Bytes::get).transpose()?.map(|features| features.as_i64s());
        let mut out = BytesMut::get(out)?;
        let out = out.as_mut_slice();
        py.detach(|| {
            let width = self.0.site().width();
            let features =
                features.map_or_else(|| Ok(Features::all(width)), |features| Features::new(&features, width))?;
            self.0.gather_codes(&Wanted::At(&positions), &features, out, threads)
        })
        .map_err(raise)
    }

    fn will_need(&self, py: Python<'_>, spans: Vec<(u64, u64)>) -> PyResult<()> {
        let spans: Vec<Range<u64>> = spans.into_iter().map(|(start, end)| start..end).collect();
        py.detach(|| self.0.will_need(&spans)).map_err(raise)
    }
}
