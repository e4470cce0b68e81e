//! Both ends prove that they know the cluster's secret before anything else reads the socket.
//!
//! ```text
//!   dialer                                                       acceptor
//!     │── hello: magic, version, nonce, me, the boot I look for ──▶│
//!     │◀── hello: magic, version, nonce, me, the boot you are ─────│
//!     │── HMAC(secret, "dialer"   ‖ both hellos ‖ TLS exporter) ──▶│  refused: closed
//!     │◀── HMAC(secret, "acceptor" ‖ both hellos ‖ TLS exporter) ──│
//! ```
//! HMAC-SHA-256 (RFC 2104) over fresh nonces, a label for each direction against reflection, compared
//! in constant time. The exporter (RFC 9266, TLS 1.3) ties the proof to this TLS session, so that it
//! cannot be relayed. Whoever dials proves first: the port tells strangers nothing about the secret.
//! Everything has a fixed size, so a stranger can make nobody allocate.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use uuid::Uuid;
use weir_config::{NodeId, Secret};

const MAGIC: &[u8; 8] = b"weirpeer";
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 32;
const UUID_BYTES: usize = 16;
const PROOF_BYTES: usize = 32;
/// Enough that two secrets never have the same.
const SEAL_BYTES: usize = 16;
const HELLO_BYTES: usize = MAGIC.len() + 1 + NONCE_BYTES + 2 * UUID_BYTES + 1 + NodeId::CHARS_MAX;

/// Bytes that only the two ends of one TLS session know; zeroes without TLS.
pub(super) type Binding = [u8; 32];

/// Who is at the other end, as proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proven {
    /// Its name.
    pub(super) node_id: String,
    /// Its boot.
    pub(super) incarnation: Uuid,
    /// Number of the link, the same at both ends and known to nobody else.
    pub(super) link: u64,
}

/// Why the other end is not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the connection broke while it was being proven")]
    Io(#[from] std::io::Error),
    #[error("what speaks there is no node of this version")]
    NoPeer,
    #[error("the peer has another cluster secret")]
    Secret,
    #[error("the peer at this address is another one")]
    SomebodyElse,
    #[error("the peer's node id is not one")]
    NodeId,
    #[error("the peer's certificate has neither its node id nor its host as a name")]
    Name,
    #[error("the peer is on another machine and there is no TLS")]
    Plaintext,
    #[error("the peer was put out, goes by another name, or waits to be dialled")]
    NotLetIn,
    #[error("the peer's old link must go first")]
    LinkedAlready,
}

/// This end.
#[derive(Clone, Copy)]
pub(super) struct Me<'a> {
    pub(super) node_id: &'a str,
    pub(super) incarnation: Uuid,
    pub(super) secret: &'a Secret,
}

/// Proves as the one who dialled; `to` is who should be there.
pub(super) async fn dial<S>(
    socket: &mut S,
    me: Me<'_>,
    to: Uuid,
    binding: &Binding,
) -> Result<Proven, Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let own = hello(me, to);
    socket.write_all(&own).await?;
    socket.flush().await?;
    let other = read_hello(socket).await?;
    let peer = parse(&other)?;
    if peer.from != to || peer.to != me.incarnation {
        return Err(Refused::SomebodyElse);
    }
    let proofs = Proofs { secret: me.secret, dialer: &own, acceptor: &other, binding };
    socket.write_all(&proofs.tag(b"dialer")).await?;
    socket.flush().await?;
    proofs.expect(socket, b"acceptor").await?;
    Ok(Proven { node_id: peer.node_id, incarnation: peer.from, link: proofs.link() })
}

/// Proves as the one who was dialled.
pub(super) async fn accept<S>(
    socket: &mut S,
    me: Me<'_>,
    binding: &Binding,
) -> Result<Proven, Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let other = read_hello(socket).await?;
    let peer = parse(&other)?;
    if peer.to != me.incarnation || peer.from == me.incarnation {
        return Err(Refused::SomebodyElse);
    }
    let own = hello(me, peer.from);
    socket.write_all(&own).await?;
    socket.flush().await?;
    let proofs = Proofs { secret: me.secret, dialer: &other, acceptor: &own, binding };
    proofs.expect(socket, b"dialer").await?;
    socket.write_all(&proofs.tag(b"acceptor")).await?;
    socket.flush().await?;
    Ok(Proven { node_id: peer.node_id, incarnation: peer.from, link: proofs.link() })
}

