//! What a store lists, narrowed down to what was asked for: the same code over every store, so the same answer.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, StreamExt};

use super::{Listing, Order, Query, RecordStream, Result, Share, Store, Turn};
use crate::query::{Cursor, Fields, Filters, Sort, sort};
use crate::record::{Key, Record};

/// How many bytes of records a page holds at most; a single larger record is a page of its own. What bounds the memory of
/// a request for a page, whatever its limit. What bounds that of all of them is [`Budget`](super::Budget).
pub const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// The records of `query` of which all its filters hold, at most its limit of them, in `_id` order. Their fields are as the
/// store has left them: whoever writes them out keeps what was asked for, at no more cost.
pub fn selected(store: &dyn Store, query: Query) -> Listing {
    let (filters, limit) = (query.filters.clone(), query.limit);
    let Listing { records, age, .. } = store.list(query);
    let records: RecordStream = match (filters.is_empty(), limit) {
        (true, None) => records,
        (true, Some(limit)) => records.take(limit).boxed(),
        (false, None) => Judged { records, filters, turn: Turn::default() }.boxed(),
        (false, Some(limit)) => Judged { records, filters, turn: Turn::default() }.take(limit).boxed(),
    };
    Listing::new(records, age)
}

/// Those records of which the filters hold.
struct Judged {
    records: RecordStream,
    filters: Filters,
    turn: Turn,
}

impl Stream for Judged {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            ready!(self.turn.poll_pause(context));
            let record = match ready!(self.records.as_mut().poll_next(context)) {
                Some(Ok(record)) => record,
                other => return Poll::Ready(other),
            };
            // Each filter goes through the JSON by itself.
            let bytes = record.json().len() * self.filters.len();
            if self.turn.is_over(bytes) {
                self.turn.pause();
            }
            if self.filters.hold(record.json()) {
                return Poll::Ready(Some(Ok(record)));
            }
        }
    }
}

/// Some records in order, and where the next ones begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub records: Vec<Record>,
    /// `None` when there is nothing behind them.
    pub next: Option<Cursor>,
    /// As [`Listing::age`].
    pub age: Option<Duration>,
}

/// At most `limit` records of which the filters of `query` hold, in the order of `sort` or else of `_id`, from behind `after`.
/// Fewer, but one at least, where so many would be more than [`PAGE_BYTES`]. Of each the fields of `query` alone, which is also
/// what counts. What they take of the memory is held in `share`. While others are waited for, no list is kept open: the store
/// may have read ahead in it, which no share is held for.
///
/// In the order of `_id` this reads no more than it returns and one record more, but for what the filters leave out. In
/// any other it reads every record of which the filters hold, unless the store leaves some out by [`Query::order`], in the
/// memory of one page.
///
/// # Errors
///
/// As the store's list has them, and as [`Share::try_hold`].
pub async fn page(
    store: &dyn Store,
    query: Query,
    sort: Option<&Sort>,
    after: Option<Cursor>,
    limit: usize,
    share: &mut Share,
) -> Result<Page> {
    let Some(sort) = sort else {
        let query = Query { after: after.map(|after| after.key), limit: Some(limit + 1), ..query };
        return page_by_id(store, query, share).await;
    };
    let fields = query.fields.clone();
    let looked_at = query.fields.map(|fields| fields.and(&sort.path));
    let after = after.map(|Cursor { key, value }| (value.unwrap_or(sort::Value::Null), key));
    let order = Order { sort: sort.clone(), after: after.clone(), limit: limit + 1 };
    let query = Query { after: None, limit: None, fields: looked_at, order: Some(order), ..query };
    let mut listing = selected(store, query.clone());
    let new = || First { sort, limit, fields: fields.clone(), heap: BinaryHeap::new(), bytes: 0, ceiling: None };
    let mut first = new();
    let mut turn = Turn::default();
    while let Some(record) = listing.next().await.transpose()? {
        let is_over = turn.is_over(record.json().len());
        let value = sort.value(record.json());
        let is_behind = |(after, key): &(sort::Value, Key)| sort.compare((&value, record.key()), (after, key)).is_gt();
        if after.as_ref().is_none_or(is_behind) {
            first.offer(Ranked { sort, value, record });
            let (bytes, expected) = (first.bytes, expected(first.bytes, first.heap.len(), limit));
            if !share.try_hold(bytes, expected)? {
                drop(listing);
                first = new();
                share.wait(bytes, expected).await?;
                // From the beginning: what comes first is known at the end.
                listing = selected(store, query.clone());
            }
        }
        if is_over {
            tokio::task::yield_now().await;
        }
    }
    let more = first.ceiling.is_some();
    let mut ranked = first.heap.into_sorted_vec();
    // A store that looks for each part of the order by itself may find a record twice, when it is written meanwhile.
    let mut keys = HashSet::new();
    ranked.retain(|ranked| keys.insert(ranked.record.key().clone()));
    let next = ranked.last().filter(|_| more).map(|last| last.place());
    let records = ranked.into_iter().map(|ranked| ranked.record).collect();
    Ok(Page { records, next, age: listing.age() })
}

