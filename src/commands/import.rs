//! `records import`.

use std::io::{self, Write};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use records::config::{self, Import};
use records::document::reader::InvalidDocument;
use records::import::{self, ImportOptions, Input, Progress};
use records::store::Opened;

use super::{CliError, Outcome, open, print, run_logged};

/// The exit status when documents were stored and others skipped.
const SKIPPED: u8 = 3;

/// The cache of a store on the disk. Small: an import reads nothing again.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

pub fn run(settings: Import) -> Outcome {
    let log = settings.log.clone();
    run_logged(&log, None, config::processors(), |runtime, _| runtime.block_on(import(settings)))
}

async fn import(mut settings: Import) -> Outcome {
    let name = settings.file.as_ref().map_or("standard input".into(), |file| file.display().to_string());
    let input =
        Input::open(settings.file.as_deref()).map_err(|error| CliError::new(format!("cannot read {name}: {error}")))?;
    settings.store.options.cache_bytes = CACHE_BYTES;
    let store = open(&settings.store).await?;
    if let Opened::Embedded(store) = &store {
        match import::seed(&**store, None).await {
            // The import goes on, but does not complete the seed: the store still lacks a part of it.
            Err(part @ import::Error::Part(_)) => tracing::warn!("{part}"),
            seeded => drop(seeded?),
        }
    }
    let store = store.into_store();
    let options = ImportOptions { skip_invalid: settings.skip_invalid, require_id: settings.require_id };
    let imported = import::run(&*store, input, options, Bar::default()).await;
    // The driver's tasks panic if the runtime ends while they talk to a server.
    store.close().await;
    let summary = imported.map_err(|error| match error {
        import::Error::Invalid(..) => CliError::new(format!("{name}: {error}, or leave them out by --skip-invalid")),
        error => CliError::new(format!("{name}: {error}")),
    })?;
    let url = settings.store.url;
    let text = format!("{} documents stored in {url}, {} skipped", summary.stored, summary.skipped);
    print(format!("{text}\n").as_bytes()).map_err(|error| CliError::new(format!("{text}; but {}", error.text)))?;
    Ok(if summary.skipped > 0 { ExitCode::from(SKIPPED) } else { ExitCode::SUCCESS })
}

/// Shows progress on a terminal, and invalid documents everywhere.
struct Bar(ProgressBar);

impl Default for Bar {
    fn default() -> Self {
        Self(ProgressBar::hidden())
    }
}

impl Progress for Bar {
    fn bad(&mut self, bad: &InvalidDocument) {
        // Standard error may be closed.
        let _ = self.0.suspend(|| writeln!(io::stderr(), "{bad}"));
    }

    fn begin(&mut self, doing: &'static str, bytes: Option<u64>) {
        self.0 = ProgressBar::new(0);
        self.0.set_message(doing);
        let template = match bytes {
            Some(bytes) => {
                self.0.set_length(bytes);
                "{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left"
            }
            None => "{msg} {spinner} {bytes}, {bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
    }

    fn at(&mut self, bytes: u64) {
        self.0.set_position(bytes);
    }

    fn end(&mut self) {
        self.0.finish_and_clear();
    }
}
