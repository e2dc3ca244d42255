//! Lists over HTTP that are interrupted by an outage of MongoDB.

use std::time::Duration;

use futures::future::join_all;

use crate::api::{Server, try_request_at};
use crate::proxy::Proxy;
use crate::servers::mongod::Mongod;
use crate::{RECORDS, RECOVERY, fill, open};

const LIST: &str = "/api/v1/records";

/// The number of concurrent clients, each with its own proxy to MongoDB.
const CLIENTS: usize = 10;

/// The default number of lists that are cut; `OUTAGE_CUTS` overrides it.
const CUTS: usize = 100;

/// Returns the share of a list after which it is cut: the fractional part of a multiple of the golden ratio, which spreads evenly.
fn share(number: usize) -> f64 {
    (number as f64 * 0.618_033_988_749_895).fract()
}

/// A client sees each failure by the status, or by an incomplete body.
pub async fn a_list_that_is_cut_at_any_point_never_looks_whole() {
    let cuts = std::env::var("OUTAGE_CUTS").map_or(CUTS, |cuts| cuts.parse().expect("OUTAGE_CUTS is a number"));
    let (refused, cut) = cut_off(RECORDS, 300, cuts).await;
    assert!(refused > 0 && cut > 0, "{refused} were refused, {cut} were cut");
}

/// A small collection is read before the response begins, so that the status reports a failure.
pub async fn a_short_list_that_is_cut_at_any_point_is_refused() {
    assert_eq!(cut_off(1_000, 0, CUTS / 4).await, (CUTS / 4, 0));
}

/// Cuts lists of `records` records with a text of `text` bytes. Returns the number of failures that clients saw by the status,
/// and by the body.
async fn cut_off(records: i32, text: usize, cuts: usize) -> (usize, usize) {
    let server = Mongod::start().expect("a server");
    fill(&*open(&server.url()).await, records, text).await;
    let clients = (0..CLIENTS).map(|client| {
        let port = server.port();
        tokio::spawn(async move { cut_lists(port, (client..cuts).step_by(CLIENTS)).await })
    });
    let (mut refused, mut cut) = (0, 0);
    for client in join_all(clients).await {
        let (by_status, by_body) = client.expect("a client");
        (refused, cut) = (refused + by_status, cut + by_body);
    }
    println!("of {records} records {refused} lists were refused, {cut} were cut");
    assert_eq!(refused + cut, cuts);
    (refused, cut)
}

/// Cuts lists. Returns the number that failed by the status, and by the body.
async fn cut_lists(port: u16, numbers: impl Iterator<Item = usize>) -> (usize, usize) {
    let network = Proxy::to(port).await.expect("a port");
    let service = Server::over(open(&format!("mongodb://127.0.0.1:{}", network.port())).await).await;
    let whole = service.get(LIST).await;
    assert!(whole.status == 200 && whole.is_complete);
    let before = network.received();
    assert_eq!(service.get(LIST).await.body, whole.body);
    // The last tenth is left out, since the count includes the driver's other traffic.
    let bytes = (network.received() - before) as f64 * 0.9;
    let (mut refused, mut cut) = (0, 0);
    for number in numbers {
        network.reset_after((share(number) * bytes) as u64);
        match try_request_at(service.address, "GET", LIST, "").await {
            Some(answer) if answer.status == 503 => refused += 1,
            Some(answer) => {
                assert_eq!(answer.status, 200);
                assert!(!answer.is_complete, "a list that was cut looks complete, with {} bytes", answer.body.len());
                cut += 1;
            }
            // The connection was cut before the head of the response.
            None => cut += 1,
        }
        network.mend();
        tokio::time::timeout(RECOVERY, async {
            while service.get(LIST).await.body != whole.body {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect("lists are whole again");
    }
    (refused, cut)
}
