//! The rate limit of each client: an API key, the subject of a token, or else an address.
//!
//! A client may send a burst at once, and gets a new request for each fraction of the window (the generic cell rate algorithm).
//! Responses state the limit as [draft-ietf-httpapi-ratelimit-headers-10](https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-10.txt)
//! does.
//!
//! - A valid key is counted by its name alone and a token by its subject, whatever their address: a client with a wrong key cannot
//!   use up the quota of those that share its address.
//! - A request without a valid key is counted by its address, also if it is refused.
//! - Memory is bounded by [`Recent`].

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::future::{Either, ready};
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter as Governor};
use tokio::time::sleep;
use tower::service_fn;

use super::forwarded::client_address;
use super::layered::Layered;
use super::problem::Problem;
use super::settings::{RateLimit, Settings};
use crate::auth::CallerId;
use crate::client::{ClientNetwork, PeerAddress, TrustedProxies};

pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The clients in each generation of [`Recent`]: some 3 MB for both.
const GENERATION: usize = 32_768;

/// The interval between log lines about refused requests.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The states of the clients that were seen last, in two generations. When the newer one is full, the older one is forgotten.
///
/// A forgotten client has its whole quota again, so that a full table refuses no client. To be forgotten on purpose, an attacker
/// needs a request from each of [`GENERATION`] other networks, which could use a quota of their own as well.
struct Recent<K>(Mutex<[HashMap<K, Nanos>; 2]>);

impl<K: Clone + Eq + Hash> StateStore for Recent<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [newer, older] = &mut *generations;
        if let Some(state) = newer.get_mut(key) {
            let (decision, next) = decide(Some(*state))?;
            *state = next;
            return Ok(decision);
        }
        let before = older.get(key).copied();
        let decided = decide(before);
        // A refused client stays in the newer generation too.
        if let Some(state) = decided.as_ref().map_or(before, |(_, next)| Some(*next)) {
            if newer.len() >= GENERATION {
                std::mem::swap(newer, older);
                newer.clear();
            }
            newer.insert(key.clone(), state);
        }
        decided.map(|(decision, _)| decision)
    }
}

type Limiter<K> = Governor<K, Recent<K>, MonotonicClock, StateInformationMiddleware>;

pub struct RateLimiter {
    addresses: Limiter<ClientNetwork>,
    callers: Limiter<CallerId>,
    trusted_proxies: TrustedProxies,
    policy: HeaderValue,
    /// The seconds until a client that has used its quota up may send another request.
    replenished_after: u64,
    /// The requests that were refused since the previous warning.
    refused: AtomicU64,
    /// True while a task logs warnings.
    is_warning: AtomicBool,
}

/// The rest of a client's quota, for the headers of a response.
pub struct Remaining {
    requests: u32,
    replenished_after: u64,
    policy: HeaderValue,
}

impl Remaining {
    pub fn add_to(self, headers: &mut HeaderMap) {
        let Self { requests, replenished_after, policy } = self;
        headers.insert(RATE_LIMIT_POLICY, policy);
        if let Ok(value) = HeaderValue::try_from(format!("\"default\";r={requests};t={replenished_after}")) {
            headers.insert(RATE_LIMIT, value);
        }
    }
}

/// A request beyond the quota of its client.
pub struct Refused(Remaining);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let wait = self.0.replenished_after;
        let mut response = Problem::rate_limited(wait).into_response();
        response.headers_mut().insert(RETRY_AFTER, wait.into());
        self.0.add_to(response.headers_mut());
        response
    }
}

/// The client that a request is counted for.
pub enum Client<'a> {
    Caller(&'a CallerId),
    Address(IpAddr),
}

impl RateLimiter {
    /// Returns `None` where there is no limit.
    pub fn new(settings: &Settings) -> Option<Arc<Self>> {
        let RateLimit { requests, window, burst } = settings.rate_limit?;
        let period = window / requests.get();
        let quota = Quota::with_period(period)?.allow_burst(burst.unwrap_or(requests));
        let policy = format!("\"default\";q={requests};w={}", window.as_secs());
        Some(Arc::new(Self {
            addresses: limiter(quota),
            callers: limiter(quota),
            trusted_proxies: settings.trusted_proxies.clone(),
            policy: HeaderValue::try_from(policy).ok()?,
            replenished_after: whole_seconds(period),
            refused: AtomicU64::new(0),
            is_warning: AtomicBool::new(false),
        }))
    }

