//! What a `PATCH` does to a subscription's row. Pure: plans are looked up by the caller.

use rust_decimal::Decimal;
use weir_core::plan::Fault;
use weir_core::units::PlanId;
use weir_store::rows::SubscriptionRow;

use super::body::{EMPTY_OBJECT, Field, SubscriptionChange, check_order, plan_id};
use super::value;
use crate::catalog::plan_document::Effective;

/// Time zone of a subscription whose own was cleared.
const TIME_ZONE_CLEARED: &str = "UTC";

impl SubscriptionChange {
    /// Makes the change, all but the move to another plan; returns the plan to move to.
    pub fn apply(self, row: &mut SubscriptionRow) -> Result<Option<PlanId>, Vec<Fault>> {
        let mut all = Vec::new();
        let faults = &mut all;
        let plan = self.plan_id.as_deref().and_then(|text| plan_id(faults, text));
        if self.effective.is_some() && self.plan_id.is_none() {
            faults.push(Fault::new("/effective", "unexpected_field", "only beside `planId`"));
        }
        if let Some(status) = self.status {
            row.status = status.into();
        }
        if let Field::Given(text) = self.external_id {
            check(text.as_deref(), |text| value::name(faults, "/externalId", text));
            row.external_id = text;
        }
        if let Field::Given(text) = self.api_id {
            check(text.as_deref(), |text| value::name(faults, "/apiId", text));
            row.api_id = text;
        }
        if let Field::Given(text) = self.user_email {
            check(text.as_deref(), |text| value::email(faults, text));
            row.user_email = text;
        }
        if let Field::Given(text) = self.webhook_url {
            check(text.as_deref(), |text| value::webhook_url(faults, text));
            row.webhook_url = text;
        }
        if let Field::Given(text) = self.time_zone {
            let zone = value::time_zone(faults, text.as_deref().unwrap_or(TIME_ZONE_CLEARED));
            row.time_zone = zone.unwrap_or_default();
        }
        if let Field::Given(text) = self.ends_at {
            row.ends_at = text.and_then(|text| value::moment(faults, "/endsAt", &text));
            check_order(faults, Some(row.started_at), row.ends_at);
        }
        if let Field::Given(limits) = self.limits {
            let limits = limits.map(|limits| value::limits_override(faults, limits));
            row.limits = limits.unwrap_or_else(|| EMPTY_OBJECT.to_owned());
        }
        if let Field::Given(metadata) = self.metadata {
            let metadata = metadata.map(|metadata| value::metadata(faults, metadata));
            row.metadata = metadata.unwrap_or_else(|| EMPTY_OBJECT.to_owned());
        }
        if all.is_empty() { Ok(plan) } else { Err(all) }
    }
}

fn check(text: Option<&str>, judge: impl FnOnce(&str)) {
    if let Some(text) = text {
        judge(text);
    }
}

/// When a move happens if nobody says: more is given at once, less when what was paid for is over.
pub fn effective_by_fee(old: Decimal, new: Decimal) -> Effective {
    if new >= old { Effective::Now } else { Effective::PeriodEnd }
}

