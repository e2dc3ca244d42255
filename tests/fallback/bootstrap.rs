//! A replica that is taken from another instance or from a file, rather than by a scan of MongoDB.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::cases;
use crate::process::Service;
use crate::servers::mongod::{Mongod, element, free_port, text};
use crate::support::*;

cases! {
    started_while_mongodb_is_away_it_answers_from_a_sibling_and_then_follows,
    started_while_mongodb_is_away_it_answers_from_a_file_and_then_follows,
    instances_that_start_together_cost_mongodb_one_scan,
    a_collection_that_is_replaced_costs_many_instances_one_scan,
    a_stream_that_is_truncated_or_damaged_or_of_another_collection_is_refused_whole,
    a_replica_of_a_collection_that_was_replaced_is_refused,
    a_replica_of_a_collection_that_was_replaced_is_dropped_when_mongodb_is_back,
    the_age_of_a_file_is_never_too_low,
    a_file_is_whole_at_every_moment,
    a_saved_replica_is_imported_into_mongodb,
    an_instance_without_a_replica_answers_503,
    a_source_that_sends_nothing_is_left_for_the_next,
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The documents that a server has sent since it started.
const DOCUMENTS_SENT: &[&str] = &["document", "returned"];

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];

/// An instance with a complete replica of `server`.
async fn complete(directory: &TempDir, server: &Mongod) -> Service {
    let service = Service::with(directory, &server.url(), &ADMIN);
    until("a whole replica", async || is_ready(&service)).await;
    service
}

fn is_ready(service: &Service) -> bool {
    service.admin("/readyz").1 == br#"{"status":"ready"}"#
}

fn replica_of(service: &Service) -> Vec<u8> {
    let (head, body) = service.admin("/replica");
    assert!(head.contains(" 200 ") && head.contains("\r\ncontent-type: application/bson\r\n"), "{head}");
    body
}

fn metric(service: &Service, name: &str) -> u64 {
    let text = String::from_utf8(service.admin("/metrics").1).expect("UTF-8");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("records_fallback_replica_{name}_total ")));
    line.unwrap_or_else(|| panic!("no metric {name}: {text}")).parse().expect("a number")
}

fn age(head: &str) -> u64 {
    let age = head.lines().find_map(|line| line.strip_prefix("age: "));
    age.unwrap_or_else(|| panic!("no age: {head}")).trim().parse().expect("a number")
}

async fn answers_with_mongodb_away(service: &Service) {
    until("an answer", async || service.status("/api/v1/records/1") == 200).await;
    let (head, body) = service.get("/api/v1/records");
    assert_eq!(body.matches("\"_id\":").count(), 100);
    assert!(head.contains("\r\nrecords-as-of: "), "{head}");
    age(&head);
    assert_eq!(service.status("/api/v1/records/nobody"), 204);
    let (head, body) = service.admin("/readyz");
    let body = String::from_utf8(body).expect("UTF-8");
    assert!(head.contains(" 200 ") && body.contains("MongoDB is unreachable; the fallback replica from"), "{body}");
}

