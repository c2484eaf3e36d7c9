//! How a run comes to be.

use crate::clock;
use crate::storage::Storage;
use lamina_format::Result;
use lamina_format::commit::{self, Commit};
use lamina_format::record::{Create, Op};
use lamina_format::runfile::{RunFile, Source};

/// Creates a run whose configuration is `config`, the JSON text of an object.
pub fn create(storage: &dyn Storage, config: &str) -> Result<()> {
    create_from(storage, config, Vec::new())
}

/// Creates a run that takes up what others hold.
pub(crate) fn create_from(storage: &dyn Storage, config: &str, sources: Vec<Source>) -> Result<()> {
    let created = clock::now();
    let run_json = RunFile { id: clock::unique(), created, config: config.to_owned(), sources }.encode()?;
    let first = Commit {
        n: 0,
        parent: None,
        skipped: Vec::new(),
        writer: None,
        time: created,
        needs: Vec::new(),
        ops: vec![Op::Create(Create { run_json: run_json.clone() })],
    };
    storage.create(run_json.as_bytes(), &commit::encode(&first)?.0)
}
