//! Backup and restore, as README.md has them.

use std::process::{Command, Stdio};

use crate::run::{self, ensure, podman};

/// A backup brings back what was lost, to the byte; one that is not whole changes nothing.
pub fn comes_back(mongo: &str) -> Result<(), String> {
    let backup = || run::exact(Command::new("podman").args(["exec", mongo, "records-mongo-backup"]), Stdio::null());
    let restore = |lines: &str| {
        let mut command = Command::new("podman");
        command.args(["exec", "--interactive", mongo, "records-mongo-restore"]);
        // A file, and so no pipe that fills up while the program speaks.
        let file = tempfile::NamedTempFile::new().and_then(|file| {
            std::fs::write(file.path(), lines)?;
            file.reopen()
        });
        run::fed(&mut command, file.map_err(|error| error.to_string())?.into())
    };
    let whole = backup()?;
    let lose = r#"
        const { administrator } = require('/usr/local/share/records/common.js');
        const records = connect(administrator()).records;
        records.deleteOne({ _id: 'Fe' });
        records.insertOne({ _id: 'added', double: Double(5), long: Long('9007199254740993') });"#;
    podman(["exec", "-e", "HOME=/tmp", mongo, "mongosh", "--quiet", "--nodb", "--eval", lose])?;
    let changed = backup()?;
    for (types, text) in
        [("a double", r#"{"$numberDouble":"5.0"}"#), ("a long", r#"{"$numberLong":"9007199254740993"}"#)]
    {
        ensure(changed.contains(text), || format!("the backup does not say {types}:\n{changed}"))?;
    }
    let (line, _) = whole.match_indices("}\n").nth(50).ok_or("a backup of fifty lines or less")?;
    let twice = whole.repeat(2);
    for (bad, lines, reason) in [
        ("one that was cut in a line", &whole[..=line], "middle of a line"),
        ("one that was cut between two lines", &whole[..line + 2], "end is missing"),
        ("two of them", &twice, "comes after its end"),
    ] {
        let said = restore(lines).err().ok_or_else(|| format!("of backups, {bad} was restored"))?;
        ensure(said.contains(reason), || format!("of backups, {bad}: {said}"))?;
    }
    ensure(backup()? == changed, || "a restore that failed changed something".to_owned())?;
    restore(&whole)?;
    ensure(backup()? == whole, || "what was restored differs from the backup".to_owned())
}
