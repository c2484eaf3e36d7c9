//! `lamina._core.Writer`.

use crate::buffer::Bytes;
use crate::codes::CodesArgument;
use crate::committers;
use crate::errors::raise;
use crate::input::{ColumnArgument, HeldColumn, HeldSet, SetArgument};
use crate::memory::Memory;
use crate::shards::{CompleteArgument, Shard, complete_part};
use crate::ticket::Ticket;
use lamina_format::record::TensorSpec;
use lamina_format::{DType, Error};
use lamina_store::storage::{Files, Storage};
use lamina_store::writer::{Durability, Full, Lent, Options, PartInput, RowSet, SiteInput, TensorBytes};
use pyo3::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A handle on the log that writers of this process share.
#[pyclass(frozen, module = "lamina._core")]
pub struct Writer {
    storage: Arc<dyn Storage>,
    inner: lamina_store::Writer,
}

type TensorArgument<'py> = (String, String, Vec<u64>, Bound<'py, PyAny>);
type PartArgument<'py> = (String, String, String, Vec<TensorArgument<'py>>);

/// A part with its tensors' bytes borrowed, or lent if they are memory of a pool.
struct HeldPart {
    name: String,
    tree: String,
    scalars: String,
    tensors: Vec<(TensorSpec, HeldBytes)>,
}

enum HeldBytes {
    Borrowed(Bytes),
    Lent(Lent),
}

impl HeldPart {
    fn hold((name, tree, scalars, tensors): PartArgument<'_>) -> PyResult<Self> {
        let tensor = |(name, dtype, shape, bytes): TensorArgument<'_>| {
            let dtype = DType::parse(&dtype).map_err(raise)?;
            let held = match bytes.cast::<Memory>() {
                Ok(memory) => HeldBytes::Lent(memory.get().lent()),
                Err(_) => HeldBytes::Borrowed(Bytes::get(&bytes)?),
            };
            Ok((TensorSpec { name, dtype, shape }, held))
        };
        let tensors = tensors.into_iter().map(tensor).collect::<PyResult<_>>()?;
        Ok(Self { name, tree, scalars, tensors })
    }

    fn input(&self) -> PartInput<'_> {
        let tensors = self.tensors.iter().map(|(spec, held)| (spec.clone(), held.input())).collect();
        PartInput { name: &self.name, tree: &self.tree, scalars: &self.scalars, tensors }
    }
}

impl HeldBytes {
    fn input(&self) -> TensorBytes<'_> {
        match self {
            Self::Borrowed(bytes) => TensorBytes::Copy(bytes.as_slice()),
            Self::Lent(memory) => TensorBytes::Lend(Lent::clone(memory)),
        }
    }
}

/// A limit of a durable point: a whole number above zero.
fn limit(what: &str, given: Option<i64>) -> PyResult<Option<u64>> {
    let wrong = || raise(Error::schema(format!("{what} is {}", given.unwrap_or(0))).hint("give a number above zero"));
    given.map(|limit| u64::try_from(limit).ok().filter(|&limit| limit > 0).ok_or_else(wrong)).transpose()
}

fn policy(full: &str) -> PyResult<Full> {
    match full {
        "block" => Ok(Full::Block),
        "drop" => Ok(Full::Drop),
        "raise" => Ok(Full::Raise),
        _ => Err(raise(Error::schema(format!("full is {full:?}")).hint("choose \"block\", \"drop\" or \"raise\""))),
    }
}

fn age(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    let wrong = |seconds| raise(Error::schema(format!("durable_seconds is {seconds}")).hint("give seconds, or None"));
    let parse = |seconds: f64| Duration::try_from_secs_f64(seconds).map_err(|_| wrong(seconds));
    seconds.map(parse).transpose()
}

#[pymethods]
impl Writer {
    #[new]
    #[pyo3(signature = (path, *, rank=None, full="block", durable_rows=None, durable_bytes=None, durable_seconds=Some(1.0)))]
    fn new(
        py: Python<'_>,
        path: &str,
        rank: Option<i64>,
        full: &str,
        durable_rows: Option<i64>,
        durable_bytes: Option<i64>,
        durable_seconds: Option<f64>,
    ) -> PyResult<Self> {
        let rows = limit("durable_rows", durable_rows)?;
        let bytes = limit("durable_bytes", durable_bytes)?;
        let options =
            Options { rank, full: policy(full)?, durable: Durability { rows, bytes, every: age(durable_seconds)? } };
        let storage: Arc<dyn Storage> = Arc::new(Files::new(path));
        let inner = committers::writer(py, path, &storage, options).map_err(raise)?;
        Ok(Self { storage, inner })
    }

    /// Raises if nothing can be staged any more.
    fn check(&self) -> PyResult<()> {
        self.inner.check().map_err(raise)
    }

    #[getter]
    fn ordinal(&self) -> u32 {
        self.inner.ordinal()
    }

    #[getter]
    fn closed(&self) -> bool {
        self.inner.closed()
    }

