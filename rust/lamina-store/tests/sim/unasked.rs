//! What makes rows durable that nobody waits for: rows, bytes and seconds, each alone.

use super::disk::Survives;
use super::fs::{Lies, SimFs};
use lamina_format::DType;
use lamina_format::record::TensorSpec;
use lamina_store::reader::Opening;
use lamina_store::storage::{Files, Storage};
use lamina_store::writer::{Durability, Options, PartInput, SiteInput, State};
use lamina_store::{Snapshot, Ticket, Writer, create};
use std::sync::Arc;
use std::time::{Duration, Instant};

const RUN: &str = "/data/runs/run";
const WIDTH: usize = 64;
const NEVER: Durability = Durability { rows: None, bytes: None, every: None };

/// A writer on a simulated disk, and the rows that it was given.
struct Planted {
    fs: SimFs,
    writer: Writer,
    rows: u8,
}

impl Planted {
    fn new(durable: Durability, lies: Lies) -> Self {
        let fs = SimFs::new().lying(lies);
        let storage = storage(&fs);
        create(storage.as_ref(), "{}").unwrap();
        let writer = Writer::open_with(storage, Options { durable, ..Options::default() }).unwrap();
        Self { fs, writer, rows: 0 }
    }

    /// Appends rows, each of which holds its number.
    fn append(&mut self, rows: u8) -> Ticket {
        let bytes: Vec<u8> = (self.rows..self.rows + rows).flat_map(|row| [row; WIDTH]).collect();
        self.rows += rows;
        let site = SiteInput {
            name: "x",
            dtype: DType::U8,
            shape: vec![WIDTH as u64],
            bytes: &bytes,
            lent: None,
            codes: None,
        };
        self.writer.append(storage(&self.fs).as_ref(), u64::from(rows), &[site], &[]).unwrap()
    }

    fn save(&self, bytes: usize) -> Ticket {
        let spec = TensorSpec { name: "w".to_owned(), dtype: DType::U8, shape: vec![bytes as u64] };
        let tensors = vec![(spec, [7; 1 << 12][..bytes].into())];
        self.writer.save(1, &[PartInput { name: "model", tree: "{}", scalars: "[]", tensors }]).unwrap()
    }

    /// The rows that are there after a power cut that nothing survives but what was synced; each is checked.
    fn left(&self) -> u8 {
        let (mut disk, trace) = self.fs.history();
        trace.iter().for_each(|event| disk.apply(event));
        let fs = SimFs::on(disk.cut(Survives::Nothing));
        let Ok(snapshot) = Snapshot::open(storage(&fs), Opening::default()) else { return 0 };
        let Ok(site) = snapshot.site("x") else { return 0 };
        let mut found = Vec::new();
        for (group, info) in snapshot.groups().iter().enumerate() {
            let mut out = vec![0; info.rows as usize * WIDTH];
            snapshot.read(group, site, &mut out).unwrap();
            found.extend(out);
        }
        let rows = (found.len() / WIDTH) as u8;
        assert_eq!(found, (0..rows).flat_map(|row| [row; WIDTH]).collect::<Vec<_>>());
        rows
    }
}

fn storage(fs: &SimFs) -> Arc<dyn Storage> {
    Arc::new(Files::on(Arc::new(fs.clone()), RUN))
}

/// Waits without asking: to ask for the state asks for no durable point.
fn until_durable(ticket: &Ticket) {
    let start = Instant::now();
    while ticket.state() != State::Durable {
        assert!(start.elapsed() < Duration::from_secs(20), "it is {:?} still", ticket.state());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Nothing becomes durable while the writer's thread has time to.
fn stays_staged(ticket: &Ticket) {
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(ticket.state(), State::Staged);
}

/// Ten rows reach the limit, nine do not, twice over.
fn the_tenth_row_makes_them_durable(durable: Durability) {
    let mut planted = Planted::new(durable, Lies::default());
    for round in 0..2 {
        let nine = planted.append(9);
        stays_staged(&nine);
        assert_eq!(planted.left(), 10 * round);
        let tenth = planted.append(1);
        until_durable(&tenth);
        assert_eq!((nine.state(), planted.left()), (State::Durable, 10 * round + 10));
    }
}

#[test]
fn so_many_rows_become_durable_unasked() {
    the_tenth_row_makes_them_durable(Durability { rows: Some(10), ..NEVER });
}

#[test]
fn so_many_bytes_become_durable_unasked() {
    the_tenth_row_makes_them_durable(Durability { bytes: Some(10 * WIDTH as u64), ..NEVER });
}

#[test]
fn bytes_of_checkpoints_count_too() {
    let mut planted = Planted::new(Durability { bytes: Some(1000), ..NEVER }, Lies::default());
    let rows = planted.append(9);
    stays_staged(&rows);
    until_durable(&planted.save(1000 - 9 * WIDTH));
    assert_eq!(planted.left(), 9);
}

#[test]
fn what_is_so_old_becomes_durable_unasked_also_while_more_comes() {
    let every = Duration::from_millis(60);
    let mut planted = Planted::new(Durability { every: Some(every), ..NEVER }, Lies::default());
    let (first, start) = (planted.append(1), Instant::now());
    assert_eq!((first.state(), planted.left()), (State::Staged, 0));
    // were it the age of the youngest, it would never be reached
    while first.state() != State::Durable {
        assert!(start.elapsed() < Duration::from_secs(20), "it is {:?} still", first.state());
        if planted.rows < 250 {
            planted.append(1);
        }
        std::thread::sleep(every / 12);
    }
    assert!(planted.left() >= 1);
    let last = planted.append(1);
    until_durable(&last);
    assert_eq!(planted.left(), planted.rows);
}

#[test]
fn without_a_limit_nothing_is_durable_before_somebody_asks() {
    let mut planted = Planted::new(NEVER, Lies::default());
    let ticket = planted.append(200);
    stays_staged(&ticket);
    assert_eq!(planted.left(), 0);
    assert!(ticket.wait(Duration::from_secs(20)).unwrap());
    assert_eq!(planted.left(), 200);
}

#[test]
fn syncs_that_do_nothing_would_be_noticed() {
    let lies = Lies { of_files: true, of_folders: false };
    let mut planted = Planted::new(Durability { rows: Some(10), ..NEVER }, lies);
    until_durable(&planted.append(10));
    assert_eq!(planted.left(), 0);
}
