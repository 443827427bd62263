//! Smoke tests over HTTP: what they ask for, what they say of what came, and that a site that does not answer is undone.

use std::time::{Duration, Instant};

use backout_engine::outcome::{NOTHING_CHANGED, Status};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::http::{Answer, HttpServer};
use backout_testkit::package::child;
use serde_json::{Value, json};

use crate::deploy::undone;
use crate::scene::{shop, winter};

/// A site of a few pages.
fn pages() -> HttpServer {
    HttpServer::start(|asked| match asked.path.as_str() {
        "/" => Answer::new(200, "<h1>Winter</h1>").header("Content-Type", "text/html; charset=utf-8"),
        "/health" => Answer::new(200, r#"{"ok": true, "rows": [{"n": 3}], "name": "shop"}"#),
        "/old" => Answer::new(301, "").header("Location", "/"),
        "/round" => Answer::new(302, "").header("Location", "/round"),
        _ => Answer::new(500, "Call to undefined function\n  winter() in index.php"),
    })
}

#[test]
fn a_page_that_answers_as_it_should_holds() {
    let server = pages();
    let ask = |path: &str, more: Value| {
        let mut check = json!({ "http": server.url(path) });
        check.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        check
    };
    let holding = [
        ask("/", json!({})),
        ask("/", json!({ "status": 200, "contains": "Winter", "matches": "<h1>W.*r</h1>" })),
        ask("/", json!({ "header": { "content-type": "text/html" } })),
        ask("/health", json!({ "json": { "/ok": "true", "/rows/0/n": "3", "/name": "shop", "/rows": "[{\"n\":3}]" } })),
        ask("/old", json!({ "contains": "Winter" })),
        ask("/old", json!({ "status": 301, "header": { "location": "/" } })),
        ask("/gone", json!({ "status": 500, "timeout": "5s" })),
    ];
    let site = shop();
    let mut package = winter();
    package.after = holding.to_vec();
    site.deploy(&package).expect(Status::Done);
    let failing = [
        (
            ask("/gone", json!({})),
            "expected status 200 to 299, got 500 Internal Server Error: Call to undefined function winter()",
        ),
        (ask("/", json!({ "contains": "Summer" })), "expected a body with `Summer`, got `<h1>Winter</h1>`"),
        (ask("/", json!({ "matches": "^W" })), "expected a body that matches `^W`, got `<h1>Winter</h1>`"),
        (ask("/", json!({ "header": { "x-cache": "hit" } })), "expected the header `x-cache` with `hit`, got none"),
        (ask("/", json!({ "json": { "/ok": "true" } })), "expected JSON, got `<h1>Winter</h1>`"),
        (ask("/health", json!({ "json": { "/rows/0/n": "4" } })), "expected 4 at `/rows/0/n`, got 3"),
        (ask("/health", json!({ "json": { "/rows/1": "4" } })), "expected 4 at `/rows/1`, got "),
        (ask("/old", json!({ "redirects": 0 })), "expected status 200 to 299, got 301"),
        (ask("/round", json!({})), "expected status 200 to 299, got 302"),
    ];
    for (check, words) in failing {
        let site = shop();
        let outcome = site.deploy(&winter().before(check.clone())).expect(Status::Refused);
        assert_eq!(outcome.closing, NOTHING_CHANGED);
        assert!(outcome.causes.iter().any(|cause| cause.contains(words)), "{check}: {:?}", outcome.causes);
    }
}

#[test]
fn a_site_that_does_not_answer_after_it_is_as_it_was() {
    let server = pages();
    for package in [
        winter().after(json!({ "http": server.url("/broken") })),
        child_with(json!({ "http": server.url("/broken") })),
        winter().after(json!({ "http": "http://127.0.0.1:1/" })),
        winter().after(json!({ "http": server.url("/broken").replace("http:", "https:") })),
    ] {
        let site = shop();
        let before = Fingerprint::of(&site);
        undone(&site, &before, site.deploy(&package));
    }
}

fn child_with(check: Value) -> backout_testkit::package::Pkg {
    backout_testkit::package::Pkg::new("all").step(child(winter().after(check)))
}

#[test]
fn it_is_asked_again_within_its_time() {
    let mut times = 0;
    let server = HttpServer::start(move |_| {
        times += 1;
        Answer::new(if times < 3 { 503 } else { 200 }, "")
    });
    let site = shop();
    site.deploy(&winter().after(json!({ "http": server.url("/"), "within": "30s" }))).expect(Status::Done);
    assert_eq!(server.asked().len(), 3);
    assert_eq!((server.asked()[0].method.as_str(), server.asked()[0].path.as_str()), ("GET", "/"));
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let site = shop();
    let began = Instant::now();
    let outcome = site.deploy(&winter().before(json!({ "http": url, "timeout": "200ms" }))).expect(Status::Refused);
    assert!(outcome.causes.iter().any(|cause| cause.contains("it did not come within 200 ms")), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(8));
}
