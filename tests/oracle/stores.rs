//! Lists and pages: every store, through the trait, compared with a find that scans the collection.

use std::sync::Arc;

use bson::{Bson, Document as Tree, doc};
use futures::TryStreamExt;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use records::query::Cursor;
use records::record::Document;
use records::store::{self, Backend, BackendKind, Kind, ListRequest, MemoryPool, Opened, Options, Store, page};
use tempfile::TempDir;

use crate::documents::{self, contains, stored};
use crate::matching::{self, Parameter};
use crate::projection::projection;
use crate::server::{Oracle, Server, check};
use crate::sorting::{SortFields, flat_sort_fields, sort, sort_fields};
use crate::values::{self, is_id, path};

/// A request of a client.
#[derive(Clone, Debug)]
struct Request {
    filter: Vec<Parameter>,
    sort: SortFields,
    fields: Vec<Vec<&'static str>>,
    limit: usize,
    /// True if MongoDB has an index for the order.
    is_indexed: bool,
}

fn request(sort: impl Strategy<Value = SortFields>) -> impl Strategy<Value = Request> {
    let filter = option::weighted(0.4, matching::parameters()).prop_map(Option::unwrap_or_default);
    let sort = option::weighted(0.8, sort).prop_map(Option::unwrap_or_default);
    let fields = option::weighted(0.3, vec(path(), 1..4)).prop_map(Option::unwrap_or_default);
    (filter, sort, fields, 1..8_usize, any::<bool>()).prop_map(|(filter, sort, fields, limit, is_indexed)| Request {
        filter,
        sort,
        fields,
        limit,
        is_indexed,
    })
}

/// Generates documents and requests: of any kind, or with many equal values and an order that an index can serve.
fn documents_and_requests() -> impl Strategy<Value = (Vec<Document>, Vec<Request>)> {
    let any = (documents(values::fields_of_a_document()), vec(request(sort_fields()), 1..6));
    let flat = (documents(values::flat_fields()), vec(request(flat_sort_fields()), 1..6));
    prop_oneof![any, flat]
}

/// Generates documents with distinct ids of every type.
fn documents(fields: impl Strategy<Value = Tree>) -> impl Strategy<Value = Vec<Document>> {
    let is_pointer = |value: &Bson| contains(value, &|value| matches!(value, Bson::DbPointer(_)));
    let other = documents::id().prop_filter("a DBPointer of any namespace", move |id| !is_pointer(id));
    let id = prop_oneof![values::value().prop_filter("no _id", is_id), other];
    vec((id, fields), 1..24).prop_map(|documents| {
        let mut distinct: Vec<Document> = Vec::new();
        for (id, fields) in documents {
            let mut tree = doc! { "_id": id };
            tree.extend(fields);
            let document = stored(&tree);
            if !distinct.iter().any(|other| other.key() == document.key()) {
                distinct.push(document);
            }
        }
        distinct
    })
}

/// A store, and the collection to compare with: the store's own, if it is in MongoDB.
struct Subject<'a> {
    server: &'a Server,
    oracle: Oracle<'a>,
    opened: Opened,
    store: Arc<dyn Store>,
    documents: Vec<Document>,
    _directory: TempDir,
}

impl<'a> Subject<'a> {
    fn open(server: &'a Server, backend: &Backend) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let oracle = server.collection();
        let url = match backend.kind {
            BackendKind::InMemory => format!("{}:", backend.name),
            BackendKind::Local => format!("{}:{}", backend.name, directory.path().join("store").display()),
            BackendKind::Remote => server.url.clone(),
        };
        let options = Options { collection: oracle.collection.name().to_owned(), ..Options::default() };
        let opened = server.block_on(store::open(&url, options)).expect("a store");
        let store = opened.clone().into_store();
        Self { server, oracle, opened, store, documents: Vec::new(), _directory: directory }
    }

    fn fill(&mut self, documents: Vec<Document>) {
        // Fails if the collection does not exist yet.
        self.server.block_on(async { self.oracle.collection.drop_indexes().await }).ok();
        match &self.opened {
            Opened::Embedded(store) => {
                for document in &self.documents {
                    store.remove(document.key()).expect("a document is removed");
                }
                self.oracle.fill(&documents);
            }
            Opened::Remote(_) => self.oracle.fill(&[]),
        }
        self.server.block_on(self.store.upsert(documents.clone())).expect("the documents are stored");
        self.documents = documents;
    }

