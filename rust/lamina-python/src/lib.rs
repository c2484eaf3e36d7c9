//! `lamina._core`: a thin Python face over the store. `_core.pyi` documents it.

mod arrow;
mod buffer;
mod coded;
mod codes;
mod committers;
mod errors;
mod feature_index;
mod hash;
mod hide;
mod input;
mod keeping;
mod mapped;
mod mask;
mod memory;
mod order;
mod shards;
mod site_rows;
mod snapshot;
mod squares;
mod stream;
mod ticket;
mod wide;
mod writer;

use errors::raise;
use lamina_store::storage::Files;
use pyo3::prelude::*;

#[pyfunction]
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[pyfunction]
fn syncs() -> u64 {
    lamina_store::storage::syncs()
}

#[pyfunction]
fn create(py: Python<'_>, path: &str, config: &str) -> PyResult<()> {
    py.detach(|| lamina_store::create(&Files::new(path), config)).map_err(raise)
}

/// Note a text, of a step if there is one.
#[pyfunction]
#[pyo3(signature = (path, text, step=None))]
fn note(py: Python<'_>, path: &str, text: &str, step: Option<i64>) -> PyResult<()> {
    py.detach(|| lamina_store::note::note(&Files::new(path), text, step)).map_err(raise)
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(version, module)?)?;
    module.add_function(wrap_pyfunction!(syncs, module)?)?;
    module.add_function(wrap_pyfunction!(create, module)?)?;
    module.add_function(wrap_pyfunction!(note, module)?)?;
    module.add("ATTACHED", lamina_format::record::ATTACHED)?;
    module.add_function(wrap_pyfunction!(hash::hash_buckets, module)?)?;
    module.add_function(wrap_pyfunction!(squares::sums_of_squares, module)?)?;
    module.add_function(wrap_pyfunction!(keeping::verify, module)?)?;
    module.add_function(wrap_pyfunction!(keeping::compact, module)?)?;
    module.add_function(wrap_pyfunction!(keeping::gc, module)?)?;
    module.add_function(wrap_pyfunction!(keeping::merge, module)?)?;
    module.add_class::<keeping::Progress>()?;
    module.add_function(wrap_pyfunction!(hide::rewind, module)?)?;
    module.add_function(wrap_pyfunction!(hide::delete, module)?)?;
    module.add_function(wrap_pyfunction!(hide::positions, module)?)?;
    module.add_function(wrap_pyfunction!(hide::discard, module)?)?;
    module.add_class::<stream::CheckpointStream>()?;
    module.add_function(wrap_pyfunction!(mask::where_true, module)?)?;
    module.add_function(wrap_pyfunction!(wide::column_zones, module)?)?;
    module.add_function(wrap_pyfunction!(wide::metadata_of, module)?)?;
    module.add_function(wrap_pyfunction!(wide::vectors_at, module)?)?;
    module.add_function(wrap_pyfunction!(wide::in_order_of_writing, module)?)?;
    module.add_function(wrap_pyfunction!(wide::hiding_groups, module)?)?;
    module.add_function(wrap_pyfunction!(wide::group_table, module)?)?;
    module.add_function(wrap_pyfunction!(codes::codes_at, module)?)?;
    module.add_function(wrap_pyfunction!(feature_index::feature_indexes, module)?)?;
    module.add_function(wrap_pyfunction!(feature_index::build_feature_index, module)?)?;
    module.add_function(wrap_pyfunction!(feature_index::check_feature_indexes, module)?)?;
    module.add_function(wrap_pyfunction!(feature_index::indexed_count, module)?)?;
    module.add_function(wrap_pyfunction!(feature_index::indexed_units, module)?)?;
    module.add_function(wrap_pyfunction!(feature_index::top_units, module)?)?;
    module.add_function(wrap_pyfunction!(feature_index::feature_stats, module)?)?;
    module.add_class::<mapped::Mapped>()?;
    module.add_class::<arrow::ArrowArray>()?;
    module.add_class::<coded::Coded>()?;
    module.add_class::<ticket::Ticket>()?;
    module.add_class::<writer::Writer>()?;
    module.add_class::<shards::Shard>()?;
    module.add_class::<memory::Memory>()?;
    module.add_class::<memory::Pool>()?;
    module.add_class::<order::Order>()?;
    module.add_class::<site_rows::SiteRows>()?;
    module.add_class::<snapshot::Snapshot>()
}
