//! One request and what its answer must be. Reads as much of a body as a smoke test looks at, and no more.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::Value;
use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};
use url::Url;

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
    let until = Instant::now() + condition.timeout;
    let mut url = condition.url.clone();
    for redirects in 0..=condition.redirects {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let mut response = match agent(condition.verified, left).get(&url).call() {
            Ok(response) => response,
            Err(error) => {
                return Some(format!("expected an answer, got none: {}", in_words(&error, condition.timeout)));
            }
        };
        match redirected(&url, &response) {
            Some(Ok(next)) if redirects < condition.redirects => url = next,
            Some(Err(to)) if condition.redirects > 0 => {
                return Some(format!("expected an answer, got a redirect to {}", short(&to)));
            }
            Some(_) if condition.redirects > 0 => break,
            Some(_) | None => return judge(condition, &mut response).err(),
        }
    }
    Some(format!("expected an answer after at most {} redirects, got one more", condition.redirects))
}

/// Where an answer sends to; an error where that is nothing that answers over HTTP.
fn redirected(from: &str, response: &Response<Body>) -> Option<Result<String, String>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let to = String::from_utf8_lossy(response.headers().get("location")?.as_bytes()).into_owned();
    let next = Url::parse(from).and_then(|from| from.join(&to));
    Some(match next {
        Ok(next) if matches!(next.scheme(), "http" | "https") => Ok(next.into()),
        Ok(_) | Err(_) => Err(to),
    })
}

/// What makes requests: certificates are the system's, a status is no error.
pub(crate) fn agent(verified: bool, timeout: Duration) -> Agent {
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
        .max_redirects(0)
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
        ureq::Error::HostNotFound => "the host's name is not known".to_owned(),
        ureq::Error::Io(error) => plain(error.to_string()),
        error => plain(error.to_string()),
    }
}

fn plain(text: String) -> String {
    certificate(&text).map(str::to_owned).unwrap_or(text)
}

/// What is wrong with a certificate, where an error that says so in its own words is about one.
pub(crate) fn certificate(error: &str) -> Option<&'static str> {
    const WRONG: [(&str, &str); 5] = [
        (
            "CaUsedAsEndEntity",
            "its certificate is one of an authority (CA:TRUE), which no server may show: give it one of its own",
        ),
        (
            "UnknownIssuer",
            "its certificate is signed by nobody whom this machine trusts: add who signed it to the system's authorities",
        ),
        ("NotValidForName", "its certificate is not for this name"),
        ("NotValidYet", "its certificate is not valid yet"),
        ("Expired", "its certificate is not valid any more"),
    ];
    let is_about_one = error.contains("certificate");
    WRONG.iter().find(|(name, _)| is_about_one && error.contains(name)).map(|(_, words)| *words)
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
    read.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
        let why = match inner {
            Some(ureq::Error::Timeout(_)) => "the time was over".to_owned(),
            _ => error.to_string(),
        };
        format!("expected a whole body, got {} bytes of it: {why}", bytes.len())
    })?;
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
