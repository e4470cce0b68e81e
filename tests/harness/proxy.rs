//! A TCP proxy that stands on a wire and can hold, delay or cut it, both ways or one.
//!
//! ```text
//!   node ──towards──▶ proxy ──towards──▶ Postgres, or the peers' port of a node
//!        ◀───back────       ◀───back────
//! ```
//! Held bytes are kept and flow when the wire is whole again, as TCP does over a network that was
//! parted for a while. A cut resets what is open and everything that is opened until it is mended.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

const BUFFER_BYTES: usize = 16 * 1024;

/// What happens to bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// They pass.
    Open,
    /// They pass so much later.
    Late(Duration),
    /// They wait.
    Held,
}

#[derive(Clone, Copy, Debug)]
struct State {
    towards: Gate,
    back: Gate,
    cut: bool,
}

/// A wire with a proxy on it; it is gone with this value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepting: AbortHandle,
}

impl Proxy {
    /// A whole wire to `upstream`, a host with its port.
    pub async fn start(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let whole = State { towards: Gate::Open, back: Gate::Open, cut: false };
        let (state, watched) = watch::channel(whole);
        let accepting = tokio::spawn(accept(listener, upstream, watched)).abort_handle();
        Self { address, state, accepting }
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything passes again; what was held flows.
    pub fn mend(&self) {
        self.set(State { towards: Gate::Open, back: Gate::Open, cut: false });
    }

    /// Bytes of either direction wait: no end hears anything, and none is told.
    pub fn hold(&self) {
        self.gates(Gate::Held, Gate::Held);
    }

    /// Sets each direction by itself: towards the upstream, and back from it.
    pub fn gates(&self, towards: Gate, back: Gate) {
        self.set(State { towards, back, cut: false });
    }

    /// Resets every connection, now and until it is mended.
    pub fn cut(&self) {
        self.set(State { towards: Gate::Held, back: Gate::Held, cut: true });
    }

    fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, upstream: String, state: watch::Receiver<State>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { return };
                connections.spawn(carry(near, upstream.clone(), state.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut near: TcpStream, upstream: String, mut state: watch::Receiver<State>) {
    if state.borrow().cut {
        return reset(near);
    }
    let Ok(mut far) = TcpStream::connect(&upstream).await else { return reset(near) };
    // As the ends themselves would: a small message is not held back for a larger one.
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    let towards = pump(near_read, far_write, state.clone(), |state| state.towards);
    let back = pump(far_read, near_write, state.clone(), |state| state.back);
    let is_cut = tokio::select! {
        _ = async { tokio::join!(towards, back) } => false,
        cut = state.wait_for(|state| state.cut) => cut.is_ok(),
    };
    if is_cut {
        reset(near);
        reset(far);
    }
}

fn reset(socket: TcpStream) {
    // Nothing of it is to be delivered any more.
    socket.set_zero_linger().ok();
    drop(socket);
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    way: fn(&State) -> Gate,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or_default();
        let passed =
            state.wait_for(|state| way(state) != Gate::Held).await.map(|state| way(&state));
        let Ok(gate) = passed else { return };
        if let Gate::Late(by) = gate {
            tokio::time::sleep(by).await;
        }
        if read == 0 {
            // The other direction may go on.
            to.shutdown().await.ok();
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