    /// Returns the address that a request without a key is counted for.
    pub fn address(&self, request: &Request) -> IpAddr {
        // No server adds the extension in a test of the service alone: then all requests are of one client.
        let peer = request.extensions().get().map_or(Ipv4Addr::UNSPECIFIED.into(), |PeerAddress(peer)| *peer);
        client_address(peer, request.headers(), &self.trusted_proxies)
    }

    /// Counts a request of `client`.
    ///
    /// # Errors
    ///
    /// When the quota of the client is used up: then the response is a 429.
    pub fn count(self: &Arc<Self>, client: Client<'_>) -> Result<Remaining, Refused> {
        let decision = match client {
            Client::Caller(id) => self.callers.check_key(id),
            Client::Address(address) => self.addresses.check_key(&address.into()),
        };
        let remaining =
            |requests, replenished_after| Remaining { requests, replenished_after, policy: self.policy.clone() };
        decision.map(|state| remaining(state.remaining_burst_capacity(), self.replenished_after)).map_err(|until| {
            self.warn_of_refusals();
            Refused(remaining(0, whole_seconds(until.wait_time_from(self.callers.clock().now()))))
        })
    }

    /// Logs the number of refused requests once a minute, as long as there are any. A line for each request would let a client fill
    /// the log.
    fn warn_of_refusals(self: &Arc<Self>) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if self.is_warning.swap(true, Ordering::AcqRel) {
            return;
        }
        let limiter = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let refused = limiter.refused.swap(0, Ordering::Relaxed);
                if refused == 0 {
                    break;
                }
                tracing::warn!(refused, "--rate-limit: requests were refused since the previous warning");
                sleep(WARNING_INTERVAL).await;
            }
            // A request that is refused just now is in the next warning.
            limiter.is_warning.store(false, Ordering::Release);
        });
    }
}

fn limiter<K: Clone + Eq + Hash>(quota: Quota) -> Limiter<K> {
    Governor::new(quota, Recent(Mutex::default()), MonotonicClock)
}

/// Rounds up, to 1 at least: a client that comes back too early is refused again.
fn whole_seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

/// Calls `inner` unless the quota of the client's address is used up.
pub fn limit_by_address(limiter: Arc<RateLimiter>, mut inner: impl Layered) -> impl Layered {
    service_fn(move |request: Request| match limiter.count(Client::Address(limiter.address(&request))) {
        Ok(remaining) => {
            let response = inner.call(request);
            Either::Left(async move {
                let mut response = response.await?;
                remaining.add_to(response.headers_mut());
                Ok(response)
            })
        }
        Err(refused) => Either::Right(ready(Ok(refused.into_response()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decides about requests of `clients`, where each client may send one.
    fn decisions(recent: &Recent<usize>, clients: impl Iterator<Item = usize>) -> Vec<bool> {
        let once = |before: Option<Nanos>| before.map_or(Ok(((), Nanos::new(1))), |_| Err(()));
        clients.map(|client| recent.measure_and_replace(&client, once).is_ok()).collect()
    }

    #[test]
    fn many_clients_take_bounded_memory_and_only_those_not_seen_for_long_are_forgotten() {
        let recent = Recent(Mutex::default());
        assert_eq!(decisions(&recent, [1, 2, 1].into_iter()), [true, true, false]);
        for flood in 1..=20 {
            let clients = flood * GENERATION..(flood + 1) * GENERATION - 1;
            assert!(decisions(&recent, clients).iter().all(|allowed| *allowed), "a new client was refused");
            // It is refused as often as it comes, and so is never forgotten.
            assert_eq!(decisions(&recent, [1].into_iter()), [false]);
            let generations = recent.0.lock().unwrap();
            assert!(
                generations.iter().all(|clients| clients.len() <= GENERATION && clients.capacity() <= 2 * GENERATION)
            );
        }
        assert_eq!(decisions(&recent, [2].into_iter()), [true]);
    }
}