    /// Creates an index for the order. The server refuses if two of its fields are arrays in one document.
    fn index(&self, sort: &Tree) {
        self.server.block_on(async {
            let index = mongodb::IndexModel::builder().keys(sort.clone()).build();
            self.oracle.collection.create_index(index).await.ok();
        });
    }
}

pub fn lists_are_those_of_a_find(server: &Server, backend: &Backend) {
    let subject = std::cell::RefCell::new(Subject::open(server, backend));
    check(64, &documents_and_requests(), |(documents, requests)| {
        let mut subject = subject.borrow_mut();
        subject.fill(documents);
        requests.iter().try_for_each(|request| compare(&subject, request))
    });
}

fn compare(subject: &Subject<'_>, request: &Request) -> Result<(), TestCaseError> {
    let has_undefined =
        |document: &Document| contains(&values::tree(document).into(), &|value| *value == Bson::Undefined);
    // Before MongoDB 8.0, null also matches undefined.
    let is_skipped = subject.server.version < 8 && matching::tests_null(&request.filter);
    if is_skipped && subject.documents.iter().any(has_undefined) {
        return Ok(());
    }
    let (order, sort) = sort(&request.sort);
    if request.is_indexed {
        subject.index(&sort);
    }
    let projection = (!request.fields.is_empty()).then(|| projection(&request.fields).0);
    // The test projects by the product, which `projection.rs` checks: the server sorts some documents wrongly after a projection.
    let project = |document: Document| match &projection {
        Some(projection) => projection.apply(&document).expect("BSON"),
        None => document,
    };
    let ask = ListRequest {
        filter: matching::filter(&matching::query(&request.filter)),
        sort: order,
        projection: projection.clone(),
        ..ListRequest::default()
    };
    let filter = if request.filter.is_empty() {
        doc! {}
    } else {
        matching::translated(&request.filter)
    };
    let found = subject.oracle.scan(filter, sort);
    let found = found.map(|found| found.into_iter().map(project).collect::<Vec<_>>());
    let pages = subject.server.block_on(all_pages(&*subject.store, &ask, request.limit));
    match (found, pages) {
        (Ok(found), Ok(pages)) => {
            let full = pages.iter().rev().skip(1).all(|page| page.len() == request.limit);
            prop_assert!(full && pages.iter().all(|page| page.len() <= request.limit), "{:?}", pages);
            prop_assert_eq!(pages.concat(), found.clone(), "pages of {:?}", request);
            if request.sort.is_empty() {
                let all = subject
                    .server
                    .block_on(async { subject.store.list(ask).await?.rows.try_collect::<Vec<_>>().await });
                let all: Vec<Document> = all.expect("a list").into_iter().map(|row| row.document).collect();
                prop_assert_eq!(all, found, "the list of {:?}", request);
            }
        }
        (Err(_), Err(error)) => {
            prop_assert_eq!(error.kind(), Kind::Invalid, "{}", error.report());
            prop_assert!(error.rejection().is_some_and(|(parameter, _)| parameter == "sort"), "{}", error.report());
        }
        (found, pages) => prop_assert!(false, "{:?}: the server: {:?}, the store: {:?}", request, found, pages),
    }
    Ok(())
}

/// Reads all pages. Each cursor passes through its text.
async fn all_pages(store: &dyn Store, ask: &ListRequest, limit: usize) -> store::Result<Vec<Vec<Document>>> {
    let pool = MemoryPool::new(64 * 1024 * 1024);
    let mut pages = Vec::new();
    let mut ask = ask.clone();
    loop {
        let page = page(store, &ask, limit, &mut pool.reservation()).await?;
        assert!(page.staleness.is_none(), "the store itself answers");
        pages.push(page.documents);
        let Some(next) = page.next else { return Ok(pages) };
        let after = Cursor::decode(&next.encode(&ask.sort), &ask.sort);
        assert_eq!(after.as_ref(), Some(&next), "a cursor comes back from its text");
        ask.after = after;
    }
}
