//! Packages of packages: each child atomic by itself, tried again as its parent says, then failing it or passed over.

use backout_engine::observer::Happening;
use backout_engine::outcome::Status;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, child, run, sql, sql_is};
use serde_json::json;

use crate::deploy::undone;
use crate::scene::{late_failure, page, raise, shop, winter};

/// A step that fails until it was run so many times; the count is kept beside the site's databases.
fn fails_until(times: u32) -> backout_testkit::package::Step {
    let script = format!(
        "n=$(($(cat \"$BACKOUT_ROOT_WEB/../count\" 2>/dev/null || echo 0) + 1)); \
         echo $n > \"$BACKOUT_ROOT_WEB/../count\"; [ $n -ge {times} ]"
    );
    run(&script, Some("true"))
}

#[test]
fn children_are_done_in_their_turn() {
    let site = shop();
    let grandchild = Pkg::new("images").step(page("images"));
    let content = Pkg::new("content")
        .before(sql_is("SELECT count(*) FROM made", 1))
        .step(sql("INSERT INTO made VALUES (2)"))
        .step(child(grandchild));
    let package = Pkg::new("all")
        .step(sql("CREATE TABLE made (n); INSERT INTO made VALUES (1)"))
        .step(child(content))
        .step(sql("INSERT INTO made VALUES (3)"));
    let before = Fingerprint::of(&site);
    site.deploy(&package).expect(Status::Done);
    assert_eq!(site.value("SELECT group_concat(n) FROM made"), "1,2,3");
    assert!(site.text("web/images/new.txt").is_some());
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

#[test]
fn a_failing_child_fails_its_parent() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let grandchild = Pkg::new("deep").step(page("deep")).step(late_failure());
    let package = winter().step(child(Pkg::new("middle").step(page("middle")).step(child(grandchild))));
    undone(&site, &before, site.deploy(&package));
}

#[test]
fn a_child_that_may_fail_is_undone_and_passed_over() {
    let site = shop();
    let bad = Pkg::new("bad").step(page("bad")).step(late_failure());
    let with_bad = Pkg::new("all").step(child(bad).with("on-failure", "continue")).step(child(winter()));
    let without = Pkg::new("all").step(child(winter()));
    let done = site.deploy(&with_bad);
    let id = done.id();
    let outcome = done.expect(Status::Partly);
    assert_eq!(outcome.left_out.len(), 1);
    assert_eq!(outcome.left_out[0].what, format!("{id}/bad"));
    assert_eq!(outcome.hints, [format!("backout retry {id}/bad")]);
    assert!(site.text("web/bad/new.txt").is_none());
    // Times of the same step differ from site to site, so only the database is compared with a site without it.
    let other = shop();
    other.deploy(&without).expect(Status::Done);
    let (mut here, mut there) = (Fingerprint::of(&site), Fingerprint::of(&other));
    here.parts.remove("root web");
    there.parts.remove("root web");
    there.assert_same(&here, "as if it had not been there");
    assert_eq!(site.grave(), []);
}

#[test]
fn a_sibling_that_requires_a_passed_over_child_is_passed_over_too() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let bad = Pkg::new("bad").step(late_failure());
    let needy = Pkg::new("needy").requires("bad").step(page("needy"));
    let needier = Pkg::new("needier").requires("needy").step(page("needier"));
    let package = Pkg::new("all")
        .step(child(bad).with("on-failure", "continue"))
        .step(child(needy))
        .step(child(needier))
        .step(child(winter()));
    let done = site.deploy(&package);
    let id = done.id();
    let outcome = done.expect(Status::Partly);
    let left: Vec<&str> = outcome.left_out.iter().map(|left| left.what.as_str()).collect();
    assert_eq!(left, [format!("{id}/bad"), format!("{id}/needy"), format!("{id}/needier")]);
    assert!(site.text("web/needy/new.txt").is_none() && site.text("web/needier/new.txt").is_none());
    assert!(site.text("web/winter/new.txt").is_some());
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

