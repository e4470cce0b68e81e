//! What requests say and answers show of a subscription.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;
use weir_core::plan::Fault;
use weir_core::units::{Micros, PlanId, SubscriptionId};
use weir_store::rows::{SubscriptionRow, SubscriptionStatus};

use super::value;
use crate::catalog::plan_document::{Effective, LimitsDocument};
use crate::http::moment::Moment;

/// Time zone of a subscription that names none.
const TIME_ZONE_DEFAULT: &str = "UTC";
/// Tenant of a subscription that names none.
const TENANT_DEFAULT: &str = "default";
/// No overrides, no notes.
pub const EMPTY_OBJECT: &str = "{}";

/// A subscription to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewSubscription {
    /// Its plan.
    pub plan_id: String,
    /// Your own name for it, 1 to 128 characters; unique within the tenant.
    #[serde(default)]
    pub external_id: Option<String>,
    /// Whose customer; `default` by default, or the tenant that the token is limited to.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Which API it is for.
    #[serde(default)]
    pub api_id: Option<String>,
    /// Where notices go.
    #[serde(default)]
    pub user_email: Option<String>,
    /// IANA name; `UTC` by default. Calendar periods begin at its midnight.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// From when it may be used, RFC 3339; now by default.
    #[serde(default)]
    pub started_at: Option<String>,
    /// Until when, RFC 3339; null = no end.
    #[serde(default)]
    pub ends_at: Option<String>,
    /// A key of your own, 16 to 512 visible ASCII characters; made for you by default.
    #[serde(default)]
    pub key: Option<String>,
    /// Where webhooks go.
    #[serde(default)]
    pub webhook_url: Option<String>,
    /// Limits that differ from the plan's, by name of the quota; null = unlimited.
    #[serde(default)]
    pub limits: Option<LimitsDocument>,
    /// Your own notes, at most 4 KiB of JSON.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
}

/// Whether a subscription may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatusWord {
    /// It may.
    Active,
    /// Refused until made active again.
    Suspended,
}

/// A change of a subscription: what is absent stays, null clears.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubscriptionChange {
    /// The plan to move to. The plan it has already calls a move off that waits.
    #[serde(default)]
    pub plan_id: Option<String>,
    /// When the move happens; by default `now` when the new plan's base fee is not below the old
    /// one's, else `period_end`.
    #[serde(default)]
    pub effective: Option<Effective>,
    /// `active` or `suspended`.
    #[serde(default)]
    pub status: Option<StatusWord>,
    /// Your own name for it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub external_id: Field<String>,
    /// Which API it is for.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub api_id: Field<String>,
    /// Where notices go.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub user_email: Field<String>,
    /// IANA name; null = `UTC`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub time_zone: Field<String>,
    /// Until when, RFC 3339.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub ends_at: Field<String>,
    /// Where webhooks go.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub webhook_url: Field<String>,
    /// Limits that differ from the plan's; replaces all of them.
    #[serde(default)]
    #[schema(value_type = Option<LimitsDocument>)]
    pub limits: Field<LimitsDocument>,
    /// Your own notes; replaces all of them.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub metadata: Field<Map<String, Value>>,
}

/// A field of a change that null clears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Field<T> {
    /// It stays.
    #[default]
    Absent,
    /// It becomes this.
    Given(Option<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    /// Only what is there is deserialised at all; what is not is the default.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self::Given)
    }
}

/// A subscription.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionAnswer {
    id: String,
    /// Its plan.
    plan_id: String,
    /// The plan that it moves to when the billing period ends.
    next_plan_id: Option<String>,
    /// Your own name for it.
    external_id: Option<String>,
    /// Whose customer.
    tenant: String,
    /// Which API it is for.
    api_id: Option<String>,
    /// Where notices go.
    user_email: Option<String>,
    /// IANA name.
    time_zone: String,
    /// `active` or `suspended`.
    status: StatusWord,
    /// From when it may be used.
    started_at: Moment,
    /// Until when.
    ends_at: Option<Moment>,
    /// Where webhooks go.
    webhook_url: Option<String>,
    /// Limits that differ from the plan's.
    #[schema(value_type = LimitsDocument)]
    limits: Value,
    /// Your own notes.
    #[schema(value_type = Object)]
    metadata: Value,
    /// Used of the first quota as of the last checkpoint, a moment ago; `…/usage` is exact.
    requests_used: u64,
    created_at: Moment,
    /// Of the last change.
    updated_at: Moment,
    /// Its first key, in the answer to its making alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl From<&SubscriptionRow> for SubscriptionAnswer {
    fn from(row: &SubscriptionRow) -> Self {
        let status = match row.status {
            SubscriptionStatus::Active => StatusWord::Active,
            SubscriptionStatus::Suspended | SubscriptionStatus::Deleted => StatusWord::Suspended,
        };
        Self {
            id: row.id.to_string(),
            plan_id: row.plan.to_string(),
            next_plan_id: row.next_plan.map(|plan| plan.to_string()),
            external_id: row.external_id.clone(),
            tenant: row.tenant.clone(),
            api_id: row.api_id.clone(),
            user_email: row.user_email.clone(),
            time_zone: row.time_zone.clone(),
            status,
            started_at: Moment(row.started_at),
            ends_at: row.ends_at.map(Moment),
            webhook_url: row.webhook_url.clone(),
            limits: object(&row.limits),
            metadata: object(&row.metadata),
            requests_used: u64::try_from(row.requests_used).unwrap_or_default(),
            created_at: Moment(row.created_at),
            updated_at: Moment(row.updated_at),
            key: None,
        }
    }
}

