//! `POST /api/v1/plans/preview`: what a billing period would cost, priced as the bill is.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use weir_core::plan::Plan;
use weir_core::rating::{self, Amount, Bill, Currency, Line, LinePrice, QuotaBill};
use weir_core::units::{PlanId, Units};

use super::Api;
use super::auth::Admin;
use super::body::Json;
use super::problem::{Problem, ProblemBody};
use crate::catalog::plan_document::PreviewDocument;

/// Routes of this resource.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(preview))
}

/// A bill that nobody has to pay.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanPreview {
    /// ISO 4217; every amount here is in it, with its number of decimal places.
    currency: String,
    /// Units beyond what the first quota includes; those of the others are with each.
    overage_units: u64,
    /// What `overage` consists of: they add up to it. In the order of quotas and tiers.
    lines: Vec<PreviewLine>,
    /// The overage of all quotas.
    #[schema(example = "90.01")]
    overage: String,
    /// Of one billing period.
    #[schema(example = "30.00")]
    base_fee: String,
    /// `baseFee` and `overage`.
    #[schema(example = "120.01")]
    total: String,
    /// Each quota on its own, in the plan's order.
    quotas: Vec<QuotaPreview>,
}

/// Overage units of one tier.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviewLine {
    /// Name of the quota.
    quota: String,
    /// From 1; a model without tiers has one.
    tier: usize,
    /// Overage units.
    units: u64,
    /// Price of one unit; absent where packages are sold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "0.01")]
    unit_price: Option<String>,
    /// The tier's fee, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    flat_fee: Option<String>,
    /// Packages, where they are sold.
    #[serde(skip_serializing_if = "Option::is_none")]
    packages: Option<u64>,
    /// Units a package.
    #[serde(skip_serializing_if = "Option::is_none")]
    package_size: Option<u64>,
    /// Price of a package.
    #[serde(skip_serializing_if = "Option::is_none")]
    package_price: Option<String>,
    /// What the line adds to `overage`, rounded so that lines add up; less than units times price
    /// where a cap is reached.
    #[schema(example = "90.00")]
    amount: String,
}

/// The overage of one quota.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaPreview {
    /// Name of the quota.
    name: String,
    /// What it counts.
    meter: String,
    /// Units used, as asked.
    used: u64,
    /// Units that cost nothing; null = all of them.
    included: Option<u64>,
    /// Units beyond.
    overage_units: u64,
    /// What they cost.
    overage: String,
    /// Whether the price's cap kept that from being more.
    capped: bool,
}

/// Prices a plan without making it.
///
/// The exact sum of each model's lines, held at its cap, is rounded once, half away from zero, to the
/// currency's smallest unit. Quotas whose meter is used are each priced as one period of theirs. A hard
/// quota has overage only where its price states what is `included`. Nothing is stored.
#[utoipa::path(
    post, path = "/api/v1/plans/preview", tag = "plans", security(("bearer" = [])),
    request_body = PreviewDocument,
    responses((status = 200, body = PlanPreview), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn preview(
    _: Admin,
    Json(document): Json<PreviewDocument>,
) -> Result<JsonAnswer<PlanPreview>, Problem> {
    let id = PlanId::from_uuid(Uuid::nil());
    let previewed = document.into_previewed(id).map_err(Problem::invalid)?;
    let bill = rating::preview(&previewed.plan, |meter| previewed.used(meter));
    Ok(JsonAnswer(PlanPreview::of(&previewed.plan, &bill)))
}

impl PlanPreview {
    fn of(plan: &Plan, bill: &Bill) -> Self {
        let currency = Currency::of(&plan.currency);
        let text = |amount: Amount| currency.text(amount);
        let overage_units = bill.quotas.first().map(|quota| quota.rated.overage_units.get());
        let lines = bill.quotas.iter().flat_map(|quota| {
            quota.rated.lines.iter().map(move |line| PreviewLine::of(&quota.quota, line, currency))
        });
        Self {
            currency: plan.currency.clone(),
            overage_units: overage_units.unwrap_or_default(),
            lines: lines.collect(),
            overage: text(bill.overage()),
            base_fee: text(bill.base_fee),
            total: text(bill.total()),
            quotas: bill.quotas.iter().map(|quota| QuotaPreview::of(quota, currency)).collect(),
        }
    }
}

impl PreviewLine {
    fn of(quota: &str, line: &Line, currency: Currency) -> Self {
        let mut answer = Self {
            quota: quota.to_owned(),
            tier: line.tier,
            units: line.units.get(),
            unit_price: None,
            flat_fee: None,
            packages: None,
            package_size: None,
            package_price: None,
            amount: currency.text(line.amount),
        };
        match line.price {
            LinePrice::Unit { unit_price, flat_fee } => {
                answer.unit_price = Some(unit_price.to_string());
                answer.flat_fee = (!flat_fee.is_zero()).then(|| flat_fee.to_string());
            }
            LinePrice::Package { packages, size, price } => {
                answer.packages = Some(packages.get());
                answer.package_size = Some(size.get());
                answer.package_price = Some(price.to_string());
            }
        }
        answer
    }
}

impl QuotaPreview {
    fn of(bill: &QuotaBill, currency: Currency) -> Self {
        Self {
            name: bill.quota.to_string(),
            meter: bill.meter.to_string(),
            used: bill.used.get(),
            included: bill.included.map(Units::get),
            overage_units: bill.rated.overage_units.get(),
            overage: currency.text(bill.rated.amount),
            capped: bill.rated.is_capped,
        }
    }
}
