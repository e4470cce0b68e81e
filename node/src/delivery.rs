//! Messages leave: from the outbox to webhooks and mailboxes, at least once and in order.
//!
//! Role: every node runs one worker. It addresses new messages, claims what is due, sends, and writes
//! how it ended; the store keeps two workers from one delivery. Nothing else waits for this room:
//! messages are enqueued by checkpoints and jobs, and wait in the store while no worker is there.
//! Invariants: a message is not finished before it arrived or was given up (INV-1 for notices); what
//! is under way, and what one receiver may occupy, is bounded (INV-6, INV-7).
//!
//! ```text
//!  outbox ─▶ address ─▶ claim ─▶ webhook ─ guard ─▶ receiver     2xx: delivered
//!   (store)  (channels)   │ └──▶ mail ─▶ SMTP server             else: again, later (backoff), or dead
//!               ▲         ▼
//!               └──── finish ◀── how it ended
//! ```
//! *Killed here?* Before the end is written the claim runs out and another worker sends again, under
//! the same `webhook-id` and `Message-ID`. *Runs twice?* Only whoever holds the claim can end it.

mod attempt;
mod backoff;
mod channels;
mod guard;
mod mail;
mod sender;
mod signature;
mod webhook;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir_config::Smtp;
use weir_store::Store;

use crate::clock::Clock;
use crate::metrics::{Metrics, chain};
use mail::Mailer;
use sender::Sender;
use webhook::WebhookSender;
use worker::Worker;

pub use mail::MailError;

/// How often the outbox is measured for `/metrics`.
const MEASURE_EVERY: Duration = Duration::from_secs(2);
const MICROS_PER_SECOND: f64 = 1e6;

/// What this room works with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where the outbox is.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<Clock>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Ends the room in order: what is under way is given a moment.
    pub stop: CancellationToken,
    /// Cancelled when this node may write nothing more.
    pub lost: CancellationToken,
}

/// PEM of authorities that are trusted beside the public ones.
#[derive(Clone, Debug, Default)]
pub struct Authorities {
    /// By webhooks.
    pub webhooks: Option<Vec<u8>>,
    /// By mail.
    pub mail: Option<Vec<u8>>,
}

/// Why the room could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file of `delivery.tls_authority` is no list of certificates.
    #[error("`delivery.tls_authority` holds no certificates")]
    Authority,
    /// TLS could not be set up.
    #[error("TLS for webhooks could not be set up")]
    Tls(#[source] rustls::Error),
    /// Mail could not be set up.
    #[error("mail could not be set up")]
    Mail(#[source] MailError),
}

/// The room, set up and not yet at work.
pub struct Delivery {
    settings: weir_config::Delivery,
    sender: Option<Sender>,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("enabled", &self.sender.is_some()).finish_non_exhaustive()
    }
}

impl Delivery {
    /// Sets the ways out up; a mistake in the settings is found here and not by the first message.
    pub fn new(
        settings: &weir_config::Delivery,
        smtp: &Smtp,
        authorities: &Authorities,
    ) -> Result<Self, SetupError> {
        let sender = sender(settings, smtp, authorities)?;
        let settings = settings.clone();
        Ok(Self { sender: settings.enabled.then_some(sender), settings })
    }

    /// Starts the worker, unless this node delivers nothing, and what measures the outbox. The
    /// handle ends when both have.
    pub fn start(self, parts: Parts) -> JoinHandle<()> {
        let measuring = tokio::spawn(measure(parts.clone()));
        let worker = |sender| tokio::spawn(Worker::new(&self.settings, sender, parts).run());
        let worker = self.sender.map(worker);
        tokio::spawn(async move {
            // Either only fails by a panic, which has been logged.
            let _ = measuring.await;
            if let Some(worker) = worker {
                let _ = worker.await;
            }
        })
    }
}

fn sender(
    settings: &weir_config::Delivery,
    smtp: &Smtp,
    authorities: &Authorities,
) -> Result<Sender, SetupError> {
    let keys = [&settings.webhook_secret, &settings.webhook_secret_old];
    let keys = keys.into_iter().flatten().cloned().collect();
    let roots = roots(authorities.webhooks.as_deref())?;
    let webhooks = WebhookSender::new(keys, settings.allow.clone(), settings.timeout, roots);
    let mailer = Mailer::new(smtp, authorities.mail.as_deref(), settings.timeout);
    let payment_url = settings.payment_url.as_ref().map(|url| url.expose().to_owned());
    Ok(Sender {
        webhooks: webhooks.map_err(SetupError::Tls)?,
        mailer: mailer.map_err(SetupError::Mail)?,
        payment_url,
        timeout: settings.timeout,
    })
}

fn roots(authority: Option<&[u8]>) -> Result<RootCertStore, SetupError> {
    let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    if let Some(pem) = authority {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let (added, ignored) =
            roots.add_parsable_certificates(read.map_err(|_| SetupError::Authority)?);
        if added == 0 || ignored > 0 {
            return Err(SetupError::Authority);
        }
    }
    Ok(roots)
}

/// Keeps the gauges true, on nodes that do not deliver too.
async fn measure(parts: Parts) {
    let mut ticks = tokio::time::interval(MEASURE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = parts.stop.cancelled() => return,
        }
        match parts.store.outbox_depth().await {
            Ok(depth) => {
                let age = depth.oldest.map_or(0, |oldest| parts.clock.now().since(oldest).get());
                #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
                let seconds = age.max(0) as f64 / MICROS_PER_SECOND;
                parts.metrics.outbox().measured(depth.pending, seconds);
            }
            Err(error) => {
                parts.metrics.outbox().store_failed();
                tracing::debug!(error = %chain(&error), "the outbox was not measured");
            }
        }
    }
}
