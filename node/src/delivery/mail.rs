//! Sends one e-mail through the configured server: text and HTML of one letter.
//!
//! Role: a connection for each mail, because they are few and a kept one would have to be watched.
//! The server is the operator's own, so it may stand anywhere; what a subscription can choose is the
//! address of the receiver and nothing else.

mod letter;

use std::time::Duration;

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use uuid::Uuid;
use weir_config::{Smtp, SmtpTls};

use super::attempt::Failed;
use crate::metrics::chain;
pub(super) use letter::Letter;

/// Why no mail can be sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// `smtp.from` is no address.
    #[error("`smtp.from` is no e-mail address")]
    From(#[source] lettre::address::AddressError),
    /// TLS could not be set up.
    #[error("TLS for the mail server could not be set up")]
    Tls(#[source] lettre::transport::smtp::Error),
}

/// The way to the mail server.
pub(super) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    endpoint: String,
}

impl Mailer {
    /// `None` without a mail server. `authority`: PEM of authorities beside the public ones.
    pub(super) fn new(
        smtp: &Smtp,
        authority: Option<&[u8]>,
        timeout: Duration,
    ) -> Result<Option<Self>, MailError> {
        let (Some(host), Some(from)) = (&smtp.host, &smtp.from) else { return Ok(None) };
        let from: Mailbox = from.parse().map_err(MailError::From)?;
        let port = smtp.port.unwrap_or(smtp.tls.port());
        let tls = match smtp.tls {
            SmtpTls::None => Tls::None,
            SmtpTls::StartTls => Tls::Required(parameters(host, authority)?),
            SmtpTls::Implicit => Tls::Wrapper(parameters(host, authority)?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(port)
            .tls(tls)
            .hello_name(ClientId::Domain(from.email.domain().to_owned()))
            .timeout(Some(timeout));
        if let (Some(user), Some(password)) = (&smtp.user, &smtp.password) {
            let credentials = Credentials::new(user.clone(), password.expose().to_owned());
            builder = builder.credentials(credentials);
        }
        let endpoint = format!("smtp:{host}:{port}");
        Ok(Some(Self { transport: builder.build(), from, endpoint }))
    }

    /// What all mail shares.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends it once. `id` becomes the `Message-ID`, so that a mailbox can tell a repeat.
    pub(super) async fn send(&self, to: &str, id: Uuid, letter: Letter) -> Result<(), Failed> {
        let to = to.parse().map_err(|_| Failed::for_good("`userEmail` is no e-mail address"))?;
        let id = format!("<{id}@{}>", self.from.email.domain());
        let mut message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(letter.subject)
            .message_id(Some(id))
            .multipart(MultiPart::alternative_plain_html(letter.text, letter.html))
            .map_err(|error| Failed::for_good(format!("no mail can be made: {error}")))?;
        // RFC 3834: nobody's holiday notice answers it.
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        message.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
        match self.transport.send(message).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_permanent() => Err(Failed::for_good(said(&error))),
            Err(error) => Err(Failed::for_now(said(&error))),
        }
    }
}

fn said(error: &lettre::transport::smtp::Error) -> String {
    format!("SMTP: {}", chain(error))
}

fn parameters(host: &str, authority: Option<&[u8]>) -> Result<TlsParameters, MailError> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(pem) = authority {
        builder = builder.add_root_certificate(Certificate::from_pem(pem).map_err(MailError::Tls)?);
    }
    builder.build().map_err(MailError::Tls)
}
