//! A usage event as the contract's *Record* section spells it.

use serde::Serialize;

/// One event; absent fields are left out.
#[derive(Debug, Serialize)]
pub(crate) struct UsageEvent<'a> {
    pub(crate) id: &'a str,
    pub(crate) subscription_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api_path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<&'a str>,
    pub(crate) status_code: u16,
    pub(crate) success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response_time_ms: Option<f64>,
    pub(crate) timestamp: &'a str,
    pub(crate) request_size: u64,
    pub(crate) response_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ip_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) units: Option<u64>,
}

impl UsageEvent<'_> {
    /// Appends the event as JSON.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self)
            .expect("strings and finite numbers always serialise, and a Vec takes every byte");
    }
}
