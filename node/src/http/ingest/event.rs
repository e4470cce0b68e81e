//! A usage event as the gateway reported it, checked.

use std::borrow::Cow;
use std::net::IpAddr;

use weir_core::units::{Micros, ReservationId, SubscriptionId, Units};

/// Whose usage it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionRef<'a> {
    /// By one of its keys.
    Key(Cow<'a, str>),
    /// By its id.
    Id(SubscriptionId),
}

/// What became of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    #[default]
    Served,
    /// It was refused; recorded and never charged.
    Denied,
    /// It ended before its answer.
    Aborted,
}

/// One request that a gateway reports. Rules: the module above.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageEvent<'a> {
    /// Made by the sender; identifies the event within its subscription.
    pub id: Cow<'a, str>,
    /// Whose usage it is.
    pub subscription: SubscriptionRef<'a>,
    /// When the request happened.
    pub timestamp: Micros,
    /// Path without its query.
    pub api_path: Option<Cow<'a, str>>,
    /// HTTP method in capitals.
    pub method: Option<Cow<'a, str>>,
    /// HTTP status, 100 to 599.
    pub status_code: Option<u16>,
    /// Whether the sender calls it a success.
    pub success: Option<bool>,
    /// How long the answer took, from 0.
    pub response_time_micros: Option<i64>,
    /// Bytes in.
    pub request_size: Option<u64>,
    /// Bytes out.
    pub response_size: Option<u64>,
    /// Client software.
    pub user_agent: Option<Cow<'a, str>>,
    /// Client address.
    pub ip_address: Option<IpAddr>,
    /// Two capital letters.
    pub country: Option<Cow<'a, str>>,
    /// Units on the meter `requests`; `None` = what the plan says.
    pub units: Option<Units>,
    /// Units on other meters, in the order given, each meter once.
    pub quantities: Vec<(Cow<'a, str>, Units)>,
    /// What became of the request.
    pub outcome: Outcome,
    /// The named hold that this settles.
    pub reservation_id: Option<ReservationId>,
}

impl UsageEvent<'_> {
    /// The same event, independent of the body it was read from.
    pub fn into_owned(self) -> UsageEvent<'static> {
        let own = |text: Option<Cow<'_, str>>| text.map(owned);
        UsageEvent {
            id: owned(self.id),
            subscription: match self.subscription {
                SubscriptionRef::Key(key) => SubscriptionRef::Key(owned(key)),
                SubscriptionRef::Id(id) => SubscriptionRef::Id(id),
            },
            timestamp: self.timestamp,
            api_path: own(self.api_path),
            method: own(self.method),
            status_code: self.status_code,
            success: self.success,
            response_time_micros: self.response_time_micros,
            request_size: self.request_size,
            response_size: self.response_size,
            user_agent: own(self.user_agent),
            ip_address: self.ip_address,
            country: own(self.country),
            units: self.units,
            quantities: self.quantities.into_iter().map(|(m, u)| (owned(m), u)).collect(),
            outcome: self.outcome,
            reservation_id: self.reservation_id,
        }
    }
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}
