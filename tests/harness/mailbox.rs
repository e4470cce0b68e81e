//! A mail server on loopback that takes every mail, or refuses as the story wants, and keeps it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::eventually;

/// Longest wait for what must arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// A mail as it arrived.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Envelope: from whom.
    pub from: String,
    /// Envelope: to whom.
    pub to: String,
    /// What the sender logged in with, in base64; empty when it did not.
    pub login: String,
    /// Headers and body, lines ended by CR and LF.
    pub content: String,
}

impl Mail {
    /// The part of this type, decoded.
    ///
    /// # Panics
    /// When there is none, or in an encoding that no text should need.
    pub fn part(&self, content_type: &str) -> String {
        let begin = self.content.find(&format!("Content-Type: {content_type}"));
        let begin = begin.unwrap_or_else(|| panic!("no {content_type}: {}", self.content));
        let part = &self.content[begin..];
        let (head, rest) = part.split_once("\r\n\r\n").expect("a part has headers and a body");
        let body = &rest[..rest.find("\r\n--").expect("a boundary ends a part")];
        if head.contains("quoted-printable") {
            return decode_quoted(body);
        }
        assert!(!head.contains("base64"), "text that a person could not read: {head}");
        body.to_owned()
    }

    /// A header of the mail.
    ///
    /// # Panics
    /// When it has none of this name.
    pub fn header(&self, name: &str) -> &str {
        let begin = format!("{name}: ");
        let line = self.content.lines().find_map(|line| line.strip_prefix(begin.as_str()));
        line.unwrap_or_else(|| panic!("no {name}: {}", self.content))
    }
}

fn decode_quoted(text: &str) -> String {
    let joined = text.replace("=\r\n", "");
    let mut bytes = Vec::new();
    let mut rest = joined.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'=' {
            let (digits, after) = rest.split_at(2);
            let digits = std::str::from_utf8(digits).expect("hexadecimal digits");
            bytes.push(u8::from_str_radix(digits, 16).expect("hexadecimal digits"));
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// A mail server; it is gone with this value.
#[derive(Debug)]
pub struct Mailbox {
    address: SocketAddr,
    mails: Arc<Mutex<Vec<Mail>>>,
    logins: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Mailbox {
    /// Takes every mail.
    pub async fn start() -> Self {
        Self::answering(|_| "250 ok").await
    }

    /// Answers `RCPT TO` of the mail of this number, from 0 and by tries, with this line.
    pub async fn answering(reply: impl Fn(usize) -> &'static str + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let mails: Arc<Mutex<Vec<Mail>>> = Arc::default();
        let logins: Arc<AtomicUsize> = Arc::default();
        let (kept, counted) = (mails.clone(), logins.clone());
        let accepting = tokio::spawn(async move {
            let (reply, tries) = (Arc::new(reply), Arc::new(AtomicUsize::new(0)));
            let mut sessions = tokio::task::JoinSet::new();
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                let (reply, tries, kept) = (reply.clone(), tries.clone(), kept.clone());
                let counted = counted.clone();
                let next = move || reply(tries.fetch_add(1, Ordering::Relaxed));
                sessions.spawn(session(socket, next, kept, counted));
                while sessions.try_join_next().is_some() {}
            }
        });
        Self { address, mails, logins, accepting: accepting.abort_handle() }
    }

    /// The port it listens at.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What came so far.
    pub fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often somebody logged in.
    pub fn logins(&self) -> usize {
        self.logins.load(Ordering::Relaxed)
    }

    /// Waits until so many have come, and returns all.
    pub async fn wait_for(&self, count: usize) -> Vec<Mail> {
        eventually("mails", PATIENCE, || async {
            let mails = self.mails();
            let came = mails.len();
            if came >= count { Ok(mails) } else { Err(format!("{came} of {count}")) }
        })
        .await
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// As much of RFC 5321 as a sender of mail needs. A broken connection ends it.
async fn session(
    socket: TcpStream,
    reply: impl Fn() -> &'static str + Send,
    mails: Arc<Mutex<Vec<Mail>>>,
    logins: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let mut socket = BufReader::new(socket);
    socket.write_all(b"220 mailbox\r\n").await?;
    let (mut from, mut to, mut login) = (String::new(), String::new(), String::new());
    let mut line = String::new();
    loop {
        line.clear();
        if socket.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let text = line.trim_end();
        let answer = match text.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => "250-mailbox\r\n250 AUTH PLAIN",
            "AUTH" => {
                logins.fetch_add(1, Ordering::Relaxed);
                login = text.trim_start_matches("AUTH PLAIN ").to_owned();
                "235 welcome"
            }
            "MAIL" => {
                from = address_in(text);
                "250 ok"
            }
            "RCPT" => {
                to = address_in(text);
                reply()
            }
            "DATA" => {
                socket.write_all(b"354 go on\r\n").await?;
                let content = content(&mut socket).await?;
                let mail =
                    Mail { from: from.clone(), to: to.clone(), login: login.clone(), content };
                mails.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
                "250 taken"
            }
            "QUIT" => {
                socket.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => "250 ok",
        };
        socket.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
}

async fn content(socket: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let (mut content, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        let ended = socket.read_line(&mut line).await? == 0 || line == ".\r\n";
        if ended {
            return Ok(content);
        }
        // A line that begins with a dot was sent with one more.
        content.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}

fn address_in(line: &str) -> String {
    let inside = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inside.map(|(address, _)| address.to_owned()).unwrap_or_default()
}
