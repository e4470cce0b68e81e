//! Money told as stories and held against a slow, obvious model.

mod book;
mod changing;
mod charging;
mod closing;
mod pricing;
mod properties;
mod prorating;
mod slow;
mod whole;
