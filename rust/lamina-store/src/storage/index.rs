//! Indexes: files that are rebuilt when they are lost, and that are never seen in part.

use super::Blob;
use super::files::{Files, refused};
use super::stream::Stream;
use crate::clock;
use lamina_format::{Error, Result};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

impl Files {
    pub(super) fn draft_index(&self, name: &str) -> Result<Box<dyn Blob>> {
        let fail = |error: io::Error| refused(&error, "cannot create", name);
        self.add_folder("index").map_err(fail)?;
        let draft = self.root.join(format!("index/.{}", clock::unique()));
        let file = self.fs.create_new(&draft).map_err(fail)?;
        let stream = Stream::new(Arc::clone(&self.fs), draft.clone(), file);
        Ok(Box::new(DraftIndex { files: self.clone(), stream, draft: Some(draft), name: name.to_owned() }))
    }
}

/// An index under another name, until it is whole.
struct DraftIndex {
    files: Files,
    stream: Stream,
    /// None once it has its own name.
    draft: Option<PathBuf>,
    name: String,
}

impl DraftIndex {
    fn fail(&self, error: &io::Error) -> Error {
        refused(error, "cannot write", &self.name)
    }
}

impl Blob for DraftIndex {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.stream.write(offset, bytes).map_err(|error| self.fail(&error).at(offset))
    }

    fn flush(&mut self) -> Result<()> {
        self.stream.flush().map_err(|error| self.fail(&error))
    }

    fn sync(&mut self) -> Result<()> {
        self.stream.sync().map_err(|error| self.fail(&error))
    }

    fn finish(&mut self, length: u64) -> Result<()> {
        self.stream.finish(length).map_err(|error| self.fail(&error))?;
        if let Some(draft) = &self.draft {
            let renamed = self.files.fs.rename(draft, &self.files.root.join(&self.name));
            renamed.map_err(|error| self.fail(&error))?;
            self.draft = None;
        }
        self.files.sync_folder("index")
    }
}

impl Drop for DraftIndex {
    fn drop(&mut self) {
        if let Some(draft) = &self.draft {
            // what stays is a draft, which is garbage
            let _ = self.files.fs.remove_file(draft);
        }
    }
}
