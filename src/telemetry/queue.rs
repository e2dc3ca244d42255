//! Lines on their way to a file that may be slow: whoever has one puts it into a buffer, and a thread writes what has
//! gathered.
//!
//! Not `tracing-appender`, which does the same with an allocation for each line that another thread frees, and brings a
//! channel and a calendar along.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How much may wait to be written, in bytes, and as much again may be under way: what two busy cores log in a tenth of a
/// second.
const CAPACITY_BYTES: usize = 1024 * 1024;

/// How long the thread lets lines gather after it has written some. It would otherwise be woken for nearly every line, which
/// costs the one who wakes it more than the line.
const PAUSE: Duration = Duration::from_millis(10);

/// How long to wait for what is left to be written when it ends. Whoever reads it may be stuck.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where lines are put. A clone is the same queue.
#[derive(Clone, Debug)]
pub struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    begun: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    ended: bool,
}

/// The thread that writes.
pub struct Writing {
    queue: Queue,
    done: Receiver<()>,
}

impl Queue {
    /// A queue in front of `file`.
    ///
    /// # Errors
    ///
    /// When the system has no thread left.
    pub fn before(file: impl Write + Send + 'static) -> io::Result<(Self, Writing)> {
        let queue = Self(Arc::default());
        let (ended, done) = mpsc::channel();
        let lines = queue.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            lines.write_to(file);
            drop(ended);
        })?;
        Ok((queue.clone(), Writing { queue, done }))
    }

    /// How many lines found no room.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that could panic is done under the lock.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut file: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut waiting = self.lock();
            while waiting.lines.is_empty() && !waiting.ended {
                waiting = self.0.begun.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut waiting.lines, &mut lines);
            let ended = waiting.ended;
            drop(waiting);
            // There is nowhere to say that the log cannot be written.
            let _ = file.write_all(&lines).and_then(|()| file.flush());
            lines.clear();
            if ended {
                return;
            }
            thread::sleep(PAUSE);
        }
    }
}

/// A line a call.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.lock();
        if waiting.lines.len() + line.len() > CAPACITY_BYTES {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        let first = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        if first {
            self.0.begun.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writing {
    /// Writes what is left, if that takes no longer than a second.
    fn drop(&mut self) {
        self.queue.lock().ended = true;
        self.queue.0.begun.notify_one();
        // An error is the end of the thread, or of the patience.
        let _ = self.done.recv_timeout(FAREWELL);
    }
}
