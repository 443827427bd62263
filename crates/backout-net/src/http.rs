//! One request and what its answer must be. Reads as much of a body as a smoke test looks at, and no more.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use serde_json::Value;
use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

/// How much of a body is looked at.
const BODY_MAX: u64 = 8 * 1024 * 1024;
/// How much of what came is shown.
const SHOWN: usize = 200;

/// What a URL must answer. All that is given must hold.
#[derive(Clone, Debug)]
pub struct HttpCondition {
    pub url: String,
    /// None: any of 200 to 299.
    pub status: Option<u16>,
    pub contains: Option<String>,
    /// A regular expression.
    pub matches: Option<String>,
    /// Names, and what their values hold.
    pub header: Vec<(String, String)>,
    /// JSON pointers, and the values there as text.
    pub json: Vec<(String, String)>,
    /// How many are followed at most; the answer after that is the one that is looked at.
    pub redirects: u32,
    /// Whether the server's certificate must be valid.
    pub verified: bool,
    pub timeout: Duration,
}

/// Asks once. `None` where the answer is as it must be, else what was expected and what came.
#[must_use]
pub fn check(condition: &HttpCondition) -> Option<String> {
    let agent = agent(condition.verified, condition.redirects, condition.timeout);
    match agent.get(&condition.url).call() {
        Ok(mut response) => judge(condition, &mut response).err(),
        Err(error) => Some(format!("expected an answer, got none: {}", in_words(&error, condition.timeout))),
    }
}

/// What makes requests: certificates are the system's, a status is no error.
pub(crate) fn agent(verified: bool, redirects: u32, timeout: Duration) -> Agent {
    let authorities: Vec<Certificate<'static>> = if verified {
        let found = rustls_native_certs::load_native_certs().certs;
        found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
    } else {
        Vec::new()
    };
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&authorities))
        .disable_verification(!verified)
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(timeout))
        .max_redirects(redirects)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("backout/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// Why no answer came.
pub(crate) fn in_words(error: &ureq::Error, timeout: Duration) -> String {
    match error {
        ureq::Error::Timeout(_) => format!("it did not come within {} ms", timeout.as_millis()),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::HostNotFound => "the host's name is not known".to_owned(),
        error => error.to_string(),
    }
}

fn judge(condition: &HttpCondition, response: &mut Response<Body>) -> Result<(), String> {
    let status = response.status();
    let as_expected = match condition.status {
        Some(expected) => status.as_u16() == expected,
        None => status.is_success(),
    };
    if !as_expected {
        let expected = condition.status.map_or_else(|| "200 to 299".to_owned(), |status| status.to_string());
        let body = body(response).map(|body| short(&body)).unwrap_or_default();
        let body = if body.is_empty() { body } else { format!(": {body}") };
        return Err(format!("expected status {expected}, got {status}{body}"));
    }
    for (name, expected) in &condition.header {
        let values = response.headers().get_all(name.as_str());
        let values: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        if values.is_empty() {
            return Err(format!("expected the header `{name}` with `{expected}`, got none"));
        }
        if !values.iter().any(|value| value.contains(expected)) {
            return Err(format!("expected the header `{name}` with `{expected}`, got `{}`", short(&values.join(", "))));
        }
    }
    if condition.contains.is_none() && condition.matches.is_none() && condition.json.is_empty() {
        return Ok(());
    }
    let body = body(response)?;
    if let Some(expected) = condition.contains.as_ref().filter(|expected| !body.contains(expected.as_str())) {
        return Err(format!("expected a body with `{expected}`, got {}", shown(&body)));
    }
    if let Some(pattern) = &condition.matches {
        let regex = Regex::new(pattern).map_err(|error| error.to_string())?;
        if !regex.is_match(&body) {
            return Err(format!("expected a body that matches `{pattern}`, got {}", shown(&body)));
        }
    }
    if condition.json.is_empty() {
        return Ok(());
    }
    let value: Value =
        serde_json::from_str(&body).map_err(|error| format!("expected JSON, got {} ({error})", shown(&body)))?;
    for (pointer, expected) in &condition.json {
        match value.pointer(pointer).map(as_text) {
            Some(found) if found == *expected => {}
            Some(found) => return Err(format!("expected {expected} at `{pointer}`, got {}", short(&found))),
            None => return Err(format!("expected {expected} at `{pointer}`, got {} without it", shown(&body))),
        }
    }
    Ok(())
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn body(response: &mut Response<Body>) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = response.body_mut().as_reader().take(BODY_MAX).read_to_end(&mut bytes);
    read.map_err(|error| format!("expected a whole body, got {} bytes of it: {error}", bytes.len()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn shown(body: &str) -> String {
    if body.trim().is_empty() { "an empty one".to_owned() } else { format!("`{}`", short(body)) }
}

/// The beginning, on one line.
fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}
