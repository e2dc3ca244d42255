//! Compares the replica with the primary, a range of keys at a time.
//!
//! A range is read from the primary while the changes of the replica are recorded. Once the replica is known to be as new as the
//! end of that read, each record of the range that no change has touched must be the same in both. No snapshot read is needed, so
//! that this works with every server.
//!
//! The ranges follow one another from a random record on. They are sized so that every record is audited once an hour, within
//! [`RANGE_RECORDS`] and [`RANGE_BYTES`]. A difference counts if it is there in two audits, since a read of the primary may show
//! what a failover rolls back.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use super::super::{AuditReport, Freshness, ListRequest, Result, RowStream, Store};
use super::replica::{Replica, Snapshot, SyncState};
use crate::query::{Cursor, Position};
use crate::record::{Document, Key};
use crate::wire;

/// The bounds of a range. The documents are in memory until they are compared.
const RANGE_RECORDS: usize = 20_000;
const RANGE_BYTES: usize = 8 * 1024 * 1024;
const MIN_RANGE_RECORDS: usize = 100;

/// The time within which every record is audited, where the bounds allow that.
const ROUND: Duration = Duration::from_secs(60 * 60);

/// The time that the replica may take to be as new as a read of the primary, and the pause between two checks.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);
const CATCH_UP_PAUSE: Duration = Duration::from_millis(50);

/// The ids that a report names.
const REPORTED_IDS: usize = 100;

/// The start of the next range.
enum Start {
    AtRandom,
    /// `None`: at the first record.
    After(Option<Key>),
}

/// The records after a key up to another.
struct Range {
    after: Option<Key>,
    /// `None`: to the last record.
    last: Option<Key>,
    documents: Vec<Document>,
}

/// Audits a range every `interval`, while the replica follows the changes of the primary.
pub async fn run(primary: Arc<dyn Store>, replica: Arc<Replica>, interval: Duration) {
    let mut start = Start::AtRandom;
    loop {
        // Instances that start together do not read the primary together.
        sleep(interval.mul_f64(0.5 + fastrand::f64())).await;
        if replica.sync_state() != SyncState::Following {
            continue;
        }
        let Ok(snapshot) = replica.served() else { continue };
        let share = interval.as_secs_f64() / ROUND.as_secs_f64();
        let records = ((snapshot.records() as f64 * share).ceil() as usize).clamp(MIN_RANGE_RECORDS, RANGE_RECORDS);
        let after = match start {
            Start::After(key) => key,
            Start::AtRandom => random_key(&snapshot).await,
        };
        match audit(&*primary, &replica, &snapshot, after.clone(), records).await {
            Ok(Some((last, report))) => {
                replica.record_audit(&snapshot, report);
                start = Start::After(last);
            }
            outcome => {
                let cause = outcome.err().map(|error| error.report().to_string());
                tracing::debug!(cause, "an audit of the fallback replica was abandoned");
                replica.audits_abandoned.fetch_add(1, Ordering::Relaxed);
                start = Start::After(after);
            }
        }
    }
}

/// The key of a random record.
async fn random_key(snapshot: &Arc<Snapshot>) -> Option<Key> {
    let skipped = fastrand::u64(0..snapshot.records().max(1)) as usize;
    let rows = snapshot.list(ListRequest::default()).await.ok()?.rows;
    let row = rows.skip(skipped).next().await?.ok()?;
    Some(row.document.key().clone())
}

