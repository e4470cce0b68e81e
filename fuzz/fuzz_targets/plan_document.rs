//! Any bytes as a plan document: refused or read, never a panic; and what is read survives being
//! written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use uuid::Uuid;
use weir_core::units::PlanId;
use weir_node::catalog::plan_document::{
    FAULTS_MAX, LimitsDocument, PlanError, PlanUpdate, parse, read, render,
};

fuzz_target!(|bytes: &[u8]| {
    let id = PlanId::from_uuid(Uuid::from_u128(1));
    match parse(bytes, id, 1) {
        Ok(plan) => {
            let document = render(&plan);
            let written = serde_json::to_vec(&document).expect("a document is JSON");
            let again = parse(&written, id, 1);
            assert_eq!(again.as_ref(), Ok(&plan), "{}", String::from_utf8_lossy(&written));
            assert_eq!(again.map(|plan| render(&plan)), Ok(document), "the form is canonical");
            let update = read::<PlanUpdate>(bytes).expect("a plan is an update without a date");
            assert_eq!(update.plan.into_plan(id, 1), Ok(plan));
        }
        Err(PlanError::Invalid(faults)) => {
            assert!((1..=FAULTS_MAX).contains(&faults.len()));
            let has_pointer = |pointer: &str| pointer.is_empty() || pointer.starts_with('/');
            assert!(faults.iter().all(|fault| has_pointer(&fault.pointer)), "{faults:?}");
        }
        Err(PlanError::Malformed { .. }) => {}
    }
    if let Ok(limits) = read::<LimitsDocument>(bytes)
        && let Ok(overrides) = limits.into_overrides("/limits")
    {
        let again = LimitsDocument::render(&overrides).into_overrides("/limits");
        assert_eq!(again, Ok(overrides));
    }
});
