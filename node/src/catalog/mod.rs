//! Who may do what on which terms: keys, subscriptions, plans and tokens, as remembered.
//!
//! Role: bounded caches in front of the store's catalogue, so that a check costs a look-up in memory.
//! A change goes to the store first, then the cache forgets ([`Catalog::forget_subscription`] …). A
//! read that was under way during a change does not fill the cache ([`Generation`]). While the store
//! is away what is known stays known; what is not known is an error, never a guess.

pub mod definition;
pub mod plan_document;
pub mod principal;
mod remembered;
mod trouble;

use std::collections::HashSet;
use std::hash::Hash;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use uuid::Uuid;
use weir_config::limits;
use weir_core::plan::Plan;
use weir_core::units::{PlanId, ShardId, SubscriptionId};
use weir_store::rows::{SubscriptionRow, SubscriptionStatus};
use weir_store::{Error, Reach, Store};

use crate::clock::Clock;
use principal::{Principal, TokenError};
use remembered::Remembered;
use trouble::Trouble;

/// Plans remembered: versions in use, a few KB each.
const PLANS_MAX: usize = 10_000;
/// Tokens remembered.
const TOKENS_MAX: usize = 50_000;
/// How long a token or key that nobody has is remembered as such.
const UNKNOWN_FOR: Duration = limits::NEGATIVE_KEY_CACHE_TTL;
/// How long what is known may go without being read again: every change is heard of, at the latest from
/// the audit log.
const KNOWN_FOR: Duration = Duration::from_hours(24);
/// The same of subscriptions: a plan that was to change at a period's end changes without an entry.
const SUBSCRIPTION_KNOWN_FOR: Duration = Duration::from_mins(1);

/// SHA-256 of a secret; what the store keeps of keys and tokens.
pub type SecretHash = [u8; 32];

/// Hashes a key or a token.
pub fn hash_secret(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
}

/// What recording and routing need of a subscription.
#[derive(Clone, Debug)]
pub struct Known {
    /// Identity.
    pub id: SubscriptionId,
    /// Where it lives.
    pub shard: ShardId,
    /// Whose customer.
    pub tenant: String,
    /// Which API.
    pub api_id: Option<String>,
    /// Its plan.
    pub plan: PlanId,
}

/// Answer to a key.
#[derive(Clone, Copy, Debug)]
pub enum KeyLookup {
    /// Nobody has it.
    Unknown,
    /// It was taken back.
    Revoked {
        /// Which key.
        key: Uuid,
        /// Of whom.
        subscription: SubscriptionId,
    },
    /// It is good.
    Good {
        /// Which key.
        key: Uuid,
        /// Of whom.
        subscription: SubscriptionId,
    },
}

/// Counts changes, so that a slow read does not bring back what was forgotten meanwhile.
#[derive(Debug, Default)]
struct Generation(AtomicU64);

