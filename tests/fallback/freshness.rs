//! Reads after a cluster time: a writer that names its write sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use mongodb::bson::{RawDocument, Timestamp, doc};
use mongodb::options::WriteConcern;
use mongodb::{Client, Collection};
use records::store::fallback::Mode;
use records::store::{
    ClusterTime, Freshness, GetResult, Kind, ListRequest, Options, Precision, Refusal, Result, Store,
};

use crate::cases;
use crate::servers::mongod::Mongod;
use crate::soak::disturb;
use crate::support::*;

cases! {
    a_writer_that_names_its_write_reads_it,
    a_writer_reads_its_write_in_lists_too,
    a_transaction_is_read_whole,
    a_transaction_that_does_not_fit_into_one_reply_is_read_whole,
    answers_of_mongodb_tell_their_time_once_there_is_a_change_stream,
    a_time_that_is_still_to_come_is_refused_and_is_no_failure_of_mongodb,
    a_server_alone_has_no_time,
    a_consumer_that_takes_its_time_ends_no_stream,
    a_call_that_mongodb_refuses_for_good_is_no_failure_of_mongodb,
}

/// Another client of the server.
pub struct Writer {
    client: Client,
    records: Collection<mongodb::bson::Document>,
}

pub fn cluster_time(time: Timestamp) -> ClusterTime {
    format!("{}.{}", time.time, time.increment).parse().expect("a time")
}

impl Writer {
    pub async fn new(server: &Mongod) -> Self {
        let client = Client::with_uri_str(server.url()).await.expect("a client");
        let records = client.database(DATABASE).collection("records");
        Self { client, records }
    }

    /// Sets the field `n` of the record `id`. Returns the time of the write.
    pub async fn set_n(&self, id: i32, n: i32) -> ClusterTime {
        let mut session = self.client.start_session().await.expect("a session");
        let set = self.records.update_one(doc! { "_id": id }, doc! { "$set": { "n": n } }).upsert(true);
        set.write_concern(WriteConcern::majority()).session(&mut session).await.expect("a write");
        cluster_time(session.operation_time().expect("a time"))
    }

    /// Sets the field `n` of many records, in one transaction.
    async fn set_all(&self, ids: std::ops::Range<i32>, n: i32) -> ClusterTime {
        let mut session = self.client.start_session().await.expect("a session");
        session.start_transaction().write_concern(WriteConcern::majority()).await.expect("a transaction");
        for id in ids {
            let set = self.records.update_one(doc! { "_id": id }, doc! { "$set": { "n": n } });
            set.session(&mut session).await.expect("a write");
        }
        session.commit_transaction().await.expect("a commit");
        cluster_time(session.operation_time().expect("a time"))
    }
}

fn after(time: ClusterTime) -> Freshness {
    Freshness { not_before: Some(time), ..Freshness::default() }
}

pub async fn get_after(store: &dyn Store, id: i32, time: ClusterTime) -> Result<GetResult> {
    store.get_fresh(&id.to_string().as_str().into(), &after(time)).await
}

async fn list_after(store: &dyn Store, time: ClusterTime, limit: Option<usize>) -> Vec<String> {
    let request = ListRequest { freshness: after(time), limit, ..ListRequest::default() };
    let list = store.list(request).await.expect("a list");
    assert!(list.as_of >= Some(time), "{:?}", list.as_of);
    list.rows.map_ok(|row| json_of(&row.document)).try_collect().await.expect("rows")
}

/// `TEST_WRITES` is the number of writes.
fn writes() -> i32 {
    number("TEST_WRITES").map_or(100, |number| number.try_into().expect("a number of writes"))
}

