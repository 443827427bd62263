//! What leaves the machine: smoke tests over HTTP, and alerts by mail and webhook. Never touches a site's data.

pub mod alert;
pub mod http;
