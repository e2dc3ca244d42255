//! The deadline of an answer, and what becomes of a panic.
//!
//! Apart from [`finish`](super::finish), so that what is between them, such as CORS, adds to these answers too.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::timeout;
use tower::Service;

use super::problem::{self, Problem};

/// Answers as `inner` does, unless that panics or takes longer than `deadline`.
#[derive(Clone)]
pub struct Guard<S> {
    pub inner: S,
    pub deadline: Duration,
}

impl<S> Service<Request> for Guard<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // Nothing of a request that panicked is used again.
        let answer = catch_unwind(AssertUnwindSafe(|| self.inner.call(request)));
        let answer = async {
            match answer {
                Ok(answer) => answer.await.unwrap_or_else(|never| match never {}),
                Err(panic) => problem::panicked(panic),
            }
        };
        guarded(self.deadline, answer.boxed()).map(Ok).boxed()
    }
}

/// The answer, or what there is to say of one that panics or takes too long.
// `answer` is boxed: a future that is handed over takes its room twice in the one that waits for it.
pub async fn guarded(deadline: Duration, answer: BoxFuture<'static, Response>) -> Response {
    match timeout(deadline, AssertUnwindSafe(answer).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => problem::panicked(panic),
        Err(_) => Problem::late().into_response(),
    }
}