impl SubscriptionAnswer {
    /// The same with its key, for the one answer that shows it.
    pub fn with_key(self, key: String) -> Self {
        Self { key: Some(key), ..self }
    }

    /// The same as the audit log keeps it: the query of a webhook's URL is often its password.
    pub fn for_audit(row: &SubscriptionRow) -> Self {
        let mut answer = Self::from(row);
        if let Some(url) = &mut answer.webhook_url
            && let Some(query) = url.find('?')
        {
            url.truncate(query);
            url.push_str("?…");
        }
        answer
    }
}

fn object(json: &str) -> Value {
    // Written by this edge; a damaged column shows as empty.
    serde_json::from_str(json).unwrap_or_else(|_| Value::Object(Map::new()))
}

impl NewSubscription {
    /// The row and the customer's own key, if there is one; or every fault.
    pub fn into_row(
        self,
        tenant: Option<String>,
        now: Micros,
    ) -> Result<(SubscriptionRow, Option<String>), Vec<Fault>> {
        let mut all = Vec::new();
        let faults = &mut all;
        let plan = plan_id(faults, &self.plan_id);
        let tenant = tenant.unwrap_or_else(|| TENANT_DEFAULT.to_owned());
        value::name(faults, "/tenant", &tenant);
        for (pointer, text) in [("/externalId", &self.external_id), ("/apiId", &self.api_id)] {
            if let Some(text) = text {
                value::name(faults, pointer, text);
            }
        }
        if let Some(text) = &self.user_email {
            value::email(faults, text);
        }
        if let Some(text) = &self.webhook_url {
            value::webhook_url(faults, text);
        }
        if let Some(key) = &self.key {
            value::own_key(faults, key);
        }
        let time_zone = self.time_zone.as_deref().unwrap_or(TIME_ZONE_DEFAULT);
        let time_zone = value::time_zone(faults, time_zone);
        let now = value::to_millis(now);
        let started_at = self
            .started_at
            .as_deref()
            .map_or(Some(now), |text| value::moment(faults, "/startedAt", text));
        let ends_at = self.ends_at.as_deref();
        let ends_at = ends_at.and_then(|text| value::moment(faults, "/endsAt", text));
        check_order(faults, started_at, ends_at);
        let limits = self.limits.map(|document| value::limits_override(faults, document));
        let metadata = self.metadata.map(|object| value::metadata(faults, object));
        let (Some(plan), Some(time_zone), Some(started_at), true) =
            (plan, time_zone, started_at, all.is_empty())
        else {
            return Err(all);
        };
        let row = SubscriptionRow {
            id: SubscriptionId::from_uuid(Uuid::now_v7()),
            plan,
            next_plan: None,
            external_id: self.external_id,
            tenant,
            api_id: self.api_id,
            user_email: self.user_email,
            time_zone,
            status: SubscriptionStatus::Active,
            started_at,
            ends_at,
            webhook_url: self.webhook_url,
            limits: limits.unwrap_or_else(|| EMPTY_OBJECT.to_owned()),
            metadata: metadata.unwrap_or_else(|| EMPTY_OBJECT.to_owned()),
            created_at: now,
            updated_at: now,
            revision: 1,
            requests_used: 0,
        };
        Ok((row, self.key))
    }
}

/// A plan's id in a body.
pub fn plan_id(faults: &mut Vec<Fault>, text: &str) -> Option<PlanId> {
    let id = text.parse().ok();
    if id.is_none() {
        faults.push(unknown_plan());
    }
    id
}

/// The fault of an id that is no plan's.
pub fn unknown_plan() -> Fault {
    Fault::new("/planId", "unknown_plan", "the id of a plan")
}

