//! How a reader gets at the bytes of blocks, and how far it trusts them.

use lamina_format::{Error, Result};

/// Where bytes come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// Maps, but `Pread` where the file lies on another machine or cannot be mapped.
    #[default]
    Auto,
    /// Files mapped into memory. Whoever cuts one short kills the process.
    Mmap,
    /// One call for every stretch of bytes.
    Pread,
}

/// When a piece of a block is compared with its checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// When it is touched first.
    #[default]
    First,
    /// Whenever it is touched.
    Always,
    /// Never.
    Never,
}

/// How the blocks of a run are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Where bytes come from.
    pub io: Io,
    /// When they are checked.
    pub verify: Verify,
}

impl Access {
    /// What the words say that users give.
    pub fn parse(io: &str, verify: &str) -> Result<Self> {
        let io = match io {
            "auto" => Io::Auto,
            "mmap" => Io::Mmap,
            "pread" => Io::Pread,
            other => return Err(Error::schema(format!("io={other:?}")).hint("it is auto, mmap or pread")),
        };
        let verify = match verify {
            "first" => Verify::First,
            "always" => Verify::Always,
            "never" => Verify::Never,
            other => return Err(Error::schema(format!("verify={other:?}")).hint("it is first, always or never")),
        };
        Ok(Self { io, verify })
    }
}
