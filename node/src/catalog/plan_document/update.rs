//! The body of `PUT /api/v1/plans/{id}`: a plan, and from when it holds.
//!
//! Role: `effective` stands among the plan's own fields, and serde's `flatten` would neither refuse
//! unknown fields nor tell where an error is. So the one key is taken out on the way through.

use std::fmt;

use serde::de::value::{CowStrDeserializer, MapAccessDeserializer};
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::document::PlanDocument;

/// When a change reaches the subscriptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effective {
    /// At once.
    #[default]
    Now,
    /// With each subscription's next billing period.
    PeriodEnd,
}

/// A new version of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct PlanUpdate {
    /// The plan, its fields beside `effective`.
    #[serde(flatten)]
    pub plan: PlanDocument,
    /// `now` by default.
    #[schema(required = false)]
    pub effective: Effective,
}

impl<'de> Deserialize<'de> for PlanUpdate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = PlanUpdate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a plan")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PlanUpdate, A::Error> {
                let mut effective = Effective::default();
                let rest = WithoutEffective { map, effective: &mut effective, is_met: false };
                let plan = PlanDocument::deserialize(MapAccessDeserializer::new(rest))?;
                Ok(PlanUpdate { plan, effective })
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// What an answer says of a plan and nobody can change: ignored, so that a plan that was read can be
/// edited and sent back.
const READ_ONLY: [&str; 3] = ["id", "version", "createdAt"];

/// All members of an object but `effective`, which it keeps, and those that are read-only.
struct WithoutEffective<'a, A> {
    map: A,
    effective: &'a mut Effective,
    is_met: bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for WithoutEffective<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            if READ_ONLY.contains(&&*key) {
                self.map.next_value::<IgnoredAny>()?;
                continue;
            }
            if key != "effective" {
                let key = CowStrDeserializer::<A::Error>::new(key.into());
                return seed.deserialize(key).map(Some);
            }
            if std::mem::replace(&mut self.is_met, true) {
                return Err(A::Error::duplicate_field("effective"));
            }
            *self.effective = self.map.next_value::<Option<_>>()?.unwrap_or_default();
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}