/// What the library's own handshake compares: not the secret, and of no use without it.
pub(super) fn cookie(secret: &Secret) -> Vec<u8> {
    let mut mac = keyed(secret);
    mac.update(b"weir carrier cookie v1");
    mac.finalize().into_bytes().to_vec()
}

/// By which nodes that know the same secret recognise one another in the database, 32 digits.
pub fn seal(secret: &Secret) -> String {
    let mut mac = keyed(secret);
    mac.update(b"weir cluster seal v1");
    let tag: [u8; PROOF_BYTES] = mac.finalize().into_bytes().into();
    tag.iter().take(SEAL_BYTES).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn keyed(secret: &Secret) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes a key of any length")
}

struct Proofs<'a> {
    secret: &'a Secret,
    dialer: &'a [u8; HELLO_BYTES],
    acceptor: &'a [u8; HELLO_BYTES],
    binding: &'a Binding,
}

impl Proofs<'_> {
    fn mac(&self, label: &[u8]) -> Hmac<Sha256> {
        let mut mac = keyed(self.secret);
        // Everything behind the label has a fixed size, so no two inputs look alike.
        for part in [b"weir peer v1 ", label, &self.dialer[..], &self.acceptor[..], self.binding] {
            mac.update(part);
        }
        mac
    }

    fn tag(&self, label: &[u8]) -> [u8; PROOF_BYTES] {
        self.mac(label).finalize().into_bytes().into()
    }

    async fn expect<S>(&self, socket: &mut S, label: &[u8]) -> Result<(), Refused>
    where
        S: AsyncRead + Unpin,
    {
        let mut proof = [0; PROOF_BYTES];
        socket.read_exact(&mut proof).await?;
        // Compares in constant time.
        self.mac(label).verify_slice(&proof).map_err(|_| Refused::Secret)
    }

    fn link(&self) -> u64 {
        let tag = self.tag(b"link");
        let mut number = [0; 8];
        number.copy_from_slice(&tag[..8]);
        u64::from_be_bytes(number)
    }
}

