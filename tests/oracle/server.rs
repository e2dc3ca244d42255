//! The MongoDB server that serves as the test oracle.

use std::sync::atomic::{AtomicU32, Ordering};

use bson::{Document as Tree, RawDocumentBuf, doc};
use futures::TryStreamExt;
use mongodb::action::Find;
use mongodb::error::ErrorKind;
use mongodb::options::Hint;
use mongodb::{Client, Collection, Database};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use records::record::Document;
use tokio::runtime::Handle;

/// A server, with a database for one case.
pub struct Server {
    runtime: Handle,
    database: Database,
    /// The URL with the name of the database.
    pub url: String,
    /// The major version.
    pub version: u32,
    collections: AtomicU32,
}

impl Server {
    /// # Errors
    ///
    /// When the server of this URL does not answer.
    pub fn connect(runtime: Handle, url: String) -> Result<Self, mongodb::error::Error> {
        let (database, version) = runtime.block_on(async {
            let client = Client::with_uri_str(&url).await?;
            let database = client.default_database().expect("the URL names a database");
            let build = database.run_command(doc! { "buildInfo": 1 }).await?;
            let version = build.get_str("version").unwrap_or_default().split('.').next().and_then(|v| v.parse().ok());
            Ok::<_, mongodb::error::Error>((database, version.expect("a version")))
        })?;
        Ok(Self { runtime, database, url, version, collections: AtomicU32::new(0) })
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub fn collection(&self) -> Oracle<'_> {
        let name = format!("oracle_{}", self.collections.fetch_add(1, Ordering::Relaxed));
        Oracle { server: self, collection: self.database.collection(&name) }
    }

    /// Removes the database.
    pub fn clear(&self) {
        self.block_on(async { self.database.drop().await }).expect("the database is dropped");
    }
}

/// A collection.
pub struct Oracle<'a> {
    server: &'a Server,
    pub collection: Collection<RawDocumentBuf>,
}

impl Oracle<'_> {
    /// Replaces the content of the collection by `documents`.
    pub fn fill(&self, documents: &[Document]) {
        let raw = documents.iter().map(raw).collect::<Vec<_>>();
        self.server.block_on(async {
            self.collection.delete_many(doc! {}).await.expect("all are deleted");
            if !raw.is_empty() {
                self.collection.insert_many(raw).await.expect("all are inserted");
            }
        });
    }

    /// Replaces the content by those documents whose `_id` is new, and returns their indexes.
    pub fn fill_distinct(&self, documents: &[Document]) -> Vec<usize> {
        const DUPLICATE_KEY: i32 = 11_000;
        let inserted = self.server.block_on(async {
            self.collection.delete_many(doc! {}).await.expect("all are deleted");
            self.collection.insert_many(documents.iter().map(raw)).ordered(false).await
        });
        let refused: Vec<usize> = match inserted {
            Ok(_) => Vec::new(),
            Err(error) => match *error.kind {
                ErrorKind::InsertMany(error) if error.write_concern_error.is_none() => {
                    let errors = error.write_errors.unwrap_or_default();
                    assert!(errors.iter().all(|error| error.code == DUPLICATE_KEY), "{errors:?}");
                    errors.iter().map(|error| error.index).collect()
                }
                other => panic!("insert: {other}"),
            },
        };
        (0..documents.len()).filter(|index| !refused.contains(index)).collect()
    }

    /// Returns the documents that a find returns.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub fn find(&self, filter: Tree, sort: Tree, projection: Option<Tree>) -> mongodb::error::Result<Vec<Document>> {
        let find = self.collection.find(filter).sort(sort);
        self.all(match projection {
            Some(projection) => find.projection(projection),
            None => find,
        })
    }

    /// Runs [`find`](Self::find) without an index.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub fn scan(&self, filter: Tree, sort: Tree) -> mongodb::error::Result<Vec<Document>> {
        self.all(self.collection.find(filter).sort(sort).hint(Hint::Keys(doc! { "$natural": 1 })))
    }

    fn all(&self, find: Find<'_, RawDocumentBuf>) -> mongodb::error::Result<Vec<Document>> {
        self.server.block_on(async {
            let found: Vec<RawDocumentBuf> = find.await?.try_collect().await?;
            Ok(found.into_iter().map(|raw| Document::new(raw.into_bytes()).expect("BSON from the server")).collect())
        })
    }

    /// Returns the numeric `_id`s of the documents that a find returns.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub fn find_numbers(&self, filter: Tree, sort: Tree) -> mongodb::error::Result<Vec<i32>> {
        Ok(self.find(filter, sort, Some(doc! { "_id": 1 }))?.iter().map(number).collect())
    }
}

pub fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::from_bytes(document.bson().to_vec()).expect("a document is BSON")
}

/// Returns the number in the `_id` of a document.
pub fn number(document: &Document) -> i32 {
    raw(document).get_i32("_id").expect("a number as _id")
}

/// Runs `check` with `cases` values, or more if `PROPTEST_CASES` exceeds proptest's default of 256.
pub fn check<T: std::fmt::Debug>(cases: u32, strategy: &impl Strategy<Value = T>, check: impl Fn(T) -> TestCaseResult) {
    let config =
        Config { failure_persistence: None, max_shrink_time: 30_000, max_local_rejects: u32::MAX, ..Config::default() };
    let cases = (cases * config.cases / 256).max(1);
    if let Err(error) = TestRunner::new(Config { cases, ..config }).run(strategy, check) {
        panic!("{error}");
    }
}
