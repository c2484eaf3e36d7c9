//! What sites and columns may be called, and the names of the files.

use crate::error::{Error, Result};

/// Column names with a fixed meaning; a site cannot have them.
pub const RESERVED: &[&str] =
    &["row", "step", "example", "position", "call", "micro", "source", "rank", "mask", "feature", "value"];

/// Reserved names that a column cannot have either: they are computed, or belong to sparse codes.
pub const COMPUTED: &[&str] = &["row", "mask", "feature", "value"];

const LONGEST: usize = 512;

fn checked(what: &str, name: &str) -> Result<()> {
    let bad = |why: &str| Err(Error::schema(format!("the {what} name {name:?} {why}")));
    if name.is_empty() {
        return bad("is empty");
    }
    if name.len() > LONGEST {
        return bad("is longer than 512 bytes");
    }
    if name.starts_with('.') || name.starts_with('/') {
        return bad("starts with a dot or a slash");
    }
    if name.chars().any(char::is_control) {
        return bad("has control characters");
    }
    Ok(())
}

/// Whether a site may be called so.
pub fn check_site(name: &str) -> Result<()> {
    checked("site", name)?;
    if RESERVED.contains(&name) {
        return Err(Error::schema(format!("the site name {name:?} is reserved for a metadata column"))
            .hint(format!("reserved are {}", RESERVED.join(", "))));
    }
    Ok(())
}

/// Whether a column may be called so.
pub fn check_column(name: &str) -> Result<()> {
    checked("column", name)?;
    if COMPUTED.contains(&name) {
        return Err(Error::schema(format!("the column name {name:?} is reserved"))
            .hint(format!("Lamina fills {} itself", COMPUTED.join(", "))));
    }
    Ok(())
}

/// The file of commit `n`: names count down, so that the newest comes first in a listing.
pub fn commit(n: u64) -> String {
    format!("commits/{:020}", u64::MAX - n)
}

/// The number in a commit's file name.
pub fn parse_commit(name: &str) -> Option<u64> {
    let n = u64::MAX - name.parse::<u64>().ok()?;
    (commit(n) == format!("commits/{name}")).then_some(n)
}

/// The log of a writer.
pub fn log(writer: u32, generation: u32) -> String {
    format!("logs/{writer:06}.{generation:04}")
}

/// The writer and generation in a log's file name.
pub fn parse_log(name: &str) -> Option<(u32, u32)> {
    let (writer, generation) = name.split_once('.')?;
    let (writer, generation) = (writer.parse().ok()?, generation.parse().ok()?);
    (log(writer, generation) == format!("logs/{name}")).then_some((writer, generation))
}

/// A segment of a writer.
pub fn segment(writer: u32, seq: u32) -> String {
    format!("segments/{writer:06}-{seq:06}.safetensors")
}

/// A pack of a writer.
pub fn pack(writer: u32, seq: u32) -> String {
    format!("chunks/{writer:06}-{seq:06}.pack")
}

/// What closes a writer to its owner, for good.
pub fn fence(writer: u32) -> String {
    format!("fences/{writer:06}")
}

/// How much of a fenced writer's log counts.
pub fn fence_end(writer: u32) -> String {
    format!("fences/{writer:06}.end")
}

/// The index by feature of the codes that a segment holds of a site.
pub fn feature_index(segment: &str, site: u32) -> Option<String> {
    let stem = segment.strip_prefix("segments/")?.strip_suffix(".safetensors")?;
    Some(format!("index/{stem}.{site}.features"))
}

/// The segment and the site in the name of an index.
pub fn parse_feature_index(name: &str) -> Option<(String, u32)> {
    let (stem, site) = name.strip_prefix("index/")?.strip_suffix(".features")?.rsplit_once('.')?;
    let (segment, site) = (format!("segments/{stem}.safetensors"), site.parse().ok()?);
    (feature_index(&segment, site)? == name && check_blob(&segment).is_ok()).then_some((segment, site))
}

/// The writer that a segment, a pack, or the index of a segment belongs to.
pub fn owner(blob: &str) -> Option<u32> {
    if let Some((segment, _)) = parse_feature_index(blob) {
        return owner(&segment);
    }
    let (writer, seq) = blob.split_once('/')?.1.split_once('.')?.0.split_once('-')?;
    let (writer, seq) = (writer.parse().ok()?, seq.parse().ok()?);
    [segment(writer, seq), pack(writer, seq)].iter().any(|name| name == blob).then_some(writer)
}

/// Refuses a file name in a record that would leave the run's folder.
pub fn check_blob(name: &str) -> Result<()> {
    let safe = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    match name.split_once('/') {
        Some(("segments" | "chunks", file)) if safe(file) => Ok(()),
        _ => Err(Error::damaged(format!("a record names the file {name:?}, which is none of a run's"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_names_sort_newest_first_and_come_back() {
        assert!(commit(10) < commit(9));
        for n in [0, 1, 7, u64::MAX] {
            assert_eq!(parse_commit(commit(n).strip_prefix("commits/").expect("folder")), Some(n));
        }
        assert_eq!(parse_commit(".tmp-1"), None);
        // a number that another name stands for: this would be taken for the newest commit of all
        assert_eq!(parse_commit("+0000000000000000000"), None);
    }

    #[test]
    fn segments_and_packs_name_their_writer() {
        assert_eq!(owner(&segment(12, 3)), Some(12));
        assert_eq!(owner(&pack(1_000_000, 0)), Some(1_000_000));
        for other in ["segments/12-3.safetensors", "segments/a.pack", "chunks/000001-000000.safetensors", "x"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn an_index_names_its_segment() {
        let name = feature_index(&segment(12, 3), 7).expect("a segment");
        assert_eq!((name.as_str(), owner(&name)), ("index/000012-000003.7.features", Some(12)));
        assert_eq!(parse_feature_index(&name), Some((segment(12, 3), 7)));
        for other in [
            "index/000012-000003.07.features",
            "index/000012-000003.+7.features",
            "index/.x.7.features",
            "index/a/b.7.features",
        ] {
            assert_eq!(parse_feature_index(other), None, "{other}");
        }
        assert_eq!(feature_index(&pack(1, 2), 0), None);
    }

    #[test]
    fn only_the_canonical_log_name_is_one() {
        assert_eq!(parse_log("000012.0003"), Some((12, 3)));
        assert_eq!(parse_log("12.3"), None);
        assert_eq!(parse_log("000012.0003.tmp"), None);
    }

    #[test]
    fn a_record_cannot_name_a_file_outside_the_run() {
        assert!(check_blob("segments/000000-000000.safetensors").is_ok());
        for hostile in
            ["../run.json", "/etc/passwd", "segments/../../x", "segments/", "logs/000000.0000", "segments/a/b"]
        {
            assert!(check_blob(hostile).is_err(), "{hostile}");
        }
    }

    #[test]
    fn reserved_names_are_refused() {
        assert!(check_site("step").is_err());
        assert!(check_column("row").is_err());
        assert!(check_column("step").is_ok());
        assert!(check_site("").is_err() && check_site(".meta").is_err() && check_site("a\nb").is_err());
    }
}