/// With a replica that answers first, with one that answers when MongoDB does not, and without.
async fn stores(server: &Mongod) -> [(&'static str, Arc<dyn Store>); 3] {
    let replica = over(&server.url(), settings(Mode::Replica)).await;
    let standby = over(&server.url(), settings(Mode::Standby)).await;
    ready(&*replica).await;
    ready(&*standby).await;
    [("replica", replica), ("standby", standby), ("mongodb", open_within(&server.url(), TIMEOUT).await)]
}

async fn a_writer_that_names_its_write_reads_it() {
    let server = filled_set().await;
    let writer = Writer::new(&server).await;
    for (name, store) in stores(&server).await {
        let (mut waits, mut from_replica) = (Vec::new(), 0);
        for n in 1..=writes() {
            let time = writer.set_n(n % 50, n).await;
            let asked = Instant::now();
            let found = get_after(&*store, n % 50, time).await.expect("an answer");
            waits.push(asked.elapsed());
            from_replica += i32::from(found.staleness.is_some());
            assert!(json(&found).contains(&format!(r#""n":{n}"#)), "{name}: {found:?} after {time}");
            assert!(found.as_of >= Some(time), "{name}: {found:?} after {time}");
            let absent = get_after(&*store, 1_000_000, time).await.expect("an answer");
            assert!(absent.document.is_none() && absent.as_of >= Some(time), "{name}: {absent:?}");
        }
        waits.sort_unstable();
        let (median, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
        eprintln!("{name}: median {median:?}, p99 {p99:?}; {from_replica} of {} from the replica", waits.len());
    }
}

async fn a_writer_reads_its_write_in_lists_too() {
    let server = filled_set().await;
    let writer = Writer::new(&server).await;
    for (name, store) in stores(&server).await {
        for n in 1..20 {
            let time = writer.set_n(0, n).await;
            let page = list_after(&*store, time, Some(1)).await;
            assert!(page.len() == 1 && page[0].contains(&format!(r#""n":{n}"#)), "{name}: {page:?}");
            let time = writer.set_n(99, n).await;
            let all = list_after(&*store, time, None).await;
            assert!(all.len() == 100 && all[99].contains(&format!(r#""n":{n}"#)), "{name}: {:?}", all[99]);
        }
    }
}

async fn a_transaction_is_read_whole() {
    let server = filled_set().await;
    let writer = Writer::new(&server).await;
    for (name, store) in stores(&server).await {
        for n in 1..10 {
            let time = writer.set_all(0..50, n).await;
            for row in &list_after(&*store, time, None).await[..50] {
                assert!(row.contains(&format!(r#""n":{n}"#)), "{name}: {row}");
            }
        }
    }
}

/// The event of the second write is nearly as large as a reply, so that the first one arrives alone.
async fn a_transaction_that_does_not_fit_into_one_reply_is_read_whole() {
    let server = filled_set().await;
    let writer = Writer::new(&server).await;
    let store = over(&server.url(), settings(Mode::Replica)).await;
    ready(&*store).await;
    let long = "x".repeat(16_777_000);
    for n in 1..6 {
        let mut session = writer.client.start_session().await.expect("a session");
        session.start_transaction().write_concern(WriteConcern::majority()).await.expect("a transaction");
        let small = writer.records.update_one(doc! { "_id": 1 }, doc! { "$set": { "n": n } });
        small.session(&mut session).await.expect("a write");
        let large = writer.records.replace_one(doc! { "_id": 2 }, doc! { "_id": 2, "n": n, "text": &long });
        large.session(&mut session).await.expect("a write");
        session.commit_transaction().await.expect("a commit");
        let time = cluster_time(session.operation_time().expect("a time"));
        for id in [1, 2] {
            let found = get_after(&*store, id, time).await.expect("an answer");
            let document = found.document.as_ref().expect("a record");
            let found = RawDocument::from_bytes(document.bson()).and_then(|document| document.get_i32("n"));
            assert_eq!(found.ok(), Some(n), "{id} is from before {time}");
        }
    }
}

async fn answers_of_mongodb_tell_their_time_once_there_is_a_change_stream() {
    let server = filled_set().await;
    let writer = Writer::new(&server).await;
    let [_, (_, store), (_, plain)] = stores(&server).await;
    let time = writer.set_n(1, 1).await;
    until("the time of the write", async || {
        let found = get(&*store, "1").await;
        found.staleness.is_none() && found.as_of >= Some(time)
    })
    .await;
    until("a list of MongoDB", async || {
        let list = store.list(ListRequest::default()).await.expect("a list");
        assert!(list.as_of >= Some(time), "{:?}", list.as_of);
        list.staleness.is_none()
    })
    .await;
    assert_eq!(get(&*plain, "1").await.as_of, None);
}

async fn a_time_that_is_still_to_come_is_refused_and_is_no_failure_of_mongodb() {
    let server = filled_set().await;
    let now = Writer::new(&server).await.set_n(1, 1).await;
    let ahead = ClusterTime::new(now.bits() + (3_600 << 32)).expect("a time");
    for (name, store) in stores(&server).await {
        let asked = Instant::now();
        let answers = futures::future::join_all((0..20).map(|_| get_after(&*store, 1, ahead))).await;
        for answer in answers {
            let error = answer.expect_err("nothing is so late");
            assert_eq!(error.refusal(), Some(Refusal::TooStale), "{name}: {}", error.report());
        }
        assert!(asked.elapsed() >= Duration::from_millis(250), "{name}: without a wait");
        let request = ListRequest { freshness: after(ahead), limit: Some(1), ..ListRequest::default() };
        let error = store.list(request).await.expect_err("nothing is so late");
        assert_eq!(error.refusal(), Some(Refusal::TooStale), "{name}: {}", error.report());
        // Readers without a bound still get the answers of MongoDB.
        until(name, async || get(&*store, "1").await.staleness.is_some() == (name == "replica")).await;
    }
}

async fn a_server_alone_has_no_time() {
    let server = filled().await;
    let time: ClusterTime = "1.1".parse().expect("a time");
    for (name, store) in stores(&server).await {
        assert_eq!(get(&*store, "1").await.as_of, None, "{name}");
        let error = get_after(&*store, 1, time).await.expect_err("no time");
        assert_eq!(error.rejection().map(|(parameter, _)| parameter), Some("Records-Not-Before"), "{name}: {error:?}");
        let error = store.list(ListRequest { freshness: after(time), ..ListRequest::default() }).await;
        assert_eq!(error.expect_err("no time").kind(), Kind::Invalid, "{name}");
    }
}

async fn a_consumer_that_takes_its_time_ends_no_stream() {
    let server = filled_set().await;
    // Far longer than a ping is blocked.
    let timeout = Duration::from_secs(2);
    let primary = open_with(&server.url(), Options { timeout, ..Options::default() }).await;
    let mut feed = primary.changes(None);
    feed.next().await.expect("a feed").expect("a batch");
    // The stream reads changes before the primary has answered, and has to wait with them.
    let slow = doc! { "failCommands": ["ping"], "blockConnection": true, "blockTimeMS": 300 };
    disturb(std::slice::from_ref(&server), "alwaysOn", slow).await;
    for _ in 0..3 {
        (0..20).for_each(|n| set_n(&server, 1, n));
        tokio::time::sleep(2 * timeout).await;
        for _ in 0..3 {
            feed.next().await.expect("a feed").expect("a batch");
        }
    }
}

async fn a_call_that_mongodb_refuses_for_good_is_no_failure_of_mongodb() {
    let server = filled_set().await;
    let store = over(&server.url(), settings(Mode::Standby)).await;
    ready(&*store).await;
    // Overflow: "BSONObj exceeds maximum nested object depth", for example. An exact count is an aggregation.
    let refusal = doc! { "failCommands": ["aggregate"], "errorCode": 15 };
    disturb(std::slice::from_ref(&server), "alwaysOn", refusal).await;
    for _ in 0..20 {
        let count = store.count(ListRequest::default(), Precision::Exact).await.expect("a count of the replica");
        assert!(count.is_some_and(|count| count.staleness.is_some()), "{count:?}");
    }
    assert!(get(&*store, "1").await.staleness.is_none(), "other readers get the replica's answers");
    disturb(std::slice::from_ref(&server), "off", doc! {}).await;
}
