//! Makes a run of many durable points, quickly: the real writers on a file system that never syncs. The bytes are
//! those of a run that was synced at each point.
//!
//! `cargo run --release -p lamina-store --example durable_points -- RUN WRITERS POINTS`, POINTS a writer.

#[macro_use]
#[path = "../tests/common/delegate.rs"]
mod delegate;

use lamina_format::{ColumnType, DType, Result, Value};
use lamina_store::storage::{Files, Fs, FsFile, RealFs, Storage};
use lamina_store::writer::{ColumnInput, SiteInput, Values};
use lamina_store::{Writer, create};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

struct NoSync;

impl Fs for NoSync {
    real!(create_dir_all create_dir open rename link remove_file list exists);

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(Box::new(NoSyncFile(RealFs.create_new(path)?)))
    }
    fn open_direct(&self, _: &Path) -> io::Result<Box<dyn FsFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

struct NoSyncFile(Box<dyn FsFile>);

impl FsFile for NoSyncFile {
    inner!(0: length read_at write_at set_length);

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// 64 rows of a site of 8 numbers, with the columns step, example and source, durable each time.
fn write(storage: &Arc<dyn Storage>, points: i64) -> Result<()> {
    const ROWS: u64 = 64;
    let writer = Writer::open(Arc::clone(storage), None)?;
    let rows: Vec<u8> = (0..ROWS as u32 * 8).flat_map(|at| (at as f32).to_le_bytes()).collect();
    let examples: Vec<u8> = (0..ROWS as i64).flat_map(i64::to_le_bytes).collect();
    for step in 0..points {
        let site = SiteInput {
            name: "blocks.0.output",
            dtype: DType::F32,
            shape: vec![8],
            bytes: &rows,
            lent: None,
            codes: None,
        };
        let column = |name, kind, values| ColumnInput { name, kind, values, valid: None };
        let columns = [
            column("step", ColumnType::Int, Values::Constant(Value::Int(step))),
            column("example", ColumnType::Int, Values::Fixed(&examples)),
            column("source", ColumnType::Str, Values::Constant(Value::Str("train".to_owned()))),
        ];
        writer.append(storage.as_ref(), ROWS, &[site], &columns)?.wait(Duration::from_secs(60))?;
    }
    writer.close(None)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, writers, points] = arguments.as_slice() else { panic!("give RUN WRITERS POINTS") };
    let (writers, points): (usize, i64) = (writers.parse().expect("a number"), points.parse().expect("a number"));
    let storage: Arc<dyn Storage> = Arc::new(Files::on(Arc::new(NoSync), path));
    create(storage.as_ref(), "{}").expect("a new path");
    std::thread::scope(|scope| {
        (0..writers).for_each(|_| drop(scope.spawn(|| write(&storage, points).expect("a disk with room"))));
    });
}