/// `query.limit` is one record more than the page may have, to know whether there is one.
async fn page_by_id(store: &dyn Store, query: Query, share: &mut Share) -> Result<Page> {
    let limit = query.limit.map_or(usize::MAX, |limit| limit - 1);
    let mut listing = selected(store, query.clone());
    let mut records: Vec<Record> = Vec::new();
    let mut bytes = 0;
    let mut more = false;
    let mut turn = Turn::default();
    // That of the part before.
    let mut age = None;
    while let Some(record) = listing.next().await.transpose()? {
        let is_over = turn.is_over(record.json().len());
        let record = match &query.fields {
            Some(fields) => Record::new(record.key().clone(), fields.kept(record.json())),
            // A copy: as in `First::offer`, where others of the batch are left out.
            None if !query.filters.is_empty() => Record::new(record.key().clone(), record.json().to_vec()),
            None => record,
        };
        let with_it = bytes + record.json().len();
        more = records.len() == limit || (with_it > PAGE_BYTES && !records.is_empty());
        if more {
            break;
        }
        let expected = expected(with_it, records.len() + 1, limit);
        if share.try_hold(with_it, expected)? {
            records.push(record);
            bytes = with_it;
        } else {
            age = age.max(listing.age());
            drop((listing, record));
            share.wait(with_it, expected).await?;
            // On behind what there is, which is little.
            let after = records.last().map(|last| last.key().clone()).or_else(|| query.after.clone());
            let limit = query.limit.map(|limit| limit - records.len());
            listing = selected(store, Query { after, limit, ..query.clone() });
        }
        if is_over {
            tokio::task::yield_now().await;
        }
    }
    let next = records.last().filter(|_| more).map(|last| Cursor { key: last.key().clone(), value: None });
    Ok(Page { records, next, age: age.max(listing.age()) })
}

/// How many bytes a page of `limit` records will have, of which so many records have so many bytes: a quarter more than if
/// the others were as large.
fn expected(bytes: usize, records: usize, limit: usize) -> usize {
    let whole = (bytes / records.max(1)).saturating_mul(limit);
    whole.saturating_add(whole / 4).min(PAGE_BYTES)
}

/// The first records of all that were offered: no more than `limit`, and no more than [`PAGE_BYTES`] of them.
struct First<'a> {
    sort: &'a Sort,
    limit: usize,
    fields: Option<Fields>,
    /// The last one on top.
    heap: BinaryHeap<Ranked<'a>>,
    bytes: usize,
    /// The first of those that there was no room for: what comes behind it has no place either.
    ceiling: Option<(sort::Value, Key)>,
}

impl<'a> First<'a> {
    fn offer(&mut self, ranked: Ranked<'a>) {
        let place = (&ranked.value, ranked.record.key());
        if self.ceiling.as_ref().is_some_and(|(value, key)| self.sort.compare(place, (value, key)).is_gt()) {
            return;
        }
        // A copy: a store may have cut the record out of a batch, all of which it would keep in memory.
        let json = ranked.record.json();
        let json = self.fields.as_ref().map_or_else(|| json.to_vec(), |fields| fields.kept(json));
        let record = Record::new(ranked.record.key().clone(), json);
        self.bytes += record.json().len();
        self.heap.push(Ranked { record, ..ranked });
        while self.heap.len() > self.limit || (self.bytes > PAGE_BYTES && self.heap.len() > 1) {
            let Some(last) = self.heap.pop() else { return };
            self.bytes -= last.record.json().len();
            self.ceiling = Some((last.value, last.record.key().clone()));
        }
    }
}

/// A record and what decides its place.
struct Ranked<'a> {
    sort: &'a Sort,
    value: sort::Value,
    record: Record,
}

impl Ranked<'_> {
    fn place(&self) -> Cursor {
        Cursor { key: self.record.key().clone(), value: Some(self.value.clone()) }
    }
}

impl Ord for Ranked<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sort.compare((&self.value, self.record.key()), (&other.value, other.record.key()))
    }
}

impl PartialOrd for Ranked<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked<'_> {}
