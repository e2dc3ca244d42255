//! Counts, which the server stops at a limit and after a time.

use mongodb::bson::{Document as Bdoc, doc};
use mongodb::options::Collation as CollationOption;
use tokio::time::timeout;

use super::namespace::{Collation, Kind};
use super::pushdown::{self, Pushed};
use super::{Inner, MongoDb, error, permit};
use crate::query::{Path, Projection};
use crate::store::list::count_listed;
use crate::store::{COUNT_TIME, CountResult, Error, ListRequest, Precision, Result};

/// The size of the random sample from which a count is extrapolated, if counting takes too long.
const SAMPLE: i64 = 1_000;

/// A count for the server.
pub struct Count {
    pub filter: Bdoc,
    pub limit: Option<usize>,
    /// Compares strings by bytes although the collection has a collation.
    pub by_bytes: bool,
}

impl MongoDb {
    pub async fn count_documents(&self, request: ListRequest, precision: Precision) -> Result<Option<CountResult>> {
        let namespace = self.namespace().await?;
        let Pushed { clauses, residual, .. } = pushdown::push_down(&request.filter);
        let has_other_collation = namespace.collation == Collation::Other && namespace.kind == Kind::View;
        if !residual.is_empty() || has_other_collation {
            // The service decides which documents match.
            let id = Path::of(vec!["_id".into()]).map(|path| [&path].into_iter().collect::<Projection>()).ok();
            return count_listed(self, ListRequest { projection: id, ..request }).await;
        }
        let count = Count {
            filter: pushdown::conjunction(clauses),
            limit: request.limit,
            by_bytes: namespace.collation != Collation::ByBytes,
        };
        // Only a collection has a number of its documents.
        let has_number = count.filter.is_empty() && namespace.kind == Kind::Collection;
        // A count takes as long as a list, and as few may run at once.
        let Ok(permit) = timeout(self.inner.count_time(), permit(&self.inner.lists)).await else { return Ok(None) };
        let permit = permit?;
        self.bounded(move |inner| async move {
            let _permit = permit;
            if has_number && precision == Precision::Estimated {
                return inner.estimated_count().await.map(Some);
            }
            let within_limit = match inner.count_exactly(&count).await {
                Ok(number) if count.limit.is_none_or(|limit| number <= limit as u64) => {
                    return Ok(Some(CountResult::exact(number)));
                }
                Ok(number) => Some(CountResult::estimated(number - 1)),
                Err(error) if error::has_exceeded_time(&error) => None,
                // The collection is a view with a collation, and the user may not list collections.
                Err(error) if error::is_of_a_view(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            match within_limit {
                _ if has_number => inner.estimated_count().await.map(Some),
                None => inner.count_by_sample(&count).await,
                some => Ok(some),
            }
        })
        .await
    }
}

impl Inner {
    /// Counts up to one more than the limit.
    pub async fn count_exactly(&self, count: &Count) -> Result<u64> {
        let number = async {
            let collection = self.collection().await?;
            let mut command = collection.count_documents(count.filter.clone()).max_time(self.count_time());
            if let Some(limit) = count.limit {
                command = command.limit(limit as u64 + 1);
            }
            if count.by_bytes {
                command = command.collation(CollationOption::builder().locale("simple".to_owned()).build());
            }
            command.await
        };
        number.await.map_err(error::classify)
    }

    /// The number that the server keeps with the collection.
    async fn estimated_count(&self) -> Result<CountResult> {
        let number = async { self.collection().await?.estimated_document_count().max_time(self.count_time()).await };
        number.await.map(CountResult::estimated).map_err(error::classify)
    }

    /// Extrapolates from some documents at random. `None` where none of them matches, or the time does not suffice either.
    pub async fn count_by_sample(&self, count: &Count) -> Result<Option<CountResult>> {
        let total = self.estimated_count().await?.number;
        let matching = async {
            let pipeline =
                [doc! { "$sample": { "size": SAMPLE } }, doc! { "$match": &count.filter }, doc! { "$count": "n" }];
            let collection = self.collection().await?;
            let mut command = collection.aggregate(pipeline).max_time(self.count_time() / 2);
            if count.by_bytes {
                command = command.collation(CollationOption::builder().locale("simple".to_owned()).build());
            }
            let mut cursor = command.await?;
            let is_any = cursor.advance().await?;
            Ok(is_any.then(|| cursor.current().get_i32("n").unwrap_or_default()))
        };
        let matching: std::result::Result<_, Error> = matching.await.map_err(error::classify);
        match matching {
            Ok(matching) => Ok(matching.map(|matching| {
                let part = f64::from(matching) / SAMPLE.min(total.try_into().unwrap_or(SAMPLE)).max(1) as f64;
                CountResult::estimated((part * total as f64).round() as u64)
            })),
            Err(error) if error::has_exceeded_time(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn count_time(&self) -> std::time::Duration {
        COUNT_TIME.min(self.options.timeout / 2)
    }
}