/// `service` has a replica from elsewhere, which lacks what happens from now on.
async fn follows_without_a_scan(service: &Service, server: &mut Mongod) {
    server.run().expect("a server");
    until("a primary", async || server.is_primary().unwrap_or(false)).await;
    set_n(server, 1, 7);
    delete(server, 2);
    until("a replica that is updated", async || is_ready(service)).await;
    server.kill();
    let has_changes =
        async || service.get("/api/v1/records/1").1.contains(r#""n":7"#) && service.status("/api/v1/records/2") == 204;
    until("the changes", has_changes).await;
    assert_eq!((metric(service, "snapshots"), metric(service, "bootstraps")), (0, 1));
}

async fn started_while_mongodb_is_away_it_answers_from_a_sibling_and_then_follows() {
    let (mut server, directory) = (filled_set().await, directory());
    let sibling = complete(&directory, &server).await;
    server.kill();
    let from = format!("http://{}", sibling.admin.expect("an address"));
    let service = Service::with(&directory, &server.url(), &[&ADMIN[..], &["--fallback-from", &from]].concat());
    answers_with_mongodb_away(&service).await;
    follows_without_a_scan(&service, &mut server).await;
}

async fn started_while_mongodb_is_away_it_answers_from_a_file_and_then_follows() {
    let (mut server, directory) = (filled_set().await, directory());
    let file = directory.path().join("replica.bson");
    let file = file.to_str().expect("UTF-8");
    let save = ["--fallback-save", file, "--fallback-from", file];
    let service = Service::with(&directory, &server.url(), &[&ADMIN[..], &save].concat());
    until("a file", async || Path::new(file).exists()).await;
    service.kill();
    server.kill();
    let service = Service::with(&directory, &server.url(), &[&ADMIN[..], &save].concat());
    answers_with_mongodb_away(&service).await;
    follows_without_a_scan(&service, &mut server).await;
}

/// Instances that know each other, and themselves, by one list.
fn together(directory: &TempDir, server: &Mongod, instances: usize) -> Vec<Service> {
    let addresses: Vec<_> = (0..instances).map(|_| unused_address()).collect();
    let from = addresses.iter().map(|address| format!("http://{address}")).collect::<Vec<_>>().join(",");
    let start = |address: &SocketAddr| {
        let address = address.to_string();
        Service::with(directory, &server.url(), &["--admin-listen", &address, "--fallback-from", &from])
    };
    addresses.iter().map(start).collect()
}

/// Returns an address that no other test takes before it is used: on Linux, all of 127.0.0.0/8 is this machine.
fn unused_address() -> SocketAddr {
    let host = match cfg!(target_os = "linux") {
        true => Ipv4Addr::new(127, fastrand::u8(1..), fastrand::u8(..), fastrand::u8(1..255)),
        false => Ipv4Addr::LOCALHOST,
    };
    (host, free_port().expect("a port")).into()
}

async fn all_ready(services: &[Service]) {
    for service in services {
        until("a whole replica", async || is_ready(service)).await;
    }
}

async fn instances_that_start_together_cost_mongodb_one_scan() {
    let (mut server, directory) = (filled_set().await, directory());
    insert(&server, "records", &(100..5_000).map(|id| integer("_id", id)).collect::<Vec<_>>());
    let before = server.metric(DOCUMENTS_SENT);
    let services = together(&directory, &server, 5);
    all_ready(&services).await;
    let sent = server.metric(DOCUMENTS_SENT) - before;
    let logs = || services.iter().map(Service::log).collect::<Vec<_>>().join("\n");
    assert!((5_000..10_000).contains(&sent), "{sent} documents were sent:\n{}", logs());
    let total = |name| services.iter().map(|service| metric(service, name)).sum::<u64>();
    assert_eq!((total("snapshots"), total("bootstraps")), (1, 4));
    server.kill();
    for service in &services {
        let (head, body) = service.get("/api/v1/records");
        assert_eq!(body.matches("\"_id\":").count(), 5_000, "{head}");
    }
}

async fn a_collection_that_is_replaced_costs_many_instances_one_scan() {
    let (mut server, directory) = (filled_set().await, directory());
    let services = together(&directory, &server, 5);
    all_ready(&services).await;
    let new: Vec<_> = (0..5_000).map(|id| integer("_id", id + 10_000)).collect();
    insert(&server, "others", &new);
    let before = server.metric(DOCUMENTS_SENT);
    // In one step: an instance that saw the time without a collection would begin a scan of it, and then another.
    let name = |collection: &str| text(&format!("{DATABASE}.{collection}"));
    let rename = [element(0x02, "renameCollection", &name("others")), element(0x02, "to", &name("records"))].concat();
    server.command("admin", &[rename, element(0x08, "dropTarget", &[1])].concat()).expect("a reply");
    let has_new = |service: &Service| {
        let text = String::from_utf8(service.admin("/metrics").1).expect("UTF-8");
        text.contains("\nrecords_fallback_replica_records 5000.0\n")
    };
    for service in &services {
        until("the new records", async || has_new(service) && is_ready(service)).await;
    }
    let sent = server.metric(DOCUMENTS_SENT) - before;
    eprintln!("{sent} documents were sent to five instances, of a collection of 5000");
    assert!((5_000..10_000).contains(&sent), "{sent}");
    server.kill();
    for service in &services {
        assert_eq!(service.status("/api/v1/records/10000"), 200);
        assert_eq!(service.status("/api/v1/records/1"), 204);
    }
}

/// The ends of the documents of a stream.
fn ends(stream: &[u8]) -> Vec<usize> {
    let mut ends = vec![];
    while let Some(length) = stream.get(ends.last().copied().unwrap_or(0)..).and_then(|rest| rest.first_chunk()) {
        ends.push(ends.last().unwrap_or(&0) + u32::from_le_bytes(*length) as usize);
    }
    assert_eq!(ends.last(), Some(&stream.len()));
    ends
}

async fn a_stream_that_is_truncated_or_damaged_or_of_another_collection_is_refused_whole() {
    let (mut server, directory) = (filled_set().await, directory());
    let good = replica_of(&complete(&directory, &server).await);
    server.kill();
    let ends = ends(&good);
    // A header, the records, a trailer.
    assert_eq!(ends.len(), 102);
    let without = |from: usize, to: usize| [&good[..from], &good[to..]].concat();
    let cut = |length: usize| good[..length].to_vec();
    let flipped = |at: usize| {
        let mut stream = good.clone();
        stream[at] ^= 0x40;
        stream
    };
    let after =
        |name: &str| good.windows(name.len()).rposition(|part| part == name.as_bytes()).expect(name) + name.len();
    let cases = [
        ("without a byte", cut(0), "truncated"),
        ("within the header", cut(ends[0] / 2), "truncated"),
        ("after the header", cut(ends[0]), "truncated"),
        ("within a record", cut(ends[50] - 7), "truncated"),
        ("after a record", cut(ends[50]), "truncated"),
        ("before the trailer", cut(ends[100]), "truncated"),
        ("without the last byte", cut(good.len() - 1), "truncated"),
        ("without a record", without(ends[50], ends[51]), "checksum"),
        ("with a record twice", [&good[..ends[51]], &good[ends[50]..]].concat(), "not in order"),
        ("without records", without(ends[0], ends[100]), "checksum"),
        ("with another age", flipped(after("\x12age\0")), "checksum"),
        ("with a damaged record", flipped(ends[50] - 10), "checksum"),
        ("with a length that cannot be", flipped(ends[50] + 3), "damaged"),
        ("with a damaged token", flipped(after("\x05token\0") + 30), "checksum"),
        ("with a damaged checksum", flipped(good.len() - 5), "checksum"),
        ("with more after the end", [&good[..], &good[..]].concat(), "goes on after its end"),
        ("in another format", flipped(after("\x10replica\0")), "another version"),
        ("no BSON", b"{\"replica\": 1}".to_vec(), "no replica"),
        ("not of records", good[ends[0]..].to_vec(), "no replica"),
    ];
    // Each service waits for MongoDB until a time-out, so a few of them run at the same time.
    let runtime = Handle::current();
    for some in cases.chunks(5) {
        thread::scope(|scope| {
            for (name, stream, why) in some {
                let file = directory.path().join(name.replace(' ', "-"));
                fs::write(&file, stream).expect("a file");
                let (directory, server, runtime) = (&directory, &server, &runtime);
                scope.spawn(move || {
                    let from = ["--fallback-from", file.to_str().expect("UTF-8")];
                    runtime.block_on(refused(directory, server, &[&ADMIN[..], &from].concat(), name, why));
                });
            }
        });
    }
    let file = directory.path().join("replica.bson");
    let from = ["--fallback-from", file.to_str().expect("UTF-8")];
    fs::write(&file, &good).expect("a file");
    for (arguments, why) in [
        (["--collection", "others"], "another store or collection"),
        (["--fallback-size-limit", "10KB"], "larger than --fallback-size-limit"),
    ] {
        refused(&directory, &server, &[&ADMIN[..], &from, &arguments].concat(), arguments[0], why).await;
    }
    // The file is good.
    answers_with_mongodb_away(&Service::with(&directory, &server.url(), &[&ADMIN[..], &from].concat())).await;
}

async fn refused(directory: &TempDir, server: &Mongod, arguments: &[&str], name: &str, why: &str) {
    let service = Service::with(directory, &server.url(), arguments);
    until(name, async || service.logged(" is refused: ")).await;
    let log = service.log();
    let reason = log.split(" is refused: ").nth(1).expect("a reason");
    assert!(log.contains("WARN") && reason.contains(why), "{name}: {log}");
    assert_eq!(service.status("/api/v1/records/1"), 503, "{name}");
    assert!(service.admin("/readyz").0.contains(" 503 "), "{name}");
}

/// A file with a replica of the records, which are replaced by others since.
async fn file_of_replaced(directory: &TempDir, server: &Mongod) -> String {
    let stream = replica_of(&complete(directory, server).await);
    let file = directory.path().join("replica.bson");
    fs::write(&file, stream).expect("a file");
    drop_collection(server);
    insert(server, "records", &[integer("_id", 1_000)]);
    file.to_str().expect("UTF-8").to_owned()
}

async fn has_the_new_records(service: &Service, server: &mut Mongod) {
    until("a whole replica", async || is_ready(service)).await;
    assert_eq!((service.status("/api/v1/records/1000"), service.status("/api/v1/records/1")), (200, 204));
    server.kill();
    assert_eq!((service.status("/api/v1/records/1000"), service.status("/api/v1/records/1")), (200, 204));
}

const REPLACED: &str = "the collection was created, dropped or replaced since";

async fn a_replica_of_a_collection_that_was_replaced_is_refused() {
    let (mut server, directory) = (filled_set().await, directory());
    let file = file_of_replaced(&directory, &server).await;
    let service = Service::with(&directory, &server.url(), &[&ADMIN[..], &["--fallback-from", &file]].concat());
    until("a warning", async || service.logged(&format!("is refused: {REPLACED}"))).await;
    has_the_new_records(&service, &mut server).await;
    assert_eq!((metric(&service, "snapshots"), metric(&service, "bootstraps")), (1, 0));
}

async fn a_replica_of_a_collection_that_was_replaced_is_dropped_when_mongodb_is_back() {
    let (mut server, directory) = (filled_set().await, directory());
    let file = file_of_replaced(&directory, &server).await;
    server.command("admin", &integer("fsync", 1)).expect("a reply");
    server.kill();
    let service = Service::with(&directory, &server.url(), &[&ADMIN[..], &["--fallback-from", &file]].concat());
    answers_with_mongodb_away(&service).await;
    server.run().expect("a server");
    until("a warning", async || service.logged(&format!("is dropped: {REPLACED}"))).await;
    has_the_new_records(&service, &mut server).await;
}

async fn the_age_of_a_file_is_never_too_low() {
    let (mut server, directory) = (filled_set().await, directory());
    let stream = replica_of(&complete(&directory, &server).await);
    server.kill();
    let path = directory.path().join("replica.bson");
    let hour = Duration::from_secs(3_600);
    // Written as it says, then by a file system whose clock says otherwise.
    let earlier = (SystemTime::now() - hour, 3_600..4_000);
    let later = (SystemTime::now() + hour, 1 << 31..u64::MAX);
    for (modified, expected) in [earlier, later] {
        fs::write(&path, &stream).expect("a file");
        File::options().append(true).open(&path).expect("a file").set_modified(modified).expect("a time");
        let from = ["--fallback-from", path.to_str().expect("UTF-8")];
        let service = Service::with(&directory, &server.url(), &[&ADMIN[..], &from].concat());
        answers_with_mongodb_away(&service).await;
        let told = age(&service.get("/api/v1/records/1").0);
        assert!(expected.contains(&told), "{told} is not in {expected:?}");
    }
}

async fn a_file_is_whole_at_every_moment() {
    let (server, directory) = (filled_set().await, directory());
    let path = directory.path().join("replica.bson");
    let file = path.to_str().expect("UTF-8");
    let save = ["--fallback-save", file, "--fallback-save-interval", "10ms"];
    let service = Service::with(&directory, &server.url(), &[&ADMIN[..], &save].concat());
    until("a file", async || path.exists()).await;
    let begin = metric(&service, "saves");
    let mut read = 0;
    while read < 100 || metric(&service, "saves") < begin + 20 {
        assert_eq!(ends(&fs::read(&path).expect("a file")).len(), 102);
        read += 1;
    }
    set_n(&server, 1, 123_456);
    let value = integer("n", 123_456);
    let has_change = async || fs::read(&path).expect("a file").windows(value.len()).any(|part| part == value);
    until("the change in the file", has_change).await;
    // The file may be replaced at a later start.
    drop(service);
    let service = Service::with(&directory, &server.url(), &[&ADMIN[..], &save].concat());
    until("a save", async || metric(&service, "saves") > 0).await;
}

async fn a_saved_replica_is_imported_into_mongodb() {
    let (server, directory) = (filled_set().await, directory());
    let service = complete(&directory, &server).await;
    let path = directory.path().join("replica.bson");
    fs::write(&path, replica_of(&service)).expect("a file");
    let (host, query) =
        server.url().split_once("/?").map(|(host, query)| (host.to_owned(), query.to_owned())).expect("a URL");
    let store = format!("{host}/{DATABASE}?{query}");
    let import = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
        command.args(["import", path.to_str().expect("UTF-8"), "--store", &store, "--collection", "restored"]);
        let output = command.output().expect("it runs");
        (output.status.success(), [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8")))
    };
    let (succeeded, [said, errors]) = import();
    assert!(succeeded && said.starts_with("100 documents stored"), "{said}{errors}");
    let restored = Service::with(&directory, &server.url(), &["--collection", "restored"]);
    assert_eq!(restored.get("/api/v1/records").1, service.get("/api/v1/records").1);
    // Damaged on the way: nothing is stored.
    let mut bytes = fs::read(&path).expect("a file");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&path, bytes).expect("a file");
    let (succeeded, [_, errors]) = import();
    assert!(
        !succeeded && errors.contains("the fallback replica is corrupted") && errors.contains("othing was stored"),
        "{errors}"
    );
}

async fn an_instance_without_a_replica_answers_503() {
    let (server, directory) = (Mongod::stopped().expect("a server"), directory());
    let service = Service::with(&directory, &server.url(), &ADMIN);
    let (head, body) = service.admin("/replica");
    assert!(head.contains(" 503 ") && head.contains("\r\nretry-after: "), "{head}");
    assert!(String::from_utf8(body).expect("UTF-8").contains("no complete fallback replica"));
    assert_eq!(service.status("/replica"), 404);
}

async fn a_source_that_sends_nothing_is_left_for_the_next() {
    let (mut server, directory) = (filled_set().await, directory());
    let sibling = complete(&directory, &server).await;
    server.kill();
    // Takes connections, and does not answer.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let from = [silent.local_addr().expect("an address"), sibling.admin.expect("an address")];
    let from = from.map(|address| format!("http://{address}")).join(",");
    let service = Service::with(&directory, &server.url(), &[&ADMIN[..], &["--fallback-from", &from]].concat());
    answers_with_mongodb_away(&service).await;
}
