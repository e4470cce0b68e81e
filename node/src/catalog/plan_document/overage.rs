//! The price of overage: each model has its own fields, and no others.

use rust_decimal::Decimal;
use weir_config::limits::TIERS_MAX;
use weir_core::price::{Model, Overage, Tier, check_tiers};

use super::convert::{Faults, read_each};
use super::document::{ModelWord, OverageDocument, TierDocument};
use super::leaf::{Given, Leaf};

/// The overage that a document at `at` describes; none when a fault keeps the model from being told.
pub(super) fn read_overage(
    faults: &mut Faults,
    at: &str,
    document: OverageDocument,
) -> Option<Overage> {
    let included = faults.take_optional(format!("{at}/included"), document.included);
    let cap = faults.take_optional(format!("{at}/cap"), document.cap);
    let model = faults.take(format!("{at}/model"), document.model)?;
    let mut given = ModelFields { faults, at, allowed: model.fields() };
    let unit_price = given.scalar("unitPrice", document.unit_price);
    let size = given.scalar("size", document.size);
    let price = given.scalar("price", document.price);
    let tiers = given.tiers(document.tiers);
    let model = match model {
        ModelWord::PerUnit => Model::PerUnit { unit_price: unit_price? },
        ModelWord::Graduated => Model::Graduated(tiers?),
        ModelWord::Volume => Model::Volume(tiers?),
        ModelWord::Package => Model::Package { size: size?, price: price? },
    };
    if let Model::Package { size, .. } = model
        && size.is_zero()
    {
        faults.add(format!("{at}/size"), "out_of_range", "a package holds at least one unit");
    }
    Some(Overage { model, included, cap })
}

impl ModelWord {
    /// The fields that this model has, and no other may.
    const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::PerUnit => &["unitPrice"],
            Self::Graduated | Self::Volume => &["tiers"],
            Self::Package => &["size", "price"],
        }
    }
}

/// Takes the fields of a price model: what belongs to it must be there, the rest must not.
struct ModelFields<'a> {
    faults: &'a mut Faults,
    at: &'a str,
    allowed: &'static [&'static str],
}

impl ModelFields<'_> {
    fn scalar<T: Leaf>(&mut self, field: &str, given: Option<Given<T>>) -> Option<T> {
        let given = self.belongs(field, given)?;
        self.faults.take(format!("{}/{field}", self.at), given)
    }

    fn tiers(&mut self, given: Option<Vec<TierDocument>>) -> Option<Vec<Tier>> {
        let documents = self.belongs("tiers", given)?;
        let at = format!("{}/tiers", self.at);
        let faults_before = self.faults.count();
        let documents = self.faults.bounded(&at, Some(documents), TIERS_MAX);
        let tiers = read_each(self.faults, &at, documents, read_tier);
        if self.faults.count() > faults_before {
            return None;
        }
        if let Err(fault) = check_tiers(&tiers) {
            self.faults.add(at, "invalid_tiers", fault.to_string());
        }
        Some(tiers)
    }

    /// The value when the field both belongs here and is here; a fault when it is one of the two.
    fn belongs<T>(&mut self, field: &str, given: Option<T>) -> Option<T> {
        let pointer = format!("{}/{field}", self.at);
        match (self.allowed.contains(&field), given.is_some()) {
            (true, false) => {
                self.faults.add(pointer, "missing_field", "the price model needs it");
            }
            (false, true) => {
                let detail = format!("this price model has only {}", self.allowed.join(", "));
                self.faults.add(pointer, "not_applicable", detail);
                return None;
            }
            _ => {}
        }
        given
    }
}

fn read_tier(faults: &mut Faults, at: &str, document: TierDocument) -> Tier {
    if document.unit_price.is_none() && document.flat_fee.is_none() {
        let detail = "a tier has a price, or a `flatFee`";
        faults.add(format!("{at}/unitPrice"), "missing_field", detail);
    }
    let mut amount = |field: &str, given: Option<Given<Decimal>>| {
        faults.take_optional(format!("{at}/{field}"), given).unwrap_or_default()
    };
    Tier {
        unit_price: amount("unitPrice", document.unit_price),
        flat_fee: amount("flatFee", document.flat_fee),
        up_to: faults.take_optional(format!("{at}/upTo"), document.up_to),
    }
}
