//! Where URLs lead, how answers are judged, and real receivers on loopback.

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::*;

#[test]
fn a_url_leads_to_a_server_and_a_path() {
    // URL; endpoint, Host header, path.
    let stories = [
        ("https://Example.com", "example.com:443", "example.com", "/"),
        ("http://example.com/hook?a=b", "example.com:80", "example.com", "/hook?a=b"),
        ("https://example.com:8443/x", "example.com:8443", "example.com:8443", "/x"),
        ("http://[::1]:8080/", "::1:8080", "[::1]:8080", "/"),
        ("http://10.0.0.1", "10.0.0.1:80", "10.0.0.1", "/"),
    ];
    for (url, endpoint, authority, path) in stories {
        let target = Target::parse(url).unwrap_or_else(|| panic!("{url}"));
        assert_eq!(target.endpoint(), endpoint);
        assert_eq!((target.authority.as_str(), target.path.as_str()), (authority, path));
        assert_eq!(target.is_https, url.starts_with("https"));
    }
    let bad =
        ["", "example.com", "/hook", "ftp://example.com", "https://a:b@example.com", "http://"];
    for url in bad {
        assert_eq!(Target::parse(url), None, "{url}");
    }
}

#[test]
fn an_answer_is_success_a_failure_or_the_end() {
    // Status, Retry-After; whether it arrived, whether it is final, what is asked for.
    let stories = [
        (200, None, true, false, None),
        (204, None, true, false, None),
        (301, None, false, false, None),
        (304, None, false, false, None),
        (400, None, false, false, None),
        (410, None, false, true, None),
        (429, Some("120"), false, false, Some(120)),
        (500, None, false, false, None),
        (503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), false, false, None),
    ];
    for (status, retry_after, arrived, is_final, asked) in stories {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().expect("a header"));
        }
        let judged = judge(StatusCode::from_u16(status).expect("a status"), &headers);
        assert_eq!(judged.is_ok(), arrived, "{status}");
        if let Err(failed) = judged {
            assert_eq!(failed.is_final, is_final, "{status}");
            assert_eq!(failed.retry_after, asked.map(Duration::from_secs), "{status}");
            assert!(failed.reason.contains(&status.to_string()), "{failed:?}");
        }
    }
}

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn sender(roots: RootCertStore) -> WebhookSender {
    let keys = vec![SigningKey::parse(KEY).expect("a key")];
    let loopback = Networks::parse("127.0.0.0/8, ::1").expect("networks");
    WebhookSender::new(keys, loopback, Duration::from_secs(10), roots).expect("TLS")
}

async fn send(sender: &WebhookSender, url: &str) -> Result<(), Failed> {
    let id = Uuid::from_u128(7);
    sender.send(Webhook { url, id, seconds: 1_790_000_000, body: "{}".to_owned() }).await
}

/// Takes one connection, reads a request's head, answers with these bytes and then holds the
/// connection. Returns the head.
async fn once(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    answer: Vec<u8>,
) -> std::io::Result<String> {
    let (socket, _) = listener.accept().await?;
    match tls {
        Some(tls) => serve(tls.accept(socket).await?, &answer).await,
        None => serve(socket, &answer).await,
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &[u8],
) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n{}") {
        head.push(stream.read_u8().await?);
    }
    // Whoever has read enough goes away.
    let _ = stream.write_all(answer).await;
    let _ = stream.read_u8().await;
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A receiver that answers once, and its port.
async fn receiver(
    tls: Option<TlsAcceptor>,
    answer: impl Into<Vec<u8>>,
) -> (u16, JoinHandle<std::io::Result<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    (port, tokio::spawn(once(listener, tls, answer.into())))
}

/// A server that is certified under this name, and who signed for it.
fn certified(name: &str) -> (TlsAcceptor, RootCertStore) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
    let authority = authority.expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a server");
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("a root");
    (TlsAcceptor::from(Arc::new(config)), roots)
}

#[tokio::test]
async fn tls_and_host_have_the_name_though_the_call_goes_to_the_checked_address() {
    let (tls, roots) = certified("localhost");
    let (port, server) = receiver(Some(tls), "HTTP/1.1 204 No Content\r\n\r\n").await;
    let url = format!("https://localhost:{port}/hook?a=b");
    send(&sender(roots), &url).await.expect("it is trusted");
    let head = server.await.expect("a server").expect("a request");
    assert!(head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{head}");
    let host = format!("\r\nhost: localhost:{port}\r\n");
    assert!(head.to_ascii_lowercase().contains(&host), "{head}");
}

#[tokio::test]
async fn a_receiver_under_another_name_or_of_another_authority_gets_nothing() {
    let (tls, roots) = certified("elsewhere.example");
    let (port, server) = receiver(Some(tls), "HTTP/1.1 200 OK\r\n\r\n").await;
    let failed = send(&sender(roots), &format!("https://localhost:{port}/")).await;
    let failed = failed.expect_err("the name is another");
    assert!(failed.reason.starts_with("TLS: ") && !failed.is_final, "{failed:?}");
    assert!(server.await.expect("a server").is_err(), "no request arrived");

    let (tls, _) = certified("localhost");
    let (_, others) = certified("localhost");
    let (port, server) = receiver(Some(tls), "HTTP/1.1 200 OK\r\n\r\n").await;
    let failed = send(&sender(others), &format!("https://localhost:{port}/")).await;
    assert!(failed.is_err_and(|failed| failed.reason.starts_with("TLS: ")));
    assert!(server.await.expect("a server").is_err(), "no request arrived");
}

#[tokio::test]
async fn an_answer_is_read_to_the_end_of_its_head_and_no_further_than_it_may_be() {
    let endless = vec![b'x'; 4 * limits::WEBHOOK_ANSWER_BYTES_MAX];
    let cookie = [b"HTTP/1.1 200 OK\r\nset-cookie: ", endless.as_slice()].concat();
    let body = [b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n", &endless[..]].concat();
    // Answer; whether it arrived.
    let stories: [(&[u8], bool); 6] = [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n", true),
        (&body, true),
        (&cookie, false),
        (b"220 mail.example.com ESMTP\r\n", false),
        (b"", false),
        (b"HTTP/1.1 500 Oops\r\n\r\n", false),
    ];
    for (answer, arrives) in stories {
        let (port, server) = receiver(None, answer).await;
        let mut sender = sender(RootCertStore::empty());
        if answer.is_empty() {
            sender.timeout = Duration::from_millis(100);
        }
        let sent = send(&sender, &format!("http://127.0.0.1:{port}/")).await;
        let told = String::from_utf8_lossy(&answer[..answer.len().min(40)]);
        assert_eq!(sent.is_ok(), arrives, "{told}: {sent:?}");
        let head = server.await.expect("a server").expect("a request");
        assert!(head.contains("webhook-id: 00000000-0000-0000-0000-000000000007"), "{head}");
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_called() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let mut sender = sender(RootCertStore::empty());
    sender.keys.clear();
    let failed = send(&sender, &url).await.expect_err("nothing to sign with");
    assert!(failed.is_final && failed.reason.contains("delivery.webhook_secret"), "{failed:?}");
}
