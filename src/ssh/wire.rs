//! The connection under a login: it remembers how the other side greeted, takes only so much from it, and is closed by
//! whoever holds its other end. It must never outlive that hold, whatever the task that reads from it does.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is read over one connection. A login takes about 4 KB; a jump host carries another one's.
const READ_MAX: usize = 1 << 20;
/// How much of the beginning is remembered: the greeting, and the 20 lines that may stand before it.
const HEARD_MAX: usize = 6 * 1024;
/// The longest greeting that SSH allows.
const GREETING_MAX: usize = 255;

/// What a connection runs over: a socket, or a channel of a jump host.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

struct Line {
    /// None once it is cut.
    stream: Option<Box<dyn Stream>>,
    heard: Vec<u8>,
    left: usize,
    /// The task that reads and writes; told of the cut.
    waker: Option<Waker>,
}

/// The end that SSH is spoken over.
pub(super) struct Wire(Arc<Mutex<Line>>);

/// The end that keeps the connection open. Dropping it closes the socket at once.
pub(super) struct Hold(Arc<Mutex<Line>>);

/// Both ends of a connection over this stream.
pub(super) fn wire(stream: Box<dyn Stream>) -> (Wire, Hold) {
    let line = Line { stream: Some(stream), heard: Vec::new(), left: READ_MAX, waker: None };
    let line = Arc::new(Mutex::new(line));
    (Wire(Arc::clone(&line)), Hold(line))
}

/// Nothing in here panics while it holds the lock.
fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hold {
    /// The server's greeting (`SSH-2.0-…`), once it has come.
    pub(super) fn greeting(&self) -> Option<String> {
        let line = lock(&self.0);
        line.heard.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"SSH-")).map(printable)
    }
    /// The first line that was heard, if any.
    pub(super) fn first_line(&self) -> Option<String> {
        let line = lock(&self.0);
        let first = line.heard.split(|byte| *byte == b'\n').next().map(printable);
        first.filter(|_| !line.heard.is_empty())
    }
    /// Whether the other side sent more than anybody needs.
    pub(super) fn flooded(&self) -> bool {
        lock(&self.0).left == 0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let (stream, waker) = {
            let mut line = lock(&self.0);
            (line.stream.take(), line.waker.take())
        };
        drop(stream);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A text of the other side, fit for a log: printable ASCII only, at most 255 characters.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let shown = text.chars().filter(|c| !c.is_control()).take(GREETING_MAX);
    shown.map(|c| if c.is_ascii() { c } else { '?' }).collect::<String>().trim_end().to_string()
}

impl Wire {
    fn poll<T>(
        &self,
        context: &mut Context<'_>,
        act: impl FnOnce(&mut Line, Pin<&mut dyn Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut line = lock(&self.0);
        let Some(mut stream) = line.stream.take() else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        };
        let answer = act(&mut line, Pin::new(&mut *stream), context);
        if answer.is_pending() && !line.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            line.waker = Some(context.waker().clone());
        }
        line.stream = Some(stream);
        answer
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(context, |line, stream, context| {
            if line.left == 0 {
                return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
            }
            let before = buffer.filled().len();
            let answer = stream.poll_read(context, buffer);
            let new = &buffer.filled()[before..];
            line.left = line.left.saturating_sub(new.len());
            let room = HEARD_MAX.saturating_sub(line.heard.len());
            line.heard.extend_from_slice(&new[..new.len().min(room)]);
            answer
        })
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(context, |_, stream, context| stream.poll_write(context, bytes))
    }
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context, |_, stream, context| stream.poll_flush(context))
    }
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context, |_, stream, context| stream.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn what_the_other_side_says_is_fit_for_a_log() {
        let check = |said: &[u8], expect: &str| assert_eq!(printable(said), expect);
        check(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r", "SSH-2.0-OpenSSH_9.2p1 Debian-2");
        check(b"a\x1b[31mred\x07\0", "a[31mred");
        check("caf\u{e9} \u{202e}x\u{85}".as_bytes(), "caf? ?x");
        check(b"\xff\xfe", "??");
        check(&[b'a'; 5000], &"a".repeat(255));
    }

    #[tokio::test]
    async fn dropping_the_hold_closes_the_stream_and_wakes_who_reads() {
        let (mut far, near) = tokio::io::duplex(64);
        let (mut end, hold) = wire(Box::new(near));
        let reader = tokio::spawn(async move { end.read_u8().await.unwrap_err().kind() });
        tokio::task::yield_now().await;
        drop(hold);
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0, "the far side sees the end");
        assert_eq!(reader.await.unwrap(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_flood_is_read_so_far_and_no_further_and_its_first_line_is_kept() {
        let (mut far, near) = tokio::io::duplex(1 << 16);
        let (mut end, hold) = wire(Box::new(near));
        assert_eq!((hold.first_line(), hold.greeting(), hold.flooded()), (None, None, false));
        let flood = tokio::spawn(async move {
            far.write_all(b"hello\r\nSSH-2.0-x\r\n").await.unwrap();
            while far.write_all(&[0; 4096]).await.is_ok() {}
        });
        let mut got = Vec::new();
        assert_eq!(end.read_to_end(&mut got).await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(hold.flooded() && got.len() < READ_MAX + (1 << 16), "{}", got.len());
        assert_eq!(hold.first_line().as_deref(), Some("hello"));
        assert_eq!(hold.greeting().as_deref(), Some("SSH-2.0-x"));
        drop(hold);
        flood.await.unwrap();
    }
}
