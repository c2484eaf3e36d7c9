//! Notes: what somebody says of a run, to whoever opens it later. A commit holds each, so that any number of processes may note
//! at once, and what hides records hides none.

use crate::storage::Storage;
use crate::{chain, clock};
use lamina_format::record::{Note, Op};
use lamina_format::{Error, Result};

/// Most bytes of a note: several go into one commit when runs are merged.
pub const LONGEST: usize = 1 << 20;

/// Notes a text, of a step if there is one; it is durable when this returns.
pub fn note(storage: &dyn Storage, text: &str, step: Option<i64>) -> Result<()> {
    if text.len() > LONGEST {
        let message = format!("a note of {} bytes (at most {LONGEST})", text.len());
        return Err(Error::schema(message).hint("attach it: run.attach(name, text)"));
    }
    let note = Note { text: text.to_owned(), time: clock::now(), step };
    chain::publish(storage, None, |_, _| Ok(vec![Op::Note(note.clone())])).map(drop)
}
