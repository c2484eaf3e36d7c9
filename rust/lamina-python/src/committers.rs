//! Which logs this process writes: writers of one run that agree in their options share one.

use lamina_format::Result;
use lamina_format::runfile::RunFile;
use lamina_store::Writer;
use lamina_store::storage::Storage;
use lamina_store::writer::{Options, WeakWriter};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The run's folder, its id (another run may come to lie there), and the options.
type Key = (PathBuf, String, Options);

/// The log of one key; whoever opens it holds the lock, so that others wait and join.
type Slot = Arc<Mutex<Option<WeakWriter>>>;

/// The slots of the process with this id: a fork begins with none, and never touches a lock that it inherited.
struct Slots {
    process: u32,
    of: HashMap<Key, Slot>,
}

static SLOTS: Mutex<Option<Slots>> = Mutex::new(None);

/// The slot of a key. The lock is held for a moment, and with the GIL, so that no fork by Python can find it held.
fn slot(_: Python<'_>, key: Key) -> Slot {
    let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    let slots = match slots.take() {
        Some(own) if own.process == process => slots.insert(own),
        inherited => {
            // its locks may be held by threads that are not here
            std::mem::forget(inherited);
            slots.insert(Slots { process, of: HashMap::new() })
        }
    };
    slots.of.retain(|known, slot| {
        let idle = Arc::strong_count(slot) == 1;
        *known == key || !idle || slot.try_lock().is_ok_and(|slot| slot.as_ref().is_some_and(WeakWriter::is_open))
    });
    Arc::clone(slots.of.entry(key).or_default())
}

/// A writer on the log that this process has open for the run and the options, or on a new one.
pub fn writer(py: Python<'_>, path: &str, storage: &Arc<dyn Storage>, options: Options) -> Result<Writer> {
    let (folder, run) = py.detach(|| {
        let folder = std::fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
        let run = RunFile::decode(&storage.run_json()?).map_err(|error| error.in_file("run.json"))?;
        Ok((folder, run.id))
    })?;
    let slot = slot(py, (folder, run, options.clone()));
    py.detach(|| {
        let mut known = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = known.as_ref().and_then(WeakWriter::join) {
            return Ok(writer);
        }
        let writer = Writer::open_with(Arc::clone(storage), options)?;
        *known = Some(writer.downgrade());
        Ok(writer)
    })
}
