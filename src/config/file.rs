//! The file of settings that `--config` names: TOML, with the names of the flags as keys.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::{Arg, ArgAction, Command};
use toml::de::{DeTable, DeValue};

/// The settings in the file of `--config`; empty without such a file.
#[derive(Default)]
pub struct ConfigFile {
    path: PathBuf,
    settings: BTreeMap<String, Setting>,
}

struct Setting {
    line: usize,
    values: Vec<OsString>,
}

impl ConfigFile {
    /// Reads `path`, whose keys are flags of `command`.
    ///
    /// # Errors
    ///
    /// A text that names the file and the line, and what is valid there.
    pub fn read(path: &Path, command: &Command) -> Result<Self, String> {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
        let line_of =
            |offset: usize| text[..offset].lines().count().max(1) + usize::from(text[..offset].ends_with('\n'));
        let table = DeTable::parse(&text).map_err(|error| {
            let line = line_of(error.span().map_or(text.len(), |span| span.start));
            format!("{shown}:{line}: {}", error.message())
        })?;
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut settings = BTreeMap::new();
        for (key, value) in entries {
            let (line, key) = (line_of(key.span().start), key.get_ref().as_ref());
            let flags = || command.get_arguments().filter(|arg| arg.get_long() != Some("config"));
            let Some(arg) = flags().find(|arg| arg.get_long() == Some(key)) else {
                let keys: Vec<_> = flags().filter_map(Arg::get_long).collect();
                return Err(format!("{shown}:{line}: there is no setting `{key}`: use one of {}", keys.join(", ")));
            };
            let values = values(arg, value.get_ref()).ok_or_else(|| {
                let found = value.get_ref().type_str();
                format!("{shown}:{line}: `{key}` must be {}: it is of the type {found}", valid_type(arg))
            })?;
            check(arg, &values).map_err(|error| format!("{shown}:{line}: {error}"))?;
            settings.insert(arg.get_id().to_string(), Setting { line, values });
        }
        Ok(Self { path: path.to_owned(), settings })
    }

    /// Returns the values of the setting `id`.
    pub fn values(&self, id: &str) -> Option<&[OsString]> {
        self.settings.get(id).map(|setting| setting.values.as_slice())
    }

    /// Returns the file and the line of the setting `id`.
    pub fn place(&self, id: &str) -> Option<String> {
        self.settings.get(id).map(|setting| format!("{}:{}", self.path.display(), setting.line))
    }
}

/// Describes the type of the values that `arg` has in TOML, for messages and documents.
pub fn valid_type(arg: &Arg) -> &'static str {
    match value_name(arg) {
        _ if is_switch(arg) => "true or false",
        _ if arg.get_value_delimiter().is_some() => "an array of strings",
        "NUMBER" => "a number",
        "SIZE" => "a string or a number of bytes",
        _ => "a string",
    }
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

fn value_name(arg: &Arg) -> &str {
    arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name)
}

/// Returns `value` as the command line would have it, if it has a type that `arg` takes.
fn values(arg: &Arg, value: &DeValue<'_>) -> Option<Vec<OsString>> {
    let is_list = arg.get_value_delimiter().is_some();
    let text = match value {
        DeValue::Boolean(value) if is_switch(arg) => value.to_string(),
        DeValue::Integer(value) if ["NUMBER", "SIZE"].contains(&value_name(arg)) && value.radix() == 10 => {
            value.as_str().to_owned()
        }
        DeValue::String(value) if !is_list && !is_switch(arg) && value_name(arg) != "NUMBER" => value.to_string(),
        DeValue::Array(items) if is_list => {
            return items.iter().map(|item| item.get_ref().as_str().map(OsString::from)).collect();
        }
        _ => return None,
    };
    Some(vec![text.into()])
}

/// Checks `values` as those of a flag are checked.
fn check(arg: &Arg, values: &[OsString]) -> Result<(), String> {
    if is_switch(arg) {
        return Ok(());
    }
    let flag = format!("--{}", arg.get_long().unwrap_or_default());
    let typed = values.iter().map(|value| {
        let mut typed = OsString::from(format!("{flag}="));
        typed.push(value);
        typed
    });
    let command =
        Command::new("").no_binary_name(true).arg(arg.clone().env(Resettable::Reset).action(ArgAction::Append));
    command.try_get_matches_from(typed).map(drop).map_err(|error| {
        let text = error.to_string();
        text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default().to_owned()
    })
}