/// Audits the range after `after`. Returns its last key with the report, or `None` if the audit was abandoned.
async fn audit(
    primary: &dyn Store,
    replica: &Replica,
    snapshot: &Arc<Snapshot>,
    after: Option<Key>,
    records: usize,
) -> Result<Option<(Option<Key>, AuditReport)>> {
    let Some((range, mut different)) = compare(primary, replica, snapshot, after.clone(), records).await? else {
        return Ok(None);
    };
    if !different.is_empty() {
        let Some((_, again)) = compare(primary, replica, snapshot, after, records).await? else { return Ok(None) };
        let again: HashSet<Key> = again.iter().map(|document| document.key().clone()).collect();
        different.retain(|document| again.contains(document.key()));
    }
    let ids = different.iter().take(REPORTED_IDS).filter_map(|document| wire::id(document.bson()));
    let report = AuditReport {
        finished: Instant::now(),
        records: range.documents.len() as u64,
        differences: different.len() as u64,
        ids: ids.collect(),
    };
    Ok(Some((range.last, report)))
}

/// Returns a range with the records that differ, as one side has them; `None` if the replica did not catch up, or was replaced.
async fn compare(
    primary: &dyn Store,
    replica: &Replica,
    snapshot: &Arc<Snapshot>,
    after: Option<Key>,
    records: usize,
) -> Result<Option<(Range, Vec<Document>)>> {
    let touched = snapshot.record_touched();
    // A secondary may lag the replica.
    let freshness = Freshness { not_before: snapshot.as_of(), ..Freshness::default() };
    let list = primary.list(ListRequest { freshness, limit: Some(records), ..list_after(after.as_ref()) });
    let range = read_range(list.await?.rows, after, records).await?;
    let read_at = Instant::now();
    let caught_up = async {
        while !replica.is_current_since(snapshot, read_at) {
            sleep(CATCH_UP_PAUSE).await;
        }
    };
    let is_served = || replica.served().is_ok_and(|served| Arc::ptr_eq(&served, snapshot));
    if timeout(CATCH_UP_TIMEOUT, caught_up).await.is_err() || !is_served() {
        return Ok(None);
    }
    let mut held = snapshot.list(list_after(range.after.as_ref())).await?.rows;
    let mut different = Vec::new();
    let mut expected = range.documents.iter().peekable();
    while let Some(row) = held.next().await.transpose()? {
        let document = row.document;
        if range.last.as_ref().is_some_and(|last| document.key() > last) {
            break;
        }
        while let Some(missing) = expected.next_if(|next| next.key() < document.key()) {
            different.push(missing.clone());
        }
        match expected.next_if(|next| next.key() == document.key()) {
            Some(same) if same.bson() == document.bson() => {}
            _ => different.push(document.detached()),
        }
    }
    different.extend(expected.cloned());
    // A change is recorded before it is applied, so that none of those that were read above is missing here.
    let Some(touched) = touched.keys() else { return Ok(None) };
    different.retain(|document| !touched.contains(document.key()));
    Ok(Some((range, different)))
}

fn list_after(after: Option<&Key>) -> ListRequest {
    let after = after.map(|key| Cursor { position: Position::of_key(key), no_arrays: false });
    ListRequest { after, ..ListRequest::default() }
}

/// Collects a range from the first rows.
async fn read_range(mut rows: RowStream, after: Option<Key>, records: usize) -> Result<Range> {
    let (mut documents, mut bytes) = (Vec::<Document>::new(), 0);
    while bytes < RANGE_BYTES && documents.len() < records {
        let Some(row) = rows.next().await.transpose()? else {
            return Ok(Range { after, last: None, documents });
        };
        bytes += row.document.bson().len();
        documents.push(row.document);
    }
    let last = documents.last().map(|document| document.key().clone());
    Ok(Range { after, last, documents })
}

#[cfg(test)]
mod tests {
    use super::super::replica::tests::{Full, memory};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_an_audit_cannot_read_is_marked_as_failed() {
        let (primary, replica) = (memory().await, Replica::new(None));
        let snapshot = Snapshot::new(Arc::new(Full), None);
        replica.mark_current(&snapshot, Instant::now() + CATCH_UP_TIMEOUT);
        replica.serve(Ok(snapshot.clone()));
        assert!(audit(&*primary, &replica, &snapshot, None, 1).await.is_err());
        assert!(snapshot.has_failed());
    }
}
