//! The subscriptions of a replay: one for each client address, found again when a run is taken up.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

use super::options::Options;
use crate::Error;
use crate::api::{self, Api, NewSubscription, key_header};
use crate::numbers::count;
use crate::progress::Progress;

/// One client and its subscription.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) address: String,
    pub(super) external_id: String,
    pub(super) subscription: String,
    pub(super) headers: HeaderMap,
}

/// All clients and where to find each.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) all: Vec<Client>,
    pub(super) by_address: HashMap<String, usize>,
}

/// Makes the plan and the subscriptions of a run, or finds those it made before.
pub(super) async fn prepare<'a>(
    options: &Options,
    run: &str,
    addresses: impl Iterator<Item = &'a String>,
    apis: &mut [Api],
) -> Result<Clients, Error> {
    let addresses: Vec<&String> = addresses.collect();
    let plan = match (&options.plan_id, apis.first_mut()) {
        (Some(plan), _) => plan.clone(),
        (None, Some(api)) => make_plan(api, run).await?,
        (None, None) => return Err(Error::usage("--target names no address")),
    };
    let made = Cell::new(0_u64);
    let total = count(addresses.len());
    let progress = RefCell::new(Progress::begin("set-up", total, options.quiet));
    let all = api::for_each(apis, addresses.len(), async |api, index| {
        let client = subscribe(api, options, run, &plan, addresses[index]).await?;
        made.set(made.get() + 1);
        progress.borrow_mut().at(made.get(), || "clients".to_owned());
        Ok(client)
    })
    .await?;
    progress.into_inner().end(&format!("{total} clients have a subscription ({run})"));
    let by_address =
        all.iter().enumerate().map(|(place, client)| (client.address.clone(), place)).collect();
    Ok(Clients { all, by_address })
}

async fn make_plan(api: &mut Api, run: &str) -> Result<String, Error> {
    let plan = json!({
        "name": format!("{run} unlimited"),
        "currency": "USD",
        "quota": { "limit": null, "every": "P1M", "anchor": "calendar", "enforcement": "hard" },
        "holdTtl": "60s",
    });
    Ok(api.create_plan(&plan).await?.id)
}

async fn subscribe(
    api: &mut Api,
    options: &Options,
    run: &str,
    plan: &str,
    address: &str,
) -> Result<Client, Error> {
    let key = key_of(run, address);
    let external_id = format!("{run}/{address}");
    let wanted = NewSubscription {
        plan_id: plan,
        external_id: &external_id,
        tenant: &options.tenant,
        key: Some(&key),
        metadata: json!({ "weirSimRun": run, "client": address }),
    };
    let known = if options.run.is_some() { existing(api, &key).await? } else { None };
    let subscription = match known {
        Some(id) => id,
        None => match api.create_subscription(&wanted).await {
            Ok(created) => created.id,
            // An earlier try made it and its answer was lost.
            Err(conflict @ Error::Refused { status: 409, .. }) => {
                existing(api, &key).await?.ok_or(conflict)?
            }
            Err(error) => return Err(error),
        },
    };
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(AUTHORIZATION, options.access.gateway.clone());
    headers.insert("x-subscription-key", key_header(&key)?);
    Ok(Client { address: address.to_owned(), external_id, subscription, headers })
}

async fn existing(api: &mut Api, key: &str) -> Result<Option<String>, Error> {
    let peek = api.peek(key).await?;
    Ok(peek.subscription_id.filter(|_| peek.reason != "unknown_key"))
}

/// A key that the same run makes again for the same client, so that a run can be taken up. As hard
/// to guess as the run's name, which is a UUID: good enough for test traffic, no model for others.
fn key_of(run: &str, address: &str) -> String {
    format!("weirsim_{:032x}", xxh3_128(format!("{run}\n{address}").as_bytes()))
}

/// The idempotency key of a line's check: the id of its event.
pub(super) fn header_of(event_id: &str) -> HeaderValue {
    HeaderValue::from_str(event_id).unwrap_or(HeaderValue::from_static("weir-sim"))
}

/// A response time for formats that know none: the same for the same seed and line.
pub(super) fn drawn_duration(seed: u64, line: u64) -> Duration {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..].copy_from_slice(&line.to_le_bytes());
    Duration::from_micros(500 + xxhash_rust::xxh3::xxh3_64(&bytes) % 120_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_one_run_and_one_address() {
        assert_eq!(key_of("r1", "10.0.0.1"), key_of("r1", "10.0.0.1"));
        assert_ne!(key_of("r1", "10.0.0.1"), key_of("r2", "10.0.0.1"));
        assert_ne!(key_of("r1", "10.0.0.1"), key_of("r1", "10.0.0.2"));
    }

    #[test]
    fn a_drawn_duration_depends_on_seed_and_line_alone() {
        assert_eq!(drawn_duration(1, 2), drawn_duration(1, 2));
        assert_ne!(drawn_duration(1, 2), drawn_duration(2, 2));
        assert_ne!(drawn_duration(1, 2), drawn_duration(1, 3));
    }
}