/// A subscription ends after it began.
pub fn check_order(faults: &mut Vec<Fault>, started_at: Option<Micros>, ends_at: Option<Micros>) {
    if let (Some(started_at), Some(ends_at)) = (started_at, ends_at)
        && ends_at <= started_at
    {
        faults.push(Fault::new("/endsAt", "out_of_range", "after `startedAt`"));
    }
}

impl From<StatusWord> for SubscriptionStatus {
    fn from(word: StatusWord) -> Self {
        match word {
            StatusWord::Active => Self::Active,
            StatusWord::Suspended => Self::Suspended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::parse;

    const NOW: Micros = Micros::from_micros(1_764_000_000_123_456);

    fn read(fields: &str) -> Result<SubscriptionRow, Vec<(String, &'static str)>> {
        let id = Uuid::from_u128(7);
        let body = format!(r#"{{"planId":"{id}"{fields}}}"#);
        let body: NewSubscription = parse(body.as_bytes()).expect(&body);
        let row = body.into_row(None, NOW).map(|(row, _)| row);
        row.map_err(|all| all.into_iter().map(|fault| (fault.pointer, fault.code)).collect())
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let row = read("").unwrap();
        let millis = Micros::from_micros(1_764_000_000_123_000);
        assert_eq!((&*row.tenant, &*row.time_zone), ("default", "UTC"));
        assert_eq!((row.started_at, row.created_at, row.ends_at), (millis, millis, None));
        assert_eq!((&*row.limits, &*row.metadata), ("{}", "{}"));
        assert_eq!((row.status, row.revision), (SubscriptionStatus::Active, 1));
    }

    #[test]
    fn every_fault_of_a_new_subscription_is_told_at_once() {
        let fields = r#","tenant":"","externalId":"","apiId":"a\u0000","userEmail":"ada",
            "timeZone":"Mars","startedAt":"now","endsAt":"then","key":"short","webhookUrl":"x",
            "limits":{"requests":-1,"no spaces":1}"#;
        let pointers: Vec<_> = read(fields).unwrap_err().into_iter().map(|(p, _)| p).collect();
        let expected = [
            "/externalId",
            "/apiId",
            "/userEmail",
            "/webhookUrl",
            "/key",
            "/timeZone",
            "/startedAt",
            "/endsAt",
            "/limits/no spaces",
            "/limits/requests",
        ];
        assert_eq!(pointers, expected);
        let body: NewSubscription = parse(br#"{"planId":"pro","tenant":"\u0007"}"#).unwrap();
        let faults = body.into_row(Some(String::new()), NOW).unwrap_err();
        let codes: Vec<_> = faults.iter().map(|fault| (&*fault.pointer, fault.code)).collect();
        assert_eq!(codes, [("/planId", "unknown_plan"), ("/tenant", "invalid_length")]);
    }

    #[test]
    fn a_subscription_ends_after_it_began() {
        let stories = [
            (r#","startedAt":"2026-01-01T00:00:00Z","endsAt":"2026-01-01T00:00:00.001Z""#, true),
            (r#","startedAt":"2026-01-01T00:00:00Z","endsAt":"2026-01-01T00:00:00Z""#, false),
            (r#","startedAt":"2026-01-01T00:00:00Z","endsAt":"2025-01-01T00:00:00Z""#, false),
            (r#","endsAt":"2001-01-01T00:00:00Z""#, false),
        ];
        for (fields, fits) in stories {
            let expected = vec![("/endsAt".to_owned(), "out_of_range")];
            assert_eq!(read(fields).err(), (!fits).then_some(expected), "{fields}");
        }
    }

    #[test]
    fn overrides_are_stored_as_they_are_read() {
        let row = read(r#","limits":{"tokens":null,"requests":5}"#).unwrap();
        assert_eq!(row.limits, r#"{"requests":5,"tokens":null}"#);
    }

    #[test]
    fn neither_key_nor_query_of_a_webhook_reaches_the_audit_log() {
        let fields = r#","key":"0123456789abcdef","webhookUrl":"https://example.com/h?token=s3""#;
        let row = read(fields).unwrap();
        let json = serde_json::to_string(&SubscriptionAnswer::for_audit(&row)).unwrap();
        assert!(json.contains("https://example.com/h?…"), "{json}");
        assert!(!json.contains("s3") && !json.contains("0123456789abcdef"), "{json}");
    }

    #[test]
    fn null_is_told_from_absent() {
        let change: SubscriptionChange = parse(br#"{"endsAt":null,"apiId":"x"}"#).unwrap();
        assert_eq!(change.ends_at, Field::Given(None));
        assert_eq!(change.api_id, Field::Given(Some("x".to_owned())));
        assert_eq!(change.user_email, Field::Absent);
    }
}
