//! The how-to guides for Compose: their commands, run in order by the images of this test.

use std::path::Path;
use std::process::Command;

use crate::images::{MONGO, RECORDS};
use crate::markdown::{self, Kind};
use crate::run::{Finally, ROOT, ensure, output, unique};
use crate::{Outcome, http};

const GUIDES: &[&str] = &["compose", "back-up-and-restore", "rotate-passwords", "your-own-data"];

/// The files that the guides expect from their readers.
const FILES: &[(&str, &str)] =
    &[("mine.jsonl", "{\"_id\":1}\n"), ("mine.json", "[{\"_id\":1},{\"_id\":2}]\n"), ("more.jsonl", "{\"_id\":3}\n")];

/// The time in seconds after which a command is ended. Some of them wait for something in a loop.
const LIMIT: &str = "600";

pub fn guides() -> Outcome {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).map_err(|error| error.to_string());
    write(
        "podman-compose.yml",
        &std::fs::read_to_string(Path::new(ROOT).join("podman-compose.yml")).unwrap_or_default(),
    )?;
    write(".curlrc", "silent\n")?;
    FILES.iter().try_for_each(|(name, text)| write(name, text))?;
    let (project, port) = (unique("records-guides"), http::free_port()?);
    let bash = |options: &str, script: &str| {
        let mut command = Command::new("timeout");
        command.args([LIMIT, "bash", "-c", &format!("exec 2>&1\nset {options}\n{script}")]).current_dir(folder.path());
        command.env("COMPOSE_PROJECT_NAME", &project).env("CURL_HOME", folder.path());
        command.env("RECORDS_IMAGE", RECORDS).env("RECORDS_MONGO_IMAGE", MONGO);
        output(command.env("RECORDS_PUBLISH", format!("127.0.0.1:{port}")))
    };
    let script = |script: &str| bash("-eo pipefail", script);
    // Without `pipefail`: `grep -q` ends at its first match, which is no failure of the command before it.
    let console = |command: &str| bash("-e", command);
    let _down = Finally(|| drop(script("podman-compose down --volumes")));
    let readme = markdown::read("README.md")?;
    let mut count = 0;
    for guide in GUIDES {
        let text = markdown::read(&format!("docs/how-to/{guide}.md"))?;
        let blocks = markdown::blocks(&text, "compose");
        ensure(!blocks.is_empty(), || format!("{guide} has no commands that are run"))?;
        for block in blocks {
            ensure(count > 0 || readme.contains(&block.code), || {
                format!("README.md starts otherwise:\n{}", block.code)
            })?;
            count += 1;
            // Replaces the port, which another run may use.
            let code = block.code.replace(":8080", &format!(":{port}"));
            let code = code
                .replace("records_records", &format!("{project}_records"))
                .replace("localhost/records ", &format!("{RECORDS} "));
            match block.kind {
                Kind::Console => markdown::check(&code, console),
                _ => script(&code).map(drop),
            }
            .map_err(|error| format!("{guide}: {error}"))?;
        }
    }
    Ok(format!("{count} blocks of commands"))
}
