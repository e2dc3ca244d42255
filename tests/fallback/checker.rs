//! Checks answers against the writes that MongoDB has acknowledged.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use records::store::ClusterTime;

use crate::cases;

cases! { every_kind_of_violation_is_found, }

/// The time for which a deposed primary may still answer as the primary.
const OLD_PRIMARY: Duration = Duration::from_secs(15);

/// An acknowledged write of a number, which is greater than the numbers before it.
struct Write {
    acknowledged: Instant,
    time: ClusterTime,
    n: i64,
}

/// The writes to one record, by one writer.
#[derive(Default)]
struct Writes {
    /// The greatest number that may have arrived.
    tried: i64,
    done: Vec<Write>,
}

impl Writes {
    /// Returns the least number that a state with the writes that fulfil `is_contained` may show.
    fn least(&self, is_contained: impl Fn(&Write) -> bool) -> i64 {
        self.done.iter().rev().find(|write| is_contained(write)).map_or(0, |write| write.n)
    }
}

pub struct Ledger(Vec<Mutex<Writes>>);

impl Ledger {
    pub fn new(records: usize) -> Self {
        Self((0..records).map(|_| Mutex::default()).collect())
    }

    fn writes(&self, id: usize) -> std::sync::MutexGuard<'_, Writes> {
        self.0[id].lock().expect("a ledger")
    }

    /// Notes that a write begins.
    pub fn try_write(&self, id: usize, n: i64) {
        self.writes(id).tried = n;
    }

    pub fn acknowledge(&self, id: usize, n: i64, time: ClusterTime) {
        self.writes(id).done.push(Write { acknowledged: Instant::now(), time, n });
    }

    /// The time of the last acknowledged write to a record.
    pub fn last_time(&self, id: usize) -> Option<ClusterTime> {
        self.writes(id).done.last().map(|write| write.time)
    }
}

/// The bounds of a request.
#[derive(Clone, Copy, Default)]
pub struct Bounds {
    pub cache_control: &'static str,
    /// The greatest age of an answer of the replica, also where MongoDB has failed. `None`: any.
    pub max_age: Option<u64>,
    pub only_replica: bool,
    pub not_before: Option<ClusterTime>,
}

impl Bounds {
    pub fn headers(&self) -> String {
        let directives = match self.cache_control {
            "" => String::new(),
            directives => format!("cache-control: {directives}\r\n"),
        };
        let token = self.not_before.map(|time| format!("records-not-before: {time}\r\n"));
        directives + &token.unwrap_or_default()
    }

