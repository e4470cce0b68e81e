//! What the holder of a limited admin token may change.
//!
//! Role: `auth` lets a token of scope admin in; here stands what one that is limited to a tenant or to
//! named subscriptions may do all the same. Within its reach it manages subscriptions; plans belong
//! to everyone, so it only reads them.

use http::StatusCode;

use super::problem::Problem;
use crate::catalog::principal::Principal;

/// Passes only a token that is limited in no way.
pub fn unlimited(caller: &Principal) -> Result<(), Problem> {
    if caller.sees_all() { Ok(()) } else { Err(limited("a limited token may not change this")) }
}

/// The tenant that something new will belong to.
pub fn tenant_for_new(
    caller: &Principal,
    asked: Option<String>,
) -> Result<Option<String>, Problem> {
    if caller.reach.subscriptions.is_some() {
        return Err(limited("a token for named subscriptions may make no new ones"));
    }
    match (&caller.reach.tenant, asked) {
        (Some(own), None) => Ok(Some(own.clone())),
        (Some(own), Some(asked)) if *own != asked => {
            Err(limited("the token is limited to another tenant"))
        }
        (_, asked) => Ok(asked),
    }
}

/// Whether a token of this tenant stays within the caller's own reach.
pub fn may_grant(caller: &Principal, tenant: Option<&str>) -> Result<(), Problem> {
    let own = caller.reach.tenant.as_deref();
    if caller.reach.subscriptions.is_some() || own.is_some_and(|own| tenant != Some(own)) {
        return Err(limited("a limited token may only make tokens that name its own tenant"));
    }
    Ok(())
}

fn limited(detail: &'static str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "tenant_limited", detail)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use weir_core::units::SubscriptionId;

    use super::*;

    fn caller(tenant: Option<&str>, named: bool) -> Principal {
        let mut caller = Principal::bootstrap();
        caller.reach.tenant = tenant.map(str::to_owned);
        let id = SubscriptionId::from_uuid(Uuid::from_u128(1));
        caller.reach.subscriptions = named.then(|| vec![id]);
        caller
    }

    #[test]
    fn a_limited_token_makes_things_for_its_own_tenant_only() {
        let made = [
            (None, None, None),
            (None, Some("blue"), Some("blue")),
            (Some("blue"), None, Some("blue")),
            (Some("blue"), Some("blue"), Some("blue")),
        ];
        for (own, asked, expected) in made {
            let got = tenant_for_new(&caller(own, false), asked.map(str::to_owned)).unwrap();
            assert_eq!(got.as_deref(), expected, "{own:?} {asked:?}");
        }
        let refused = [
            (Some("blue"), false, Some("red")),
            (Some("blue"), true, Some("blue")),
            (None, true, None),
        ];
        for (own, named, asked) in refused {
            let got = tenant_for_new(&caller(own, named), asked.map(str::to_owned));
            assert_eq!(got.unwrap_err().code(), "tenant_limited", "{own:?} {named} {asked:?}");
        }
    }

    #[test]
    fn a_limited_token_grants_no_more_than_it_has() {
        let stories = [
            (None, false, None, true),
            (None, false, Some("blue"), true),
            (Some("blue"), false, Some("blue"), true),
            (Some("blue"), false, Some("red"), false),
            (Some("blue"), false, None, false),
            (None, true, None, false),
            (Some("blue"), true, Some("blue"), false),
        ];
        for (own, named, granted, expected) in stories {
            let allowed = may_grant(&caller(own, named), granted).is_ok();
            assert_eq!(allowed, expected, "{own:?} {named} {granted:?}");
        }
        assert!(unlimited(&caller(None, false)).is_ok());
        assert!(unlimited(&caller(Some("blue"), false)).is_err());
        assert!(unlimited(&caller(None, true)).is_err());
    }
}
