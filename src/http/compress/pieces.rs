//! What is compressed, a piece at a time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::store::Turn;

/// How much is compressed at a time: some milliseconds of work. Then others have their turn.
const PIECE_BYTES: usize = 64 * 1024;

/// A body in pieces of [`PIECE_BYTES`] at most, with a pause behind each in which the runtime looks after everybody else: a
/// record may have 16 MiB, which a coding takes seconds for.
///
/// A coding does not pass a pause on while it has something to send: it sends that, and goes on. So what it sends goes through
/// [`Paced`].
pub struct Pieces {
    inner: Body,
    /// What is left of what came out of it last.
    rest: Bytes,
    turn: Turn,
}

impl Pieces {
    pub fn of(inner: Body) -> Self {
        Self { inner, rest: Bytes::new(), turn: Turn::default() }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        ready!(self.turn.poll_pause(context));
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(context)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        self.turn.pause();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// What a coding sends, with a pause behind each part.
pub struct Paced {
    inner: Body,
    turn: Turn,
}

impl Paced {
    pub fn of(inner: Body) -> Self {
        Self { inner, turn: Turn::default() }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        ready!(self.turn.poll_pause(context));
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        self.turn.pause();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::to_bytes;
    use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
    use axum::response::Response;

    use super::*;
    use crate::http::compress::compressed;

    #[tokio::test]
    async fn others_have_their_turn_while_a_large_body_is_compressed() {
        let turns = Arc::new(AtomicUsize::new(0));
        let others = tokio::spawn({
            let turns = turns.clone();
            async move {
                loop {
                    turns.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        });
        const PIECES: usize = 20;
        let headers = [(ACCEPT_ENCODING, "gzip".parse().unwrap())].into_iter().collect();
        let response = Response::new(Body::from("x".repeat(PIECES * PIECE_BYTES)));
        let Ok(response) = compressed(&headers, response) else { panic!("gzip is taken") };
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        others.abort();
        assert!(body.len() < PIECE_BYTES, "{}", body.len());
        let turns = turns.load(Ordering::Relaxed);
        assert!(turns >= PIECES - 1, "{turns} turns");
    }
}