    fn append(&self, py: Python<'_>, sets: Vec<SetArgument<'_>>) -> PyResult<Ticket> {
        let held: Vec<HeldSet> = sets.into_iter().map(SetArgument::hold).collect::<PyResult<_>>()?;
        let inputs: Vec<_> = held.iter().map(HeldSet::inputs).collect();
        let set = inputs.iter().zip(&held).map(|((rows, sites, columns), held)| {
            let names = held.names.as_deref();
            RowSet { rows: *rows, sites, columns, names }
        });
        let sets: Vec<_> = set.collect();
        py.detach(|| self.inner.append_sets(self.storage.as_ref(), &sets)).map(Ticket).map_err(raise)
    }

    /// Stages sparse codes: of rows with these columns, or of rows that exist.
    #[pyo3(signature = (name, width, rows, codes, columns, names, *, summed))]
    #[expect(clippy::too_many_arguments, reason = "they are what codes and their rows consist of")]
    fn features(
        &self,
        py: Python<'_>,
        name: &str,
        width: u64,
        rows: u64,
        codes: CodesArgument<'_>,
        columns: Vec<ColumnArgument<'_>>,
        names: Option<Bound<'_, PyAny>>,
        summed: bool,
    ) -> PyResult<Ticket> {
        let held = codes.hold()?;
        let columns: Vec<HeldColumn> = columns.into_iter().map(ColumnArgument::hold).collect::<PyResult<_>>()?;
        let columns: Vec<_> = columns.iter().map(HeldColumn::input).collect();
        let names = names.map(|names| Ok::<_, PyErr>(Bytes::get(&names)?.as_i64s())).transpose()?;
        py.detach(|| {
            let codes = held.codes(rows, width, summed)?;
            let (dtype, shape, codes) = (held.dtype, vec![width], Some(&codes));
            let sites = [SiteInput { name, dtype, shape, bytes: &[], lent: None, codes }];
            let set = RowSet { rows, sites: &sites, columns: &columns, names: names.as_deref() };
            self.inner.append_sets(self.storage.as_ref(), &[set])
        })
        .map(Ticket)
        .map_err(raise)
    }

    /// Rows that this handle dropped: in all, and of each site.
    fn dropped(&self) -> (u64, BTreeMap<String, u64>) {
        let lost = self.inner.dropped();
        (lost.rows, lost.sites)
    }

    fn examples(&self, py: Python<'_>, rows: u64, columns: Vec<ColumnArgument<'_>>) -> PyResult<Ticket> {
        let columns: Vec<HeldColumn> = columns.into_iter().map(ColumnArgument::hold).collect::<PyResult<_>>()?;
        let columns: Vec<_> = columns.iter().map(HeldColumn::input).collect();
        py.detach(|| self.inner.examples(self.storage.as_ref(), rows, &columns)).map(Ticket).map_err(raise)
    }

    #[pyo3(signature = (step, time, names, values, *, site=None, source=None))]
    #[expect(clippy::too_many_arguments, reason = "they are the columns of a metric")]
    fn log(
        &self,
        py: Python<'_>,
        step: i64,
        time: i64,
        names: Vec<String>,
        values: Vec<f64>,
        site: Option<&str>,
        source: Option<&str>,
    ) -> PyResult<()> {
        if names.len() != values.len() {
            return Err(raise(Error::schema(format!("{} names for {} values", names.len(), values.len()))));
        }
        let values: Vec<_> = names.into_iter().zip(values).collect();
        py.detach(|| self.inner.log(step, time, &values, site, source)).map_err(raise)
    }

    fn save(&self, py: Python<'_>, step: i64, parts: Vec<PartArgument<'_>>) -> PyResult<Ticket> {
        let parts: Vec<HeldPart> = parts.into_iter().map(HeldPart::hold).collect::<PyResult<_>>()?;
        let parts: Vec<_> = parts.iter().map(HeldPart::input).collect();
        py.detach(|| self.inner.save(step, &parts)).map(Ticket).map_err(raise)
    }

    /// Stages a tensor that no checkpoint holds yet.
    fn shard(&self, py: Python<'_>, tensor: TensorArgument<'_>) -> PyResult<(Ticket, Shard)> {
        let (name, dtype, shape, bytes) = tensor;
        let (spec, bytes) =
            (TensorSpec { name, dtype: DType::parse(&dtype).map_err(raise)?, shape }, Bytes::get(&bytes)?);
        let (ticket, keys) = py.detach(|| self.inner.shard(&spec, bytes.as_slice())).map_err(raise)?;
        Ok((Ticket(ticket), Shard(keys)))
    }

    fn condemned(&self, py: Python<'_>) -> PyResult<usize> {
        py.detach(|| self.inner.condemned()).map_err(raise)
    }

    /// Stages a checkpoint of shards that are durable.
    fn complete(&self, py: Python<'_>, step: i64, condemned: usize, parts: Vec<CompleteArgument>) -> PyResult<Ticket> {
        let parts = parts.into_iter().map(complete_part).collect::<PyResult<_>>()?;
        py.detach(|| self.inner.complete(step, condemned, parts)).map(Ticket).map_err(raise)
    }

    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        Ticket(self.inner.flush()).wait(py, None).map(drop)
    }

    #[pyo3(signature = (error=None))]
    fn close(&self, py: Python<'_>, error: Option<String>) -> PyResult<()> {
        py.detach(|| self.inner.close(error)).map_err(raise)
    }
}
