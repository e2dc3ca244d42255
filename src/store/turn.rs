//! Work that is done in turns. A store in this process always has its next record at hand: nothing else would let other tasks
//! go on, no deadline could pass, and one request could have a thread for seconds.

use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;

/// How many records are looked at before other tasks get their turn, and how many bytes of them: some hundred microseconds
/// to a few milliseconds of work.
const RECORDS: usize = 256;
pub const TURN_BYTES: usize = 256 * 1024;

/// What was done since other tasks had their turn.
#[derive(Default)]
pub struct Turn {
    records: usize,
    bytes: usize,
    pause: Option<BoxFuture<'static, ()>>,
}

impl Turn {
    /// Counts a record of so many bytes, or one that is gone through so many times. Returns whether others have their turn now.
    pub fn is_over(&mut self, bytes: usize) -> bool {
        self.records += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        let is_over = self.records >= RECORDS || self.bytes >= TURN_BYTES;
        if is_over {
            (self.records, self.bytes) = (0, 0);
        }
        is_over
    }

    /// Lets others have their turn when [`poll_pause`](Self::poll_pause) is called the next time.
    pub fn pause(&mut self) {
        // Unlike a task that wakes itself, this lets the runtime look at its sockets and timers first.
        self.pause = Some(Box::pin(tokio::task::yield_now()));
    }

    /// Ready unless others have their turn.
    pub fn poll_pause(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn between_two_turns_the_runtime_looks_at_its_sockets() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let answers = Arc::new(AtomicUsize::new(0));
        let echo = tokio::spawn(async move {
            let (mut reader, mut writer) = there.split();
            tokio::io::copy(&mut reader, &mut writer).await
        });
        let others = tokio::spawn({
            let answers = answers.clone();
            async move {
                loop {
                    here.write_all(b"?").await.unwrap();
                    here.read_u8().await.unwrap();
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let mut turn = Turn::default();
        for _ in 0..60 {
            turn.pause();
            poll_fn(|context| turn.poll_pause(context)).await;
        }
        echo.abort();
        others.abort();
        // A task that wakes itself leaves one or two.
        assert!(answers.load(Ordering::Relaxed) >= 10, "{answers:?}");
    }

    #[test]
    fn a_turn_is_so_many_records_or_so_many_bytes() {
        let mut turn = Turn::default();
        for _ in 0..2 {
            assert!((1..RECORDS).all(|_| !turn.is_over(10)) && turn.is_over(10));
            assert!(!turn.is_over(TURN_BYTES - 1) && turn.is_over(1));
        }
    }
}
