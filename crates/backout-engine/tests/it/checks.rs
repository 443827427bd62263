//! Conditions before and after: of all kinds, tried again within their time.

use backout_engine::error::EngineError;
use backout_engine::observer::Happening;
use backout_engine::outcome::{NOTHING_CHANGED, Status};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, child, shell, sql_is};
use serde_json::{Value, json};

use crate::deploy::undone;
use crate::scene::{shop, winter};

/// sha256 of `<?php // autumn`, by sha256sum(1).
const AUTUMN: &str = "836a14ea77d52c7249b7051ab0716193f6c0fb47923575f96ed6684fd0f4b13f";
/// sha256 of `<?php // winter`.
const WINTER: &str = "0d395fab8971ceb19042f393d12970937b369033849372d6b84256c4b44234db";

/// Checks that hold before the deployment and no longer after it.
fn hold_before() -> Vec<Value> {
    vec![
        sql_is("SELECT price FROM product WHERE id = 1", 100),
        json!({ "sql": "SELECT count(*) FROM product", "database": "main", "equals": "3" }),
        json!({ "file": "index.php", "contains": "autumn" }),
        json!({ "file": "winter/new.txt", "exists": false }),
        json!({ "file": "index.php", "sha256": AUTUMN }),
        json!({ "run": ["test", "!", "-e", "{root.web}/winter/new.txt"] }),
        json!({ "run": shell("! test -e \"$BACKOUT_ROOT_WEB/winter/new.txt\"") }),
    ]
}

/// Checks that hold only after it.
fn hold_after() -> Vec<Value> {
    vec![
        sql_is("SELECT price FROM product WHERE id = 1", 110),
        json!({ "file": "index.php", "contains": "winter" }),
        json!({ "file": "winter/new.txt" }),
        json!({ "file": "index.php", "sha256": WINTER }),
        json!({ "run": ["test", "-e", "{root.web}/winter/new.txt"] }),
    ]
}

#[test]
fn conditions_that_hold_let_a_package_pass() {
    let site = shop();
    let mut package = winter();
    package.before = hold_before();
    package.after = hold_after();
    let done = site.deploy(&package);
    let ran = done.heard.iter().filter(|happening| matches!(happening, Happening::CheckRan { held: true, .. })).count();
    assert_eq!(ran, hold_before().len() + hold_after().len());
    done.expect(Status::Done);
}

#[test]
fn a_condition_that_does_not_hold_keeps_the_package_from_starting() {
    for check in hold_after() {
        let site = shop();
        let before = Fingerprint::of(&site);
        let outcome = site.deploy(&winter().before(check.clone())).expect(Status::Refused);
        assert_eq!(outcome.closing, NOTHING_CHANGED, "{check}");
        assert_eq!(outcome.causes.len(), 2, "{check}: {outcome:?}");
        before.assert_same(&Fingerprint::of(&site), "refused");
    }
}

#[test]
fn a_failed_smoke_test_undoes_the_package() {
    for check in hold_before() {
        let site = shop();
        let before = Fingerprint::of(&site);
        undone(&site, &before, site.deploy(&winter().after(check)));
    }
}

#[test]
fn a_check_says_what_was_expected_and_what_came() {
    let site = shop();
    let mut named = sql_is("SELECT price FROM product WHERE id = 1", 99);
    named["name"] = "a coat costs 99".into();
    let outcome = site.deploy(&winter().before(named)).expect(Status::Refused);
    assert_eq!(outcome.causes[1], "check \"a coat costs 99\": expected 99, got 100");
    for (query, said) in [
        ("SELECT stock FROM product WHERE id = 3", "got no value"),
        ("SELECT price FROM product WHERE id = 77", "got no value"),
        ("SELECT colour FROM product", "no such column: colour"),
        ("SELECT price FROM product", "more than one row"),
    ] {
        let before = Fingerprint::of(&site);
        let outcome = site.deploy(&winter().before(sql_is(query, 1))).expect(Status::Refused);
        assert!(outcome.causes[1].contains(said), "{query}: {outcome:?}");
        before.assert_same(&Fingerprint::of(&site), "a check changes nothing");
    }
}

/// The plan knows it, so that it is not found when everything is done already.
#[test]
fn a_check_that_writes_or_gives_several_columns_is_refused() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let write = || sql_is("UPDATE product SET price = 1 RETURNING 1", 1);
    let inner = || child(Pkg::new("inner").step(crate::scene::page("p")).before(write()));
    for package in [
        winter().before(write()),
        winter().after(write()),
        winter().after(sql_is("SELECT 1, 2", 1)),
        Pkg::new("outer").step(inner()),
    ] {
        let error = site.deploy(&package).result.unwrap_err();
        assert!(matches!(&error, EngineError::Refused(list) if list.len() == 1), "{error:?}");
        before.assert_same(&Fingerprint::of(&site), "refused");
    }
}

#[test]
fn a_check_is_tried_again_within_its_time() {
    // It holds at the second try; an hour is never waited for.
    let slow = |count: &str| {
        json!({ "run": shell(&format!("test -e \"$BACKOUT_ROOT_WEB/../{count}\" || {{ touch \"$BACKOUT_ROOT_WEB/../{count}\"; exit 1; }}")),
                "within": "1h" })
    };
    let site = shop();
    site.deploy(&winter().before(slow("one")).after(slow("two"))).expect(Status::Done);
    let before = Fingerprint::of(&site);
    let mut once = slow("three");
    once.as_object_mut().unwrap().remove("within");
    undone(&site, &before, site.deploy(&Pkg::new("p").step(crate::scene::page("p")).after(once)));
}

#[test]
fn a_check_that_never_holds_fails_when_its_time_is_over() {
    let site = shop();
    let mut never = sql_is("SELECT 1", 2);
    never["within"] = "300ms".into();
    let began = std::time::Instant::now();
    site.deploy(&winter().before(never)).expect(Status::Refused);
    assert!(began.elapsed() >= std::time::Duration::from_millis(300));
}

#[test]
fn a_check_that_hangs_is_ended() {
    let site = shop();
    let before = Fingerprint::of(&site);
    undone(&site, &before, site.deploy(&winter().after(json!({ "run": ["sleep", "600"], "timeout": "100ms" }))));
}

#[test]
fn a_command_gets_no_more_time_than_its_check() {
    let site = shop();
    let began = std::time::Instant::now();
    let hangs = json!({ "run": ["sleep", "600"], "within": "200ms", "timeout": "9m" });
    let outcome = site.deploy(&winter().before(hangs)).expect(Status::Refused);
    assert!(outcome.causes[1].contains("took longer"), "{outcome:?}");
    // The first try says why, the second one is cut off.
    let script =
        "test -e \"$BACKOUT_ROOT_WEB/../tried\" && exec sleep 600; touch \"$BACKOUT_ROOT_WEB/../tried\"; exit 7";
    let outcome =
        site.deploy(&winter().before(json!({ "run": shell(script), "within": "2s" }))).expect(Status::Refused);
    assert!(outcome.causes[1].contains("exit status 7"), "{outcome:?}");
    assert!(began.elapsed() < std::time::Duration::from_secs(540));
}