#[test]
fn a_child_that_requires_what_is_nowhere_fails() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let needy = Pkg::new("needy").requires("elsewhere").step(page("needy"));
    undone(&site, &before, site.deploy(&winter().step(child(needy))));
}

#[test]
fn a_failed_child_is_tried_again_from_a_clean_start() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let flaky = Pkg::new("flaky").step(sql("INSERT INTO product VALUES (9, 'sleigh', 1, 1)")).step(fails_until(3));
    let retries = json!({ "attempts": 3, "wait": "1ms", "backoff": 4 });
    let done = site.deploy(&Pkg::new("all").step(child(flaky).with("retries", retries)));
    let waits: Vec<(u32, u64)> = done
        .heard
        .iter()
        .filter_map(|happening| match happening {
            Happening::Retrying { attempt, of: 3, wait_ms, .. } => Some((*attempt, *wait_ms)),
            _ => None,
        })
        .collect();
    assert_eq!(waits, [(2, 1), (3, 4)], "{done:?}");
    done.expect(Status::Done);
    assert_eq!(site.value("SELECT count(*) FROM product WHERE id = 9"), "1");
    assert_eq!(site.text("count").as_deref(), Some("3\n"));
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    assert_eq!(site.grave(), []);
}

#[test]
fn only_when_all_tries_failed_it_counts_as_failed() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let retries = json!({ "attempts": 2, "wait": "0s" });
    let package =
        winter().step(child(Pkg::new("flaky").step(raise_stock()).step(fails_until(9))).with("retries", retries));
    undone(&site, &before, site.deploy(&package));
    assert_eq!(site.text("count").as_deref(), Some("2\n"));
}

fn raise_stock() -> backout_testkit::package::Step {
    sql("UPDATE product SET stock = stock + 1")
}

#[test]
fn a_child_whose_condition_does_not_hold_fails() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let picky = Pkg::new("picky").before(sql_is("SELECT value FROM settings WHERE name = 'schema'", 42)).step(raise());
    undone(&site, &before, site.deploy(&Pkg::new("all").step(page("winter")).step(child(picky.clone()))));
    let done = site.deploy(&Pkg::new("all").step(child(picky).with("on-failure", "continue")).step(page("winter")));
    assert_eq!(done.expect(Status::Partly).left_out.len(), 1);
}

#[test]
fn a_childs_failed_smoke_test_undoes_the_child() {
    let site = shop();
    let picky = Pkg::new("picky").step(raise()).after(sql_is("SELECT price FROM product WHERE id = 1", 100));
    let package = Pkg::new("all").step(child(picky).with("on-failure", "continue")).step(page("winter"));
    site.deploy(&package).expect(Status::Partly);
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "100");
    assert!(site.text("web/winter/new.txt").is_some());
}

#[test]
fn a_child_that_is_a_plain_list_keeps_what_it_did() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let list = Pkg::new("list").list().step(page("list")).step(late_failure());
    let package =
        |on_failure: &str| Pkg::new("all").step(child(list.clone()).with("on-failure", on_failure)).step(raise());
    let done = site.deploy(&package("continue"));
    let id = done.id();
    let outcome = done.expect(Status::Partly);
    assert_eq!(outcome.left_out.iter().map(|left| left.what.clone()).collect::<Vec<_>>(), [format!("{id}/list")]);
    assert!(site.text("web/list/new.txt").is_some(), "its first step stays");
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "110");
    site.undo(None).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
    // Its parent is atomic: where the child may not fail, nothing stays.
    undone(&site, &before, site.deploy(&package("fail")));
}

#[test]
fn a_plain_list_of_children_keeps_those_that_are_done() {
    let site = shop();
    let bad = Pkg::new("bad").step(page("bad")).step(late_failure());
    let package = Pkg::new("all").list().step(child(winter())).step(child(bad)).step(page("never"));
    let outcome = site.deploy(&package).expect(Status::Partly);
    assert_eq!(outcome.left_out.len(), 1, "{outcome:?}");
    assert!(site.text("web/winter/new.txt").is_some());
    assert!(site.text("web/bad/new.txt").is_none());
}