impl Generation {
    fn read(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn bump(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// The caches.
#[derive(Debug)]
pub struct Catalog {
    store: Arc<dyn Store>,
    clock: Arc<Clock>,
    shard_count: NonZeroU16,
    generation: Generation,
    keys: Remembered<SecretHash, KeyLookup>,
    unknown_keys: Remembered<SecretHash, ()>,
    subscriptions: Remembered<SubscriptionId, Arc<Known>>,
    plans: Remembered<(PlanId, u32), Arc<Plan>>,
    newest: Remembered<PlanId, Arc<Plan>>,
    issues: Remembered<(PlanId, u32), definition::Issue>,
    tokens: Remembered<SecretHash, Arc<Principal>>,
    unknown_tokens: Remembered<SecretHash, ()>,
    bootstrap: Option<SecretHash>,
    trouble: Trouble,
}

/// Why a plan could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PlanLookupError {
    /// The store failed.
    #[error("the plan could not be read")]
    Store(#[source] Error),
    /// There is none.
    #[error("no such plan")]
    NotFound,
    /// What is stored is not a plan.
    #[error("the stored plan is damaged")]
    Damaged(#[source] plan_document::PlanError),
}

impl Catalog {
    /// Caches that know nothing but the bootstrap token.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<Clock>,
        shard_count: NonZeroU16,
        admin_token: Option<&str>,
    ) -> Self {
        let unknown = limits::NEGATIVE_KEY_CACHE_ENTRIES_MAX;
        let known = limits::KEY_CACHE_ENTRIES_MAX;
        Self {
            store,
            clock,
            shard_count,
            generation: Generation::default(),
            keys: Remembered::new(known, KNOWN_FOR),
            unknown_keys: Remembered::new(unknown, UNKNOWN_FOR),
            subscriptions: Remembered::new(known, SUBSCRIPTION_KNOWN_FOR),
            plans: Remembered::new(PLANS_MAX, Duration::MAX),
            issues: Remembered::new(PLANS_MAX, Duration::MAX),
            newest: Remembered::new(PLANS_MAX, KNOWN_FOR),
            tokens: Remembered::new(TOKENS_MAX, KNOWN_FOR),
            unknown_tokens: Remembered::new(unknown, UNKNOWN_FOR),
            bootstrap: admin_token.map(hash_secret),
            trouble: Trouble::default(),
        }
    }

    /// The shard of a subscription.
    pub fn shard_of(&self, id: SubscriptionId) -> ShardId {
        ShardId(weir_config::shard_of(*id.uuid().as_bytes(), self.shard_count))
    }

    /// Whose key this is.
    pub async fn find_key(&self, key: &str) -> Result<KeyLookup, Error> {
        let hash = hash_secret(key);
        if let Some(known) = self.keys.get(self.clock.now(), &hash) {
            return Ok(known);
        }
        if self.unknown_keys.get(self.clock.now(), &hash).is_some() {
            return Ok(KeyLookup::Unknown);
        }
        if let Some(old) = self.known_in_trouble(&self.keys, &hash) {
            return Ok(old);
        }
        let generation = self.generation.read();
        let found = match self.noted(self.store.find_key(&hash).await) {
            Ok(found) => found,
            // What is known stays known while the store is away.
            Err(error) => return self.keys.get_old(&hash).ok_or(error),
        };
        let lookup = match found {
            Some((_, row)) if row.status == SubscriptionStatus::Deleted => KeyLookup::Unknown,
            Some((key, row)) if key.revoked_at.is_some() => {
                KeyLookup::Revoked { key: key.id, subscription: row.id }
            }
            Some((key, row)) => KeyLookup::Good { key: key.id, subscription: row.id },
            None => KeyLookup::Unknown,
        };
        match lookup {
            KeyLookup::Unknown => self.remember(generation, &self.unknown_keys, &hash, ()),
            found => self.remember(generation, &self.keys, &hash, found),
        }
        Ok(lookup)
    }

    /// A subscription by id; `None` when there is none.
    pub async fn find_subscription(&self, id: SubscriptionId) -> Result<Option<Arc<Known>>, Error> {
        if let Some(known) = self.subscriptions.get(self.clock.now(), &id) {
            return Ok(Some(known));
        }
        if let Some(old) = self.known_in_trouble(&self.subscriptions, &id) {
            return Ok(Some(old));
        }
        let generation = self.generation.read();
        let row = match self.noted(self.store.find_subscription(id, &Reach::default()).await) {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(None),
            Err(error) => return self.subscriptions.get_old(&id).map(Some).ok_or(error),
        };
        let known = Arc::new(self.known(&row));
        self.remember(generation, &self.subscriptions, &id, known.clone());
        Ok(Some(known))
    }

    fn known(&self, row: &SubscriptionRow) -> Known {
        Known {
            id: row.id,
            shard: self.shard_of(row.id),
            tenant: row.tenant.clone(),
            api_id: row.api_id.clone(),
            plan: row.plan,
        }
    }

    /// A plan's version.
    pub async fn plan(&self, id: PlanId, version: u32) -> Result<Arc<Plan>, PlanLookupError> {
        if let Some(plan) = self.plans.get(self.clock.now(), &(id, version)) {
            return Ok(plan);
        }
        let stored = i32::try_from(version).map_err(|_| PlanLookupError::NotFound)?;
        let plan = self.read_plan(id, Some(stored)).await?;
        // Versions never change, so no generation is needed.
        self.plans.insert(self.clock.now(), (id, version), plan.clone());
        Ok(plan)
    }

    /// A plan's newest version.
    pub async fn newest_plan(&self, id: PlanId) -> Result<Arc<Plan>, PlanLookupError> {
        if let Some(plan) = self.newest.get(self.clock.now(), &id) {
            return Ok(plan);
        }
        if let Some(old) = self.known_in_trouble(&self.newest, &id) {
            return Ok(old);
        }
        let generation = self.generation.read();
        let plan = match self.read_plan(id, None).await {
            Ok(plan) => plan,
            Err(PlanLookupError::Store(error)) => {
                return self.newest.get_old(&id).ok_or(PlanLookupError::Store(error));
            }
            Err(error) => return Err(error),
        };
        self.remember(generation, &self.newest, &id, plan.clone());
        Ok(plan)
    }

    async fn read_plan(
        &self,
        id: PlanId,
        version: Option<i32>,
    ) -> Result<Arc<Plan>, PlanLookupError> {
        let row =
            self.noted(self.store.find_plan(id, version).await).map_err(PlanLookupError::Store)?;
        let row = match (row, version) {
            (None, Some(version)) => {
                let retired = self.store.find_retired_plan(id, version).await;
                retired.map_err(PlanLookupError::Store)?
            }
            (row, _) => row,
        };
        let row = row.ok_or(PlanLookupError::NotFound)?;
        let version = u32::try_from(row.version).map_err(|_| PlanLookupError::NotFound)?;
        let plan = plan_document::parse(row.config.as_bytes(), id, version)
            .map_err(PlanLookupError::Damaged)?;
        Ok(Arc::new(plan))
    }

    /// Who holds this token.
    pub async fn authenticate(&self, token: &str) -> Result<Arc<Principal>, TokenError> {
        let hash = hash_secret(token);
        let principal = match self.tokens.get(self.clock.now(), &hash) {
            Some(principal) => principal,
            None => self.read_token(&hash).await?,
        };
        if principal.expires_at.is_some_and(|end| self.clock.now() >= end) {
            return Err(TokenError::Unknown);
        }
        Ok(principal)
    }

    async fn read_token(&self, hash: &SecretHash) -> Result<Arc<Principal>, TokenError> {
        if let Some(bootstrap) = &self.bootstrap
            && bool::from(subtle::ConstantTimeEq::ct_eq(&bootstrap[..], &hash[..]))
        {
            let principal = Arc::new(Principal::bootstrap());
            self.tokens.insert(self.clock.now(), *hash, principal.clone());
            return Ok(principal);
        }
        if self.unknown_tokens.get(self.clock.now(), hash).is_some() {
            return Err(TokenError::Unknown);
        }
        if let Some(old) = self.known_in_trouble(&self.tokens, hash) {
            return Ok(old);
        }
        let generation = self.generation.read();
        let row = match self.noted(self.store.find_token(hash).await) {
            Ok(row) => row,
            Err(error) => return self.tokens.get_old(hash).ok_or(TokenError::Store(error)),
        };
        let Some(principal) = row.as_ref().and_then(Principal::from_row) else {
            self.remember(generation, &self.unknown_tokens, hash, ());
            return Err(TokenError::Unknown);
        };
        let principal = Arc::new(principal);
        self.remember(generation, &self.tokens, hash, principal.clone());
        Ok(principal)
    }

    /// What is known, however old, while the store is away: asking it again would only cost every
    /// request a time-out.
    fn known_in_trouble<K: Hash + Eq, V: Clone>(
        &self,
        cache: &Remembered<K, V>,
        key: &K,
    ) -> Option<V> {
        if self.trouble.lasts(self.clock.now()) { cache.get_old(key) } else { None }
    }

    fn noted<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        let is_away = answer.as_ref().is_err_and(Error::is_away);
        self.trouble.note(self.clock.now(), is_away);
        answer
    }

    /// Remembers what was read since `generation`, unless something changed meanwhile. A change counts
    /// first and forgets then, so one that comes between look and insertion is seen after it.
    fn remember<K: Hash + Eq + Clone, V: Clone>(
        &self,
        generation: u64,
        cache: &Remembered<K, V>,
        key: &K,
        value: V,
    ) {
        if generation == self.generation.read() {
            cache.insert(self.clock.now(), key.clone(), value);
        }
        if generation != self.generation.read() {
            cache.forget(key);
        }
    }

    /// A subscription changed. When it is deleted its keys must be forgotten too.
    pub fn forget_subscription(&self, id: SubscriptionId) {
        self.generation.bump();
        self.subscriptions.forget(&id);
    }

    /// Keys were made that may be remembered as ones that nobody has.
    pub fn doubt_unknown_keys(&self) {
        self.generation.bump();
        self.unknown_keys.doubt(self.clock.now());
    }

    /// Keys of these subscriptions were revoked, or they are gone; which ones is not known. Looks at every
    /// key that is remembered.
    pub fn forget_keys_of(&self, ids: &HashSet<SubscriptionId>) {
        self.generation.bump();
        self.keys.forget_such(|known| match known {
            KeyLookup::Good { subscription, .. } | KeyLookup::Revoked { subscription, .. } => {
                ids.contains(subscription)
            }
            KeyLookup::Unknown => false,
        });
    }

    /// The token of this id was revoked.
    pub fn forget_token_named(&self, id: &str) {
        self.generation.bump();
        self.tokens.forget_such(|known| known.id == id);
    }

    /// A key was made or revoked.
    pub fn forget_key(&self, hash: &SecretHash) {
        self.generation.bump();
        self.keys.forget(hash);
        self.unknown_keys.forget(hash);
    }

    /// A plan has a new version, or is gone.
    pub fn forget_plan(&self, id: PlanId) {
        self.generation.bump();
        self.newest.forget(&id);
    }

    /// A token was made or revoked.
    pub fn forget_token(&self, hash: &SecretHash) {
        self.generation.bump();
        self.tokens.forget(hash);
        self.unknown_tokens.forget(hash);
    }
}
