//! A ledger row on the wire.
//!
//! Role: [`LedgerRow`] ⇄ [`RowV1`], which borrows the texts of what it is made from. The row's `seq` is
//! not sent: whoever writes it assigns one.

use std::borrow::Cow;

use bincode::{Decode, Encode};
use uuid::Uuid;
use weir_core::units::{Micros, ReservationId, Seq, ShardId, SubscriptionId};
use weir_store::rows::{LedgerRow, OutcomeKind, RowKind};

use super::ROW_BYTES;
use crate::codec::numbers::Numbered;

#[derive(Encode, Decode)]
pub(in crate::codec) struct RowV1<'a> {
    subscription: u128,
    shard: u16,
    event_id: Cow<'a, str>,
    kind: u8,
    event_time: i64,
    recorded_at: i64,
    units: i64,
    quantities: Option<Cow<'a, str>>,
    charged: bool,
    outcome: u8,
    reservation: Option<u128>,
    key_id: Option<u128>,
    api_id: Option<Cow<'a, str>>,
    api_path: Cow<'a, str>,
    method: Cow<'a, str>,
    status_code: Option<i16>,
    success: Option<bool>,
    response_time_us: Option<i64>,
    request_size: Option<i64>,
    response_size: Option<i64>,
    user_agent: Option<Cow<'a, str>>,
    ip_address: Option<Cow<'a, str>>,
    country: Option<Cow<'a, str>>,
}

/// Bytes of a row on the wire, at most: cheaper than to encode it and look.
pub(super) fn bytes_at_most(row: &LedgerRow) -> usize {
    let maybe = [&row.quantities, &row.api_id, &row.user_agent, &row.ip_address, &row.country];
    let maybe: usize = maybe.into_iter().flatten().map(String::len).sum();
    ROW_BYTES + row.event_id.len() + row.api_path.len() + row.method.len() + maybe
}

impl<'a> From<&'a LedgerRow> for RowV1<'a> {
    fn from(row: &'a LedgerRow) -> Self {
        Self {
            subscription: row.subscription.uuid().as_u128(),
            shard: row.shard.0,
            event_id: Cow::Borrowed(&row.event_id),
            kind: row.kind.number(),
            event_time: row.event_time.get(),
            recorded_at: row.recorded_at.get(),
            units: row.units,
            quantities: row.quantities.as_deref().map(Cow::Borrowed),
            charged: row.charged,
            outcome: row.outcome.number(),
            reservation: row.reservation.map(|id| id.uuid().as_u128()),
            key_id: row.key_id.map(|id| id.as_u128()),
            api_id: row.api_id.as_deref().map(Cow::Borrowed),
            api_path: Cow::Borrowed(&row.api_path),
            method: Cow::Borrowed(&row.method),
            status_code: row.status_code,
            success: row.success,
            response_time_us: row.response_time_us,
            request_size: row.request_size,
            response_size: row.response_size,
            user_agent: row.user_agent.as_deref().map(Cow::Borrowed),
            ip_address: row.ip_address.as_deref().map(Cow::Borrowed),
            country: row.country.as_deref().map(Cow::Borrowed),
        }
    }
}

impl RowV1<'_> {
    /// The row; `None` when a number of it means nothing.
    pub(super) fn into_row(self) -> Option<LedgerRow> {
        Some(LedgerRow {
            subscription: SubscriptionId::from_uuid(Uuid::from_u128(self.subscription)),
            shard: ShardId(self.shard),
            seq: Seq::default(),
            event_id: self.event_id.into_owned(),
            kind: RowKind::from_number(self.kind)?,
            event_time: Micros::from_micros(self.event_time),
            recorded_at: Micros::from_micros(self.recorded_at),
            units: self.units,
            quantities: self.quantities.map(Cow::into_owned),
            charged: self.charged,
            outcome: OutcomeKind::from_number(self.outcome)?,
            reservation: self.reservation.map(|id| ReservationId::from_uuid(Uuid::from_u128(id))),
            key_id: self.key_id.map(Uuid::from_u128),
            api_id: self.api_id.map(Cow::into_owned),
            api_path: self.api_path.into_owned(),
            method: self.method.into_owned(),
            status_code: self.status_code,
            success: self.success,
            response_time_us: self.response_time_us,
            request_size: self.request_size,
            response_size: self.response_size,
            user_agent: self.user_agent.map(Cow::into_owned),
            ip_address: self.ip_address.map(Cow::into_owned),
            country: self.country.map(Cow::into_owned),
        })
    }
}
