//! Settings that are fine alone and wrong together, each with the reason.
//!
//! Role: the second half of reading a [`Config`]. A conflict stops the node; a warning is for
//! the log. Each relation stands here once, so that whoever changes a default sees what hangs
//! on it.

use crate::config::Config;
use crate::delivery::SmtpTls;
use crate::reader::Reader;
use crate::value::spell_duration;

/// Below this a secret can be guessed offline.
const SECRET_BYTES_ADVISED: usize = 16;

impl Config {
    /// Notes every pair of settings that do not go together.
    pub(crate) fn cross_check(&self, r: &mut Reader<'_>) {
        self.check_lease(r);
        self.check_timeouts(r);
        self.check_stores(r);
        self.check_addresses(r);
        self.check_delivery(r);
    }

    fn check_lease(&self, r: &mut Reader<'_>) {
        let c = &self.cluster;
        let keys = ["cluster.lease_renew", "cluster.lease"];
        r.require(c.lease_renew * 3 <= c.lease, keys, || {
            let most = spell_duration(c.lease / 3);
            format!("must be at most a third of `cluster.lease` ({most}): two renewals may be lost")
        });
        let keys = ["store.query_timeout", "cluster.lease"];
        r.require(self.store.query_timeout + c.lease_renew <= c.lease, keys, || {
            "must fit into `cluster.lease` beside one renewal: a renewal that hangs must fail \
             while the lease still holds"
                .into()
        });
    }

    fn check_timeouts(&self, r: &mut Reader<'_>) {
        let server = &self.server;
        let request = server.request_timeout;
        let keys = ["server.body_read_timeout", "server.request_timeout"];
        r.require(server.body_read_timeout <= request, keys, || {
            "must not exceed `server.request_timeout`, which includes reading the body".into()
        });
        let keys = ["server.drain_timeout", "server.request_timeout"];
        r.require(request <= server.drain_timeout, keys, || {
            "must be at least `server.request_timeout`, or a shut-down cuts requests off".into()
        });
        let store = self.store.query_timeout + self.store.acquire_timeout;
        let keys = ["store.acquire_timeout", "server.request_timeout"];
        r.require(store <= request, keys, || {
            "and `store.query_timeout` must together fit into `server.request_timeout`, or the \
             caller is gone before the store's answer is known"
                .into()
        });
        let keys = ["actors.passivate_after", "checkpoint.interval"];
        r.require(self.checkpoint.interval <= self.actors.passivate_after, keys, || {
            "must be at least `checkpoint.interval`, or actors leave before their first checkpoint"
                .into()
        });
    }

    fn check_stores(&self, r: &mut Reader<'_>) {
        let keys = ["recorder.lanes", "store.pool_size"];
        r.require(self.recorder.lanes <= self.store.pool_size.div_ceil(2), keys, || {
            "must be at most half of `store.pool_size`: the other half reads".into()
        });
        let (queue, batch) = (self.recorder.queue_rows_max, self.ingest.batch_events_max);
        let keys = ["recorder.queue_rows_max", "ingest.batch_events_max"];
        r.require(batch <= queue, keys, || {
            "must be at least `ingest.batch_events_max`, or a full batch is always refused".into()
        });
        let (rows, mailbox) = (self.ingest.batch_checks_max, self.actors.mailbox_messages_max);
        let keys = ["actors.mailbox_messages_max", "ingest.batch_checks_max"];
        r.require(rows <= mailbox, keys, || {
            "must be at least `ingest.batch_checks_max`, or a batch for one key refuses itself"
                .into()
        });
    }

