//! What happens to every request on its way in and to every answer on its way out: its id, a failure, the count, the line in
//! the log.
//!
//! One service around the router rather than a layer for each: a layer of axum's or tower's boxes a future, and some a
//! body, which together took more of a lookup's time than the lookup. For the same reason a lookup, which is nearly every
//! request there is, goes past the router, and is no future at all where the store has its answer at hand.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Either, Ready, ready};
use hyper::body::Body as HttpBody;
use tower::Service;

use super::guard::guarded;
use super::line::{TRACEPARENT, UnderWay};
use super::metrics::Route;
use super::problem::{self, Problem};
use super::request_id::{REQUEST_ID, RequestId};
use super::timing::{self, SERVER_TIMING, StoreTime};
use super::{App, records};

/// The service around the router, which is always ready.
#[derive(Clone)]
pub struct Finish<S> {
    pub inner: S,
    pub app: App,
    /// Whether records are among what it serves.
    pub records: bool,
    /// Whether health and metrics are.
    pub operations: bool,
    /// Whether `inner` would do nothing with a GET of a record but call [`records::one`].
    pub past_inner: bool,
}

impl<S, B> Service<Request<B>> for Finish<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    /// Gives the request its id, and a problem its body; logs what went wrong, once; counts it.
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let app = self.app.clone();
        let route = Route::of(head.uri.path(), self.records, self.operations);
        let in_flight = app.metrics.begin(route);
        let under_way = UnderWay::new(&head, RequestId::of(&head.headers), route, in_flight, &app.settings.tracer);
        let store_time = (app.settings.server_timing || under_way.is_recorded()).then(StoreTime::default);
        if let Some(time) = &store_time {
            head.extensions.insert(time.clone());
        }
        let is_head = head.method == Method::HEAD;
        if let Err(problem) = checked(&head) {
            return Either::Left(ready(Ok(finished(&app, problem.into_response(), under_way, None, is_head))));
        }
        if self.past_inner && route == Route::record && head.method == Method::GET {
            // How long the store took is only measured of what is waited for.
            if store_time.is_none() {
                match catch_unwind(AssertUnwindSafe(|| records::at_once(&app, &head))) {
                    Ok(Some(answer)) => return at_once(&app, under_way, answer.into_response()),
                    Ok(None) => {}
                    Err(panic) => return at_once(&app, under_way, problem::panicked(panic)),
                }
            }
            let answer = records::one(app.clone(), head).map(IntoResponse::into_response).boxed();
            let answer = guarded(app.settings.deadline, answer);
            return Either::Right(answered(app, under_way, store_time, false, answer).boxed());
        }
        head.extensions.insert(under_way.id().clone());
        let answer = self.inner.call(Request::from_parts(head, Body::new(body)));
        let answer = answer.map(|answer| answer.unwrap_or_else(|never| match never {}));
        Either::Right(answered(app, under_way, store_time, is_head, answer).boxed())
    }
}

/// Refuses what hyper lets pass and no server may answer otherwise: a request of HTTP/1.1 without a `Host`, or with two, or with
/// one that cannot be a host ([RFC 9112, section 3.2](https://www.rfc-editor.org/rfc/rfc9112#section-3.2)).
fn checked(head: &Parts) -> Result<(), Problem> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let is_right = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.as_bytes().iter().all(is_of_a_host),
        (None, _) => head.version != Version::HTTP_11,
        (Some(_), Some(_)) => false,
    };
    if is_right {
        return Ok(());
    }
    Err(Problem::bad("Host", "A request has one `Host`, which is the name of this server as the client knows it."))
}

/// Whether the byte may stand in a host with its port ([RFC 3986, section 3.2.2](https://www.rfc-editor.org/rfc/rfc3986#section-3.2.2)).
fn is_of_a_host(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b':' | b'[' | b']')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// The future of an answer that there is already.
fn at_once<F>(app: &App, under_way: UnderWay, response: Response) -> Either<Ready<Result<Response, Infallible>>, F> {
    Either::Left(ready(Ok(finished(app, response, under_way, None, false))))
}

async fn answered(
    app: App,
    under_way: UnderWay,
    store_time: Option<StoreTime>,
    head: bool,
    answer: impl Future<Output = Response>,
) -> Result<Response, Infallible> {
    let response = answer.await;
    // From here on what was given up has ended, and its time is known.
    Ok(finished(&app, response, under_way, store_time, head))
}

/// `response` as it is sent, counted and logged.
fn finished(
    app: &App,
    mut response: Response,
    under_way: UnderWay,
    store_time: Option<StoreTime>,
    head: bool,
) -> Response {
    let problem = response.extensions_mut().remove::<Problem>();
    finish(app, &mut response, problem.as_ref(), &under_way, head);
    let spent = store_time.and_then(|time| time.spent());
    if app.settings.server_timing {
        response.headers_mut().insert(SERVER_TIMING, timing::header(spent, under_way.begun().elapsed()));
    }
    under_way.answered(response.status(), problem.as_ref(), spent);
    response
}

fn finish(app: &App, response: &mut Response, problem: Option<&Problem>, under_way: &UnderWay, head: bool) {
    let id = under_way.id();
    if let Some(problem) = problem {
        let body = problem.to_json(id.as_str());
        response.headers_mut().insert(CONTENT_LENGTH, body.len().into());
        *response.body_mut() = if head { Body::empty() } else { body.into() };
    }
    if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        // The router gives every answer to a HEAD a length, and every empty body; the first of these statuses must not have
        // one, and that of the second would be of what is not sent (RFC 9110, section 8.6).
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response.headers_mut().insert(REQUEST_ID, id.value().clone());
    if let Some(own) = under_way.trace()
        && let Ok(value) = HeaderValue::try_from(own.to_string())
    {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    if app.draining.has_begun() {
        // A client that keeps its connection would lose it at the end of the drain, perhaps with a request in it.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