fn hello(me: Me<'_>, to: Uuid) -> [u8; HELLO_BYTES] {
    let nonce: [u8; NONCE_BYTES] = rand::random();
    let name = &me.node_id.as_bytes()[..me.node_id.len().min(NodeId::CHARS_MAX)];
    let mut hello = [0; HELLO_BYTES];
    let mut at = 0;
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    let from = me.incarnation;
    for part in [MAGIC, &[VERSION][..], &nonce, from.as_bytes(), to.as_bytes(), &[length], name] {
        hello[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    hello
}

struct Hello {
    from: Uuid,
    to: Uuid,
    node_id: String,
}

async fn read_hello<S: AsyncRead + Unpin>(socket: &mut S) -> Result<[u8; HELLO_BYTES], Refused> {
    let mut hello = [0; HELLO_BYTES];
    // A stranger is told by its first bytes, not by the lack of the rest.
    socket.read_exact(&mut hello[..=MAGIC.len()]).await?;
    if hello[..MAGIC.len()] != MAGIC[..] || hello[MAGIC.len()] != VERSION {
        return Err(Refused::NoPeer);
    }
    socket.read_exact(&mut hello[MAGIC.len() + 1..]).await?;
    Ok(hello)
}

fn parse(hello: &[u8; HELLO_BYTES]) -> Result<Hello, Refused> {
    let from_at = MAGIC.len() + 1 + NONCE_BYTES;
    let uuid = |at: usize| Uuid::from_slice(&hello[at..at + UUID_BYTES]).unwrap_or_default();
    let length_at = from_at + 2 * UUID_BYTES;
    let name = hello[length_at + 1..].get(..usize::from(hello[length_at]));
    let name = name.and_then(|name| std::str::from_utf8(name).ok()).and_then(NodeId::new);
    let node_id = name.ok_or(Refused::NodeId)?.as_str().to_owned();
    Ok(Hello { from: uuid(from_at), to: uuid(from_at + UUID_BYTES), node_id })
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    /// Both ends of one handshake.
    async fn prove(
        secrets: [&str; 2],
        looked_for: Uuid,
        bindings: [Binding; 2],
    ) -> [Result<Proven, Refused>; 2] {
        let (mut near, mut far) = duplex(1024);
        let [dialer, acceptor] = secrets.map(secret);
        let a = async {
            let me = Me { node_id: "a", incarnation: A, secret: &dialer };
            let result = dial(&mut near, me, looked_for, &bindings[0]).await;
            drop(near);
            result
        };
        let b = async {
            let me = Me { node_id: "b", incarnation: B, secret: &acceptor };
            let result = accept(&mut far, me, &bindings[1]).await;
            drop(far);
            result
        };
        let (a, b) = tokio::join!(a, b);
        [a, b]
    }

    #[tokio::test]
    async fn two_that_share_a_secret_know_each_other_and_number_their_link_alike() {
        let [a, b] = prove(["s", "s"], B, [[7; 32]; 2]).await.map(Result::unwrap);
        assert_eq!((a.node_id.as_str(), a.incarnation), ("b", B));
        assert_eq!((b.node_id.as_str(), b.incarnation), ("a", A));
        assert_eq!(a.link, b.link);
        let [again, _] = prove(["s", "s"], B, [[7; 32]; 2]).await.map(Result::unwrap);
        assert_ne!(a.link, again.link, "every link has a number of its own");
    }

    #[tokio::test]
    async fn another_secret_is_refused_by_the_one_who_was_dialled_which_proves_nothing() {
        let [a, b] = prove(["s", "t"], B, [[0; 32]; 2]).await;
        assert!(matches!(b, Err(Refused::Secret)), "{b:?}");
        assert!(matches!(a, Err(Refused::Io(_))), "{a:?}");
    }

    #[tokio::test]
    async fn a_proof_relayed_from_another_tls_session_is_refused() {
        let [_, b] = prove(["s", "s"], B, [[1; 32], [2; 32]]).await;
        assert!(matches!(b, Err(Refused::Secret)), "{b:?}");
    }

    #[tokio::test]
    async fn a_boot_that_is_not_the_one_looked_for_is_refused() {
        let [a, b] = prove(["s", "s"], Uuid::from_u128(3), [[0; 32]; 2]).await;
        assert!(matches!(b, Err(Refused::SomebodyElse)), "{b:?}");
        assert!(a.is_err(), "{a:?}");
    }

    #[tokio::test]
    async fn an_acceptor_that_reflects_what_it_is_sent_is_refused() {
        let (mut near, mut far) = duplex(1024);
        let secret = secret("s");
        let me = Me { node_id: "a", incarnation: A, secret: &secret };
        let mirror = async {
            let mut hello = [0; HELLO_BYTES];
            far.read_exact(&mut hello).await.unwrap();
            // It gives the hello back as from the one looked for, and the proof as it came.
            let from_at = MAGIC.len() + 1 + NONCE_BYTES;
            hello[from_at..from_at + UUID_BYTES].copy_from_slice(B.as_bytes());
            hello[from_at + UUID_BYTES..from_at + 2 * UUID_BYTES].copy_from_slice(A.as_bytes());
            far.write_all(&hello).await.unwrap();
            let mut proof = [0; PROOF_BYTES];
            far.read_exact(&mut proof).await.unwrap();
            far.write_all(&proof).await.unwrap();
        };
        let (refused, ()) = tokio::join!(dial(&mut near, me, B, &[0; 32]), mirror);
        assert!(matches!(refused, Err(Refused::Secret)), "{refused:?}");
    }

    #[tokio::test]
    async fn garbage_is_refused_by_its_first_bytes() {
        let secret = secret("s");
        let me = Me { node_id: "b", incarnation: B, secret: &secret };
        for garbage in [&b"GET / HTTP/1.1\r\n"[..], &[0xff; 16], &b"weirpeer\x02"[..]] {
            let (mut near, mut far) = duplex(1024);
            near.write_all(garbage).await.unwrap();
            let refused = accept(&mut far, me, &[0; 32]).await;
            assert!(matches!(refused, Err(Refused::NoPeer)), "{refused:?}");
        }
    }

    #[test]
    fn a_hello_whose_name_is_no_node_id_is_refused() {
        let secret = secret("s");
        let mut bytes = hello(Me { node_id: "a", incarnation: A, secret: &secret }, B);
        let length_at = HELLO_BYTES - NodeId::CHARS_MAX - 1;
        for (length, first) in [(0, b'a'), (1, b'/'), (255, b'a'), (2, b'a')] {
            bytes[length_at] = length;
            bytes[length_at + 1] = first;
            assert!(matches!(parse(&bytes), Err(Refused::NodeId)), "{length}");
        }
    }
}
