//! `run.json`: what the run is. JSON whose last member is the BLAKE3 of every byte before it.

use crate::checksum::hash;
use crate::commit::check_needs;
use crate::error::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json, value::RawValue};
use std::collections::HashMap;

/// The version of the format that this implementation writes and reads.
pub const VERSION: u64 = 1;
const SEAL: &str = "\"blake3\": \"";

/// What `run.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct RunFile {
    /// 32 hexadecimal digits that tell this run from every other.
    pub id: String,
    /// Microseconds since the epoch.
    pub created: i64,
    /// The user's configuration, as JSON text of an object.
    pub config: String,
    /// The runs that it was copied or merged from; none for a run that was recorded.
    pub sources: Vec<Source>,
}

/// A run whose rows stand in another one too.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Its id.
    pub id: String,
    /// What its folder was called.
    pub name: String,
    /// When it was created, in microseconds since the epoch.
    pub created: i64,
    /// Its configuration, as JSON text of an object.
    pub config: String,
    /// What was added to the ordinals of its writers, and so, times 2^40, to the names of its rows.
    pub shift: u32,
}

impl Source {
    fn encode(&self) -> String {
        let (id, name, created, shift) = (json!(self.id), json!(self.name), self.created, self.shift);
        let config = &self.config;
        format!("{{\"id\": {id}, \"name\": {name}, \"created\": {created}, \"shift\": {shift}, \"config\": {config}}}")
    }

