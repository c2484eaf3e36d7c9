//! What can go wrong, and where.

use std::fmt;

/// The result of everything in the data layer.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of trouble it is. Each kind is one exception class in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A path holds no run, or already holds something else.
    NotARun,
    /// Written by a newer Lamina, or with a feature that this one does not know.
    Format,
    /// Bytes do not match their checksum, or a file is shorter than what was acknowledged.
    Damaged,
    /// Data contradict what was declared.
    Schema,
    /// A site, step or part that the run does not hold.
    NotFound,
    /// A position beyond the rows that there are.
    Outside,
    /// The file system refused.
    Storage,
    /// A writer that is closed or poisoned.
    Writer,
    /// A writer whose queue is full.
    QueueFull,
    /// A file that was reclaimed since the snapshot was opened.
    Expired,
}

/// An error with its place and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of trouble.
    pub kind: ErrorKind,
    /// What is wrong, in a sentence.
    pub message: String,
    /// The file, relative to the run's folder.
    pub file: Option<String>,
    /// The byte in that file where the trouble starts.
    pub offset: Option<u64>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), file: None, offset: None, hint: None }
    }

    /// Bytes that are not what was written.
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }

    /// Data that contradict what was declared.
    pub fn schema(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Schema, message)
    }

    /// Names the file.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Names the byte.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        // a record may name a place that no file reaches: the greatest offset stands for it
        self.offset = Some(offset.min(i64::MAX as u64));
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match (&self.file, self.offset) {
            (Some(file), Some(offset)) => write!(f, " [{file}, byte {offset}]")?,
            (Some(file), None) => write!(f, " [{file}]")?,
            _ => {}
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl std::error::Error for Error {}