    fn check_addresses(&self, r: &mut Reader<'_>) {
        let listen = self.cluster_listen;
        let clustered = listen.is_some() && self.database_url.is_shared();
        let keys = ["cluster_listen", "cluster_secret"];
        r.require(!clustered || self.cluster_secret.is_some(), keys, || {
            "needs `cluster_secret`: peers prove themselves with it".into()
        });
        let keys = ["cluster_advertise", "cluster_listen"];
        r.require(listen.is_some() || self.cluster_advertise.is_none(), keys, || {
            "needs `cluster_listen`: peers would dial where nobody listens".into()
        });
        let wildcard = listen.is_some_and(|address| address.ip().is_unspecified());
        let reachable = !clustered || !wildcard || self.cluster_advertise.is_some();
        r.require(reachable, ["cluster_listen", "cluster_advertise"], || {
            "listens on every interface, so `cluster_advertise` must say which one peers dial"
                .into()
        });
        let tls = &self.cluster;
        let files = [&tls.tls_authority, &tls.tls_certificate, &tls.tls_key];
        let given = files.iter().filter(|file| file.is_some()).count();
        let keys = ["cluster.tls_authority", "cluster.tls_certificate"];
        r.require(given == 0 || given == files.len(), keys, || {
            "and `cluster.tls_key` go together: all three files or none".into()
        });
        let elsewhere = clustered && listen.is_some_and(|address| !address.ip().is_loopback());
        let safe = !elsewhere || given > 0 || tls.insecure_plaintext;
        r.require(safe, ["cluster_listen", "cluster.tls_certificate"], || {
            "is no loopback, so nodes talk by TLS: set the three `cluster.tls_…` files, or \
             `cluster.insecure_plaintext` in a network that nobody else can reach"
                .into()
        });
        let taken = listen == Some(self.http) && self.http.port() != 0;
        r.require(!taken, ["cluster_listen", "http"], || {
            "is the address of `http`; each protocol needs its own".into()
        });
    }

    fn check_delivery(&self, r: &mut Reader<'_>) {
        let (delivery, smtp) = (&self.delivery, &self.smtp);
        let keys = ["delivery.backoff_max", "delivery.backoff_first"];
        r.require(delivery.backoff_first <= delivery.backoff_max, keys, || {
            "must be at least `delivery.backoff_first`".into()
        });
        let keys = ["delivery.endpoint_concurrency", "delivery.concurrency"];
        r.require(delivery.endpoint_concurrency <= delivery.concurrency, keys, || {
            "must not exceed `delivery.concurrency`: one receiver would hold up all others".into()
        });
        let keys = ["delivery.webhook_secret_old", "delivery.webhook_secret"];
        let alone = delivery.webhook_secret_old.is_some() && delivery.webhook_secret.is_none();
        r.require(!alone, keys, || "has no use without `delivery.webhook_secret`".into());
        r.require(!smtp.is_set() || smtp.from.is_some(), ["smtp.host", "smtp.from"], || {
            "needs `smtp.from`: mail comes from somebody".into()
        });
        let keys = ["smtp.user", "smtp.password"];
        r.require(smtp.user.is_some() == smtp.password.is_some(), keys, || {
            "and `smtp.password` go together".into()
        });
        let keys = ["smtp.user", "smtp.host"];
        r.require(smtp.is_set() || smtp.user.is_none(), keys, || "needs `smtp.host`".into());
    }

    /// What is allowed and yet worth a line in the log.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let secrets =
            [("cluster_secret", &self.cluster_secret), ("admin_token", &self.admin_token)];
        for (key, secret) in secrets {
            if secret.as_ref().is_some_and(|secret| secret.expose().len() < SECRET_BYTES_ADVISED) {
                warnings.push(format!(
                    "`{key}` is shorter than {SECRET_BYTES_ADVISED} bytes and can be guessed"
                ));
            }
        }
        if self.cluster_listen.is_some() && !self.database_url.is_shared() {
            warnings.push("`cluster_listen` has no use on SQLite, which serves one node".into());
        }
        if self.smtp.user.is_some() && self.smtp.tls == SmtpTls::None {
            warnings.push("`smtp.tls` is `none`: the mail password is sent in the clear".into());
        }
        if self.cluster.insecure_plaintext {
            warnings.push(
                "`cluster.insecure_plaintext` is set: who reads the network reads what nodes say"
                    .into(),
            );
        }
        warnings
    }
}
