//! Backup and restore.

use std::process::{Command, Stdio};
use std::thread;

use crate::run::{self, ensure, podman};

/// A backup restores lost records byte for byte; an incomplete backup changes nothing. The options and indexes of the collection
/// stay.
pub fn comes_back(mongo: &str) -> Result<(), String> {
    let backup = || run::exact(Command::new("podman").args(["exec", mongo, "records-mongo-backup"]), Stdio::null());
    let restore = |lines: &str| {
        let mut command = Command::new("podman");
        command.args(["exec", "--interactive", mongo, "records-mongo-restore"]);
        // A file instead of a pipe, which could fill up while the program writes.
        let file = tempfile::NamedTempFile::new().and_then(|file| {
            std::fs::write(file.path(), lines)?;
            file.reopen()
        });
        run::fed(&mut command, file.map_err(|error| error.to_string())?.into())
    };
    let evaluate = |script: &str| {
        let script = format!(
            "const {{ administrator }} = require('/usr/local/share/records/common.js');
             const records = connect(administrator()).records; {script}"
        );
        podman(["exec", "-e", "HOME=/tmp", mongo, "mongosh", "--quiet", "--nodb", "--eval", &script])
    };
    let whole = backup()?;
    evaluate(
        "records.deleteOne({ _id: 'Fe' });
         records.insertOne({ _id: 'added', double: Double(5), long: Long('9007199254740993'), \
         regex: BSONRegExp('(?i)a', 'ix') });",
    )?;
    let changed = backup()?;
    for (types, text) in [
        ("a double", r#"{"$numberDouble":"5.0"}"#),
        ("a long", r#"{"$numberLong":"9007199254740993"}"#),
        ("an expression", r#"{"$regularExpression":{"pattern":"(?i)a","options":"ix"}}"#),
    ] {
        ensure(changed.contains(text), || format!("the backup does not say {types}:\n{changed}"))?;
    }
    let (line, _) = whole.match_indices("}\n").nth(50).ok_or("a backup of fifty lines or less")?;
    let twice = whole.repeat(2);
    for (bad, lines, reason) in [
        ("an empty file", "", "end is missing"),
        ("an array that was cut", r#"[{"_id":"whole"},{"_id":"#, "JSON"),
        ("one with a number for a record", r#"[{"_id":"whole"},5]"#, "record 2 of the backup is no JSON object"),
        ("one that was cut in a line", &whole[..=line], "middle of a line"),
        ("one that was cut between two lines", &whole[..line + 2], "end is missing"),
        ("two of them", &twice, "comes after its end"),
    ] {
        let said = restore(lines).err().ok_or_else(|| format!("of backups, {bad} was restored"))?;
        ensure(said.contains(reason), || format!("of backups, {bad}: {said}"))?;
    }
    ensure(backup()? == changed, || "a restore that failed changed something".to_owned())?;
    let left = evaluate("print(records.getDB().getCollectionNames().filter((name) => name.includes('restoring')))")?;
    ensure(left == "[]", || format!("restores that failed have left {left}"))?;
    restore(&whole)?;
    ensure(backup()? == whole, || "what was restored differs from the backup".to_owned())?;

    let numbered = |ids: std::ops::Range<u32>| {
        ids.map(|id| format!("{{\"_id\":{{\"$numberInt\":\"{id}\"}}}}\n")).collect::<String>() + "\n"
    };
    let both = [numbered(0..6_000), numbered(3_000..9_000)];
    let restored = thread::scope(|scope| {
        let begun = both.each_ref().map(|lines| scope.spawn(|| restore(lines)));
        begun.map(|restore| restore.join().unwrap_or_else(|_| Err("a restore panicked".to_owned())))
    });
    restored.into_iter().collect::<Result<Vec<_>, _>>()?;
    ensure(both.contains(&backup()?), || "two restores at once have left a mixture".to_owned())?;
    restore(&whole)?;

    // A validator that no document of the backup satisfies, a collation, and indexes with and without it.
    evaluate(
        "records.drop();
         const options = { collation: { locale: 'de', strength: 1 }, validator: { added: true } };
         records.getDB().createCollection('records', options);
         records.createIndex({ block: 1 }, { collation: { locale: 'simple' } });
         records.createIndex({ period: 1, _id: 1 }, { sparse: true });",
    )?;
    let shape = || {
        evaluate(
            "const [{ options }] = records.getDB().getCollectionInfos({ name: 'records' });
             print(EJSON.stringify([options, records.getIndexes()]))",
        )
    };
    let before = shape()?;
    ensure(before.matches(r#""locale":"de""#).count() == 3, || format!("a collation that was not taken: {before}"))?;
    restore(&whole)?;
    ensure(backup()? == whole, || "what was restored into a collection of another kind differs".to_owned())?;
    let after = shape()?;
    ensure(after == before, || format!("options and indexes were {before}, and are {after}"))?;

    let none = "\n";
    let healthy = || podman(["exec", mongo, "records-mongo-healthcheck"]).map(drop);
    restore(none)?;
    ensure(backup()? == none, || "a backup of nothing did not empty the collection".to_owned())?;
    healthy()?;
    evaluate("records.drop()")?;
    healthy()?;
    ensure(backup()? == none, || "a collection that is not there is no empty backup".to_owned())?;

    // Own data as lines and as an array: numbers keep their types.
    let (one, two) = (r#"{"_id":1,"double":5.0,"int":5}"#, r#"{"_id":2,"long":9007199254740993,"text":"[5.0]"}"#);
    let own = concat!(
        r#"{"_id":{"$numberInt":"1"},"double":{"$numberDouble":"5.0"},"int":{"$numberInt":"5"}}"#,
        "\n",
        r#"{"_id":{"$numberInt":"2"},"long":{"$numberLong":"9007199254740993"},"text":"[5.0]"}"#,
        "\n\n",
    );
    for lines in [format!("{one}\n{two}\n\n"), format!(" [\n {one},\n {two}\n]\n")] {
        restore(&lines)?;
        let found = backup()?;
        ensure(found == own, || format!("of\n{lines}\nthis was stored:\n{found}"))?;
    }
    restore(&whole)?;
    ensure(backup()? == whole, || "what was restored after a drop differs from the backup".to_owned())
}