/// Moves a subscription to a plan. Moving to the plan that it has calls off a move that waits.
pub fn move_to(row: &mut SubscriptionRow, plan: PlanId, effective: Effective) {
    if effective == Effective::Now || plan == row.plan {
        row.plan = plan;
        row.next_plan = None;
    } else {
        row.next_plan = Some(plan);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use weir_core::units::{Micros, SubscriptionId};
    use weir_store::rows::SubscriptionStatus;

    use super::*;
    use crate::http::body::parse;

    fn plan(number: u128) -> PlanId {
        PlanId::from_uuid(Uuid::from_u128(number))
    }

    fn row() -> SubscriptionRow {
        SubscriptionRow {
            id: SubscriptionId::from_uuid(Uuid::from_u128(9)),
            plan: plan(1),
            next_plan: None,
            external_id: Some("acme".to_owned()),
            tenant: "default".to_owned(),
            api_id: Some("search".to_owned()),
            user_email: Some("ada@example.com".to_owned()),
            time_zone: "Europe/Berlin".to_owned(),
            status: SubscriptionStatus::Active,
            started_at: Micros::from_seconds(1_000),
            ends_at: Some(Micros::from_seconds(2_000)),
            webhook_url: Some("https://example.com".to_owned()),
            limits: r#"{"requests":5}"#.to_owned(),
            metadata: r#"{"a":1}"#.to_owned(),
            created_at: Micros::EPOCH,
            updated_at: Micros::EPOCH,
            revision: 4,
            requests_used: 3,
        }
    }

    fn apply(body: &str) -> (SubscriptionRow, Result<Option<PlanId>, Vec<String>>) {
        let mut changed = row();
        let change: SubscriptionChange = parse(body.as_bytes()).expect(body);
        let moved = change.apply(&mut changed);
        (changed, moved.map_err(|all| all.into_iter().map(|fault| fault.pointer).collect()))
    }

    #[test]
    fn what_is_absent_stays_and_null_clears() {
        assert_eq!(apply("{}"), (row(), Ok(None)));
        let body = r#"{"externalId":null,"apiId":null,"userEmail":null,"timeZone":null,
            "endsAt":null,"webhookUrl":null,"limits":null,"metadata":null}"#;
        let cleared = SubscriptionRow {
            external_id: None,
            api_id: None,
            user_email: None,
            time_zone: "UTC".to_owned(),
            ends_at: None,
            webhook_url: None,
            limits: "{}".to_owned(),
            metadata: "{}".to_owned(),
            ..row()
        };
        assert_eq!(apply(body), (cleared, Ok(None)));
        let (suspended, _) = apply(r#"{"status":"suspended","limits":{"tokens":null}}"#);
        assert_eq!(suspended.status, SubscriptionStatus::Suspended);
        assert_eq!(suspended.limits, r#"{"tokens":null}"#);
    }

    #[test]
    fn every_fault_of_a_change_is_told() {
        let body = r#"{"planId":"pro","externalId":"","apiId":"","userEmail":"x","webhookUrl":"x",
            "timeZone":"x","endsAt":"1970-01-01T00:00:01Z","limits":{"a":-1}}"#;
        let expected = [
            "/planId",
            "/externalId",
            "/apiId",
            "/userEmail",
            "/webhookUrl",
            "/timeZone",
            "/endsAt",
            "/limits/a",
        ];
        assert_eq!(apply(body).1.unwrap_err(), expected);
        assert_eq!(apply(r#"{"effective":"now"}"#).1.unwrap_err(), ["/effective"]);
    }

    #[test]
    fn a_change_cannot_name_what_does_not_change() {
        let refused = ["tenant", "startedAt", "key", "id"];
        for field in refused {
            let body = format!(r#"{{"{field}":"x"}}"#);
            assert!(parse::<SubscriptionChange>(body.as_bytes()).is_err(), "{field}");
        }
        assert!(parse::<SubscriptionChange>(br#"{"status":"deleted"}"#).is_err());
    }

    #[test]
    fn a_move_waits_when_it_takes_away_what_was_paid_for() {
        let fee = |units: i64| Decimal::new(units, 2);
        assert_eq!(effective_by_fee(fee(0), fee(0)), Effective::Now);
        assert_eq!(effective_by_fee(fee(3_000), fee(3_001)), Effective::Now);
        assert_eq!(effective_by_fee(fee(3_000), fee(2_999)), Effective::PeriodEnd);
    }

    #[test]
    fn the_plan_that_it_has_calls_a_move_off() {
        let (now, end) = (Effective::Now, Effective::PeriodEnd);
        let stories = [
            (None, plan(2), now, (plan(2), None)),
            (None, plan(2), end, (plan(1), Some(plan(2)))),
            (Some(plan(2)), plan(3), end, (plan(1), Some(plan(3)))),
            (Some(plan(2)), plan(3), now, (plan(3), None)),
            (Some(plan(2)), plan(1), now, (plan(1), None)),
            (Some(plan(2)), plan(1), end, (plan(1), None)),
        ];
        for (waiting, to, when, expected) in stories {
            let mut row = SubscriptionRow { next_plan: waiting, ..row() };
            move_to(&mut row, to, when);
            assert_eq!((row.plan, row.next_plan), expected, "{waiting:?} {to} {when:?}");
        }
    }
}