    fn is_none(&self) -> bool {
        self.cache_control.is_empty() && self.not_before.is_none()
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// The age of an answer of the replica.
    pub age: Option<u64>,
    pub as_of: Option<ClusterTime>,
    pub may_retry: bool,
    /// The ids and numbers of the records.
    pub rows: Vec<(usize, i64)>,
}

impl Answer {
    /// Reads the head of a response in lower case and its body.
    pub fn read(status: u16, head: &str, body: &str) -> Self {
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let json = serde_json::from_str(body).unwrap_or(serde_json::Value::Null);
        let rows = match (status, json) {
            (200, serde_json::Value::Array(rows)) => rows,
            (200, row) => vec![row],
            _ => Vec::new(),
        };
        let number = |row: &serde_json::Value, name| row[name].as_i64().unwrap_or(i64::MIN);
        Self {
            status,
            age: header("age").and_then(|age| age.parse().ok()),
            as_of: header("records-as-of").and_then(|token| token.parse().ok()),
            may_retry: header("retry-after").is_some(),
            rows: rows.iter().map(|row| (number(row, "_id") as usize, number(row, "n"))).collect(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A status that this request cannot have.
    Status,
    /// Other records than those that were asked for.
    Records,
    /// A number that was not written yet.
    Future,
    /// A write is missing that was acknowledged longer ago than the age says.
    OlderThanItsAge,
    /// The age is beyond the bound of the request.
    BeyondTheBound,
    /// An answer of MongoDB where only the replica may answer.
    PastTheReplica,
    /// A write is missing that the token of the request names.
    BeforeTheToken,
    /// The token of the response is earlier than that of the request.
    TokenTooEarly,
    /// A write is missing that the token of the response names.
    BeforeItsToken,
}

/// Returns what is wrong with an answer about the records `ids`, which was asked for at `asked`.
pub fn violations(
    ledger: &Ledger,
    ids: std::ops::Range<usize>,
    bounds: &Bounds,
    asked: Instant,
    answer: &Answer,
) -> Vec<Violation> {
    let is_refused = match answer.status {
        // A read without a bound is answered by one of the halves.
        503 => !bounds.is_none() && answer.may_retry,
        504 => bounds.only_replica,
        _ => false,
    };
    if is_refused {
        return Vec::new();
    }
    if answer.status != if ids.is_empty() { 204 } else { 200 } {
        return vec![Violation::Status];
    }
    if !answer.rows.iter().map(|(id, _)| *id).eq(ids) {
        return vec![Violation::Records];
    }
    let mut found = Vec::new();
    if bounds.only_replica && answer.age.is_none() {
        found.push(Violation::PastTheReplica);
    }
    if bounds.max_age.is_some_and(|max| answer.age.is_some_and(|age| age > max || max == 0)) {
        found.push(Violation::BeyondTheBound);
    }
    if bounds.not_before > answer.as_of {
        found.push(Violation::TokenTooEarly);
    }
    let held = asked.checked_sub(answer.age.map_or(OLD_PRIMARY, Duration::from_secs));
    for (id, n) in &answer.rows {
        let writes = ledger.writes(*id);
        let least = [
            (Violation::OlderThanItsAge, writes.least(|write| held.is_some_and(|held| write.acknowledged <= held))),
            (Violation::BeforeTheToken, writes.least(|write| bounds.not_before >= Some(write.time))),
            (Violation::BeforeItsToken, writes.least(|write| answer.as_of >= Some(write.time))),
        ];
        found.extend(least.into_iter().filter(|(_, least)| n < least).map(|(violation, _)| violation));
        if *n > writes.tried {
            found.push(Violation::Future);
        }
    }
    found
}

/// Checks the checker by made-up answers.
async fn every_kind_of_violation_is_found() {
    let time = |seconds: u64| ClusterTime::new(seconds << 32);
    let ledger = Ledger::new(2);
    for n in 1..=3 {
        ledger.try_write(0, n);
        ledger.acknowledge(0, n, time(n as u64).expect("a time"));
    }
    ledger.try_write(0, 4);
    let asked = Instant::now() + Duration::from_secs(60);
    let right = Answer { status: 200, age: Some(1), as_of: time(3), may_retry: false, rows: vec![(0, 3)] };
    let from_mongodb = Answer { age: None, ..right.clone() };
    let refused = Answer { status: 503, may_retry: true, rows: Vec::new(), ..right.clone() };
    let with_n = |n| Answer { rows: vec![(0, n)], as_of: None, ..right.clone() };
    let none = Bounds::default();
    let within = |max_age| Bounds { cache_control: "max-age", max_age: Some(max_age), ..none };
    let only_replica = Bounds { cache_control: "only-if-cached", only_replica: true, ..none };
    let after = |seconds| Bounds { not_before: time(seconds), ..none };
    let wrong = |bounds: Bounds, answer: Answer| violations(&ledger, 0..1, &bounds, asked, &answer);

    let rights = [
        (none, right.clone()),
        (none, from_mongodb.clone()),
        (none, with_n(4)),
        (none, Answer { age: Some(61), as_of: time(1), ..with_n(1) }),
        (within(1), right.clone()),
        (within(0), from_mongodb.clone()),
        (within(1), refused.clone()),
        (only_replica, right.clone()),
        (only_replica, Answer { status: 504, ..refused.clone() }),
        (after(3), right.clone()),
        (after(3), refused.clone()),
    ];
    for (at, (bounds, answer)) in rights.into_iter().enumerate() {
        assert_eq!(wrong(bounds, answer), [], "right answer {at}");
    }
    let wrongs = [
        (none, refused.clone(), Violation::Status),
        (within(1), Answer { may_retry: false, ..refused.clone() }, Violation::Status),
        (within(1), Answer { status: 504, ..refused.clone() }, Violation::Status),
        (none, Answer { status: 204, ..refused }, Violation::Status),
        (none, Answer { rows: Vec::new(), ..right.clone() }, Violation::Records),
        (none, Answer { rows: vec![(1, 0)], ..right.clone() }, Violation::Records),
        (none, with_n(5), Violation::Future),
        (none, with_n(2), Violation::OlderThanItsAge),
        (none, Answer { age: None, ..with_n(2) }, Violation::OlderThanItsAge),
        (within(1), Answer { age: Some(2), ..right.clone() }, Violation::BeyondTheBound),
        (within(0), Answer { age: Some(0), ..right.clone() }, Violation::BeyondTheBound),
        (only_replica, from_mongodb, Violation::PastTheReplica),
        (after(3), Answer { age: Some(61), as_of: time(3), ..with_n(2) }, Violation::BeforeTheToken),
        (after(4), right.clone(), Violation::TokenTooEarly),
        (after(3), Answer { as_of: None, ..right.clone() }, Violation::TokenTooEarly),
        (none, Answer { age: Some(61), as_of: time(2), ..with_n(1) }, Violation::BeforeItsToken),
    ];
    for (at, (bounds, answer, violation)) in wrongs.into_iter().enumerate() {
        assert!(wrong(bounds, answer).contains(&violation), "{violation:?} was not found in wrong answer {at}");
    }
    let read = Answer::read(200, "http/1.1 200 ok\r\nage: 7\r\nrecords-as-of: 3.0\r\n\r\n", r#"[{"_id":0,"n":3}]"#);
    assert_eq!((read.age, read.as_of, read.rows), (Some(7), time(3), vec![(0, 3)]));
}
