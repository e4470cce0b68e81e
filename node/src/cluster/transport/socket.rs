//! Sockets of our own: options, plain or TLS, and halves that can be cut.
//!
//! A carrier that is stopped leaves a write under way behind, with its backlog; so both halves watch
//! a token, and when it is cancelled they let go of the socket and report its end.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The carrier reads a frame in pieces of 8 KiB and less; this many bytes cost one system call.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// A host that vanished is noticed by the kernel after about as long as by our pings.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Sets what every peer's socket needs.
pub(super) fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_RETRIES))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

/// A connected socket that may speak TLS.
pub(super) enum PeerSocket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for PeerSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for PeerSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A proven socket on its way into the carrier.
pub(super) struct Carried {
    pub(super) socket: PeerSocket,
    /// Names it in the carrier's events; no other socket of this process has the same.
    pub(super) label: String,
    /// Closes it.
    pub(super) cut: CancellationToken,
}

impl ClusterBidiStream for Carried {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        let cut = self.cut;
        match self.socket {
            PeerSocket::Plain(stream) => {
                let (read, write) = stream.into_split();
                halves(read, write, cut)
            }
            tls @ PeerSocket::Tls(_) => {
                let (read, write) = tokio::io::split(tls);
                halves(read, write, cut)
            }
        }
    }

    fn peer_label(&self) -> Option<String> {
        Some(self.label.clone())
    }
}

fn halves<R, W>(read: R, write: W, cut: CancellationToken) -> (BoxRead, BoxWrite)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let read = BufReader::with_capacity(READ_BUFFER_BYTES, read);
    (Box::new(Cuttable::new(read, cut.clone())), Box::new(Cuttable::new(write, cut)))
}

/// A half that ends when its token is cancelled.
struct Cuttable<T> {
    half: Option<T>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<T: Unpin> Cuttable<T> {
    fn new(half: T, cut: CancellationToken) -> Self {
        Self { half: Some(half), cut: Box::pin(cut.cancelled_owned()) }
    }

    /// The half, until it is cut; also asks to be woken then.
    fn live(&mut self, cx: &mut Context<'_>) -> Option<Pin<&mut T>> {
        if self.half.is_some() && self.cut.as_mut().poll(cx).is_ready() {
            self.half = None;
        }
        self.half.as_mut().map(Pin::new)
    }
}

fn was_cut() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the link was cut")
}

impl<T: AsyncRead + Unpin> AsyncRead for Cuttable<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut().live(cx) {
            Some(half) => half.poll_read(cx, buffer),
            None => Poll::Ready(Err(was_cut())),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Cuttable<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut().live(cx) {
            Some(half) => half.poll_write(cx, bytes),
            None => Poll::Ready(Err(was_cut())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().live(cx) {
            Some(half) => half.poll_flush(cx),
            None => Poll::Ready(Err(was_cut())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().live(cx) {
            Some(half) => half.poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_cut_ends_a_read_and_a_write_that_wait_and_lets_go_of_the_socket() {
        let (near, mut far) = duplex(8);
        let (read, write) = tokio::io::split(near);
        let cut = CancellationToken::new();
        let (mut read, mut write) = halves(read, write, cut.clone());
        let reading = tokio::spawn(async move { read.read_u8().await.map_err(|e| e.kind()) });
        let writing =
            tokio::spawn(async move { write.write_all(&[0; 64]).await.map_err(|e| e.kind()) });
        // Both wait: there is nothing to read, and no room for more than eight bytes.
        far.read_exact(&mut [0; 4]).await.unwrap();
        cut.cancel();
        assert_eq!(reading.await.unwrap(), Err(io::ErrorKind::BrokenPipe));
        assert_eq!(writing.await.unwrap(), Err(io::ErrorKind::BrokenPipe));
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() <= 12, "the other side sees the end, and {} bytes before", rest.len());
    }
}