    fn decode(fields: &HashMap<String, &RawValue>) -> serde_json::Result<Self> {
        let field = |name: &str| fields.get(name).map_or("null", |raw| raw.get());
        serde_json::from_str::<Map<String, Value>>(field("config"))?;
        Ok(Self {
            id: serde_json::from_str(field("id"))?,
            name: serde_json::from_str(field("name"))?,
            created: serde_json::from_str(field("created"))?,
            config: field("config").to_owned(),
            shift: serde_json::from_str(field("shift"))?,
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether it lies between the years 1970 and 9999.
pub fn possible_time(microseconds: i64) -> bool {
    (0..253_402_300_800_000_000).contains(&microseconds)
}

impl RunFile {
    /// The file's text.
    pub fn encode(&self) -> Result<String> {
        serde_json::from_str::<Map<String, Value>>(&self.config)
            .map_err(|error| Error::schema(format!("the config is not a JSON object: {error}")))?;
        let mut text = String::from("{\n");
        for (key, value) in [
            ("format", json!("lamina")),
            ("version", json!(VERSION)),
            ("needs", json!([])),
            ("id", json!(self.id)),
            ("created", json!(self.created)),
        ] {
            text += &format!("\"{key}\": {value},\n");
        }
        if !self.sources.is_empty() {
            let sources: Vec<String> = self.sources.iter().map(Source::encode).collect();
            text += &format!("\"sources\": [{}],\n", sources.join(", "));
        }
        text += &format!("\"config\": {},\n", self.config);
        let sum = hex(&hash(text.as_bytes()));
        Ok(format!("{text}{SEAL}{sum}\"}}\n"))
    }

    /// Reads the text back. A newer format is told apart from damage.
    pub fn decode(text: &[u8]) -> Result<Self> {
        let not_a_run = |why: &str| Error::new(ErrorKind::NotARun, format!("not the description of a run: {why}"));
        let text = std::str::from_utf8(text).map_err(|_| Error::damaged("the description of the run is not text"))?;
        let cut = text.rfind(SEAL).ok_or_else(|| not_a_run("it has no checksum"))?;
        if text[cut..] != format!("{SEAL}{}\"}}\n", hex(&hash(&text.as_bytes()[..cut]))) {
            return Err(Error::damaged("the description of the run does not match its checksum"));
        }
        let fields: HashMap<String, &RawValue> =
            serde_json::from_str(text).map_err(|error| not_a_run(&error.to_string()))?;
        let field =
            |name: &str| fields.get(name).map(|raw| raw.get()).ok_or_else(|| not_a_run(&format!("no {name:?}")));
        let broken = |error: serde_json::Error| not_a_run(&error.to_string());
        if field("format")? != "\"lamina\"" {
            return Err(not_a_run("its format is another"));
        }
        let version: u64 = serde_json::from_str(field("version")?).map_err(broken)?;
        if version > VERSION {
            return Err(Error::new(
                ErrorKind::Format,
                format!("the run has format {version}, this Lamina reads {VERSION}"),
            )
            .hint("update Lamina"));
        }
        check_needs(&serde_json::from_str::<Vec<String>>(field("needs")?).map_err(broken)?)?;
        let sources = fields.get("sources").map_or("[]", |raw| raw.get());
        let sources: Vec<HashMap<String, &RawValue>> = serde_json::from_str(sources).map_err(broken)?;
        let run = Self {
            id: serde_json::from_str(field("id")?).map_err(broken)?,
            created: serde_json::from_str(field("created")?).map_err(broken)?,
            config: field("config")?.to_owned(),
            sources: sources.iter().map(Source::decode).collect::<serde_json::Result<_>>().map_err(broken)?,
        };
        serde_json::from_str::<Map<String, Value>>(&run.config).map_err(broken)?;
        let possible = |id: &str, created: i64| {
            id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && possible_time(created)
        };
        let sources_possible = run.sources.iter().all(|source| possible(&source.id, source.created));
        if !possible(&run.id, run.created) || !sources_possible {
            return Err(Error::damaged("the description of the run has an impossible id or time"));
        }
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> RunFile {
        let config = r#"{"lr": 1e-3, "blake3": "\"blake3\": \""}"#.to_owned();
        RunFile { id: "ab".repeat(16), created: 5, config, sources: vec![] }
    }

    #[test]
    fn what_it_was_merged_from_comes_back() {
        let source = |shift| Source {
            id: "cd".repeat(16),
            name: format!("größe \"{shift}\""),
            created: 7,
            config: r#"{"lr": 1e-3,"sources": []}"#.to_owned(),
            shift,
        };
        let merged = RunFile { sources: vec![source(0), source(12)], ..example() };
        let text = merged.encode().expect("valid");
        serde_json::from_str::<Value>(&text).expect("JSON");
        assert_eq!(RunFile::decode(text.as_bytes()), Ok(merged));
        assert!(!example().encode().expect("valid").contains("sources"));
    }

    #[test]
    fn it_is_json_and_comes_back_with_the_config_as_written() {
        let text = example().encode().expect("valid");
        serde_json::from_str::<Value>(&text).expect("JSON");
        assert_eq!(RunFile::decode(text.as_bytes()), Ok(example()));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let text = example().encode().expect("valid");
        for at in 0..text.len() {
            let mut flipped = text.clone().into_bytes();
            flipped[at] ^= 1;
            assert!(RunFile::decode(&flipped).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_newer_format_and_an_unknown_need_are_named() {
        let reseal = |text: &str| {
            let cut = text.rfind(SEAL).expect("sealed");
            format!("{}{SEAL}{}\"}}\n", &text[..cut], hex(&hash(&text.as_bytes()[..cut])))
        };
        let text = example().encode().expect("valid");
        let newer = reseal(&text.replace("\"version\": 1", "\"version\": 9"));
        let error = RunFile::decode(newer.as_bytes()).expect_err("newer");
        assert_eq!(error.kind, ErrorKind::Format);
        assert!(error.message.contains('9'));
        let needy = reseal(&text.replace("\"needs\": []", "\"needs\": [\"teleport\"]"));
        assert!(RunFile::decode(needy.as_bytes()).expect_err("unknown").message.contains("teleport"));
    }

    #[test]
    fn a_config_that_is_no_object_is_refused() {
        assert!(RunFile { config: "[1]".to_owned(), ..example() }.encode().is_err());
    }
}
