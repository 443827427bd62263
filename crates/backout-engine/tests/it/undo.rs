//! Undo: the latest, a named one, a child alone, an earlier one while later ones stay; conflicts and what settles them.

use backout_engine::observer::Happening;
use backout_engine::outcome::{NOTHING_CHANGED, Status};
use backout_engine::undo;
use backout_model::conflict::{ConflictKind, OnConflict};
use backout_model::state::DeploymentState;
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::observer::Recorder;
use backout_testkit::package::{Pkg, child, delete, files, sql};
use backout_testkit::site::{Done, TestSite};
use backout_testkit::tree::Tree;

use crate::scene::{page, raise, shop, winter};

fn stock(id: u32, stock: u32) -> Pkg {
    Pkg::new(&format!("stock-{id}")).step(sql(format!("UPDATE product SET stock = {stock} WHERE id = {id}")))
}

fn price(id: u32, price: u32) -> Pkg {
    Pkg::new(&format!("price-{id}")).step(sql(format!("UPDATE product SET price = {price} WHERE id = {id}")))
}

#[test]
fn undo_says_what_was_undone_and_where_the_site_is_now() {
    let site = shop();
    let empty = Fingerprint::of(&site);
    let first = site.deploy(&winter()).id();
    let one = Fingerprint::of(&site);
    let second = site.deploy(&stock(1, 77)).id();
    let outcome = site.undo(None).expect(Status::Done);
    assert_eq!(
        outcome.answer,
        [format!("undid stock-1 1.0 ({second})"), format!("the site is now at winter 1.0 ({first})")]
    );
    one.assert_same(&Fingerprint::of(&site), "after the first undo");
    let outcome = site.undo(None).expect(Status::Done);
    assert_eq!(
        outcome.answer,
        [format!("undid winter 1.0 ({first})"), "the site is now as it was before its first deployment".to_owned()]
    );
    empty.assert_same(&Fingerprint::of(&site), "after the second undo");
    assert_eq!(site.undo(None).status(), Status::Refused, "nothing is left to undo");
    assert_eq!(site.grave(), []);
}

#[test]
fn any_unique_prefix_of_an_id_serves() {
    let site = shop();
    let id = site.deploy(&winter()).id();
    site.undo(Some(&id[..5])).expect(Status::Done);
    for (what, status) in [(id.as_str(), Status::Refused), ("nothingsuch", Status::Usage), ("", Status::Usage)] {
        let done = site.undo(Some(what));
        assert!(done.result.is_err() && done.status() == status, "{what}: {done:?}");
    }
    let many = site.deploy(&stock(1, 6)).id();
    for _ in 0..40 {
        site.deploy(&stock(1, 7)).expect(Status::Done);
    }
    let done = site.undo(Some(&many[..1]));
    if done.result.is_err() {
        assert_eq!(done.status(), Status::Usage, "{done:?}");
    }
}

#[test]
fn an_earlier_deployment_is_undone_where_nothing_overlaps() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let prices = site.deploy(&price(1, 111)).id();
    let stocks = site.deploy(&stock(1, 77)).id();
    let page_id = site.deploy(&Pkg::new("page").step(page("winter"))).id();
    site.undo(Some(&prices)).expect(Status::Done);
    assert_eq!(site.value("SELECT price || ' ' || stock FROM product WHERE id = 1"), "100 77");
    assert!(site.text("web/winter/new.txt").is_some());
    site.undo(Some(&page_id)).expect(Status::Done);
    site.undo(Some(&stocks)).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "all undone, in another order");
    assert_eq!(site.grave(), []);
}

#[test]
fn an_earlier_deployment_is_refused_with_the_list_where_it_overlaps() {
    let site = shop();
    let first = site.deploy(&price(1, 111)).id();
    site.deploy(&price(1, 122)).expect(Status::Done);
    let now = Fingerprint::of(&site);
    let outcome = site.undo(Some(&first)).expect(Status::Refused);
    assert_eq!(outcome.closing, NOTHING_CHANGED);
    assert_eq!(outcome.conflicts_total, 1, "{outcome:?}");
    let conflict = &outcome.conflicts[0];
    assert_eq!((conflict.target.as_str(), conflict.object.as_str()), ("database main", "product"));
    assert_eq!(conflict.column.as_deref(), Some("price"));
    assert_eq!(conflict.kind, ConflictKind::Changed);
    assert_eq!((conflict.before.as_str(), conflict.left.as_str(), conflict.now.as_str()), ("100", "111", "122"));
    now.assert_same(&Fingerprint::of(&site), "refused");
    assert!(outcome.hints.iter().any(|hint| hint.contains("--on-conflict keep")), "{outcome:?}");
}

#[test]
fn conflicts_of_every_step_are_sought_before_the_first_change() {
    let site = shop();
    let package = Pkg::new("both")
        .step(sql("UPDATE product SET price = 1 WHERE id = 1"))
        .step(page("winter"))
        .step(sql("UPDATE product SET price = 2 WHERE id = 2"));
    site.deploy(&package).expect(Status::Done);
    site.execute("UPDATE product SET price = 55 WHERE id = 1; UPDATE product SET price = 56 WHERE id = 2");
    std::fs::write(site.root("web").join("index.php"), "somebody's own").unwrap();
    let now = Fingerprint::of(&site);
    let outcome = site.undo(None).expect(Status::Refused);
    assert_eq!(outcome.conflicts_total, 3, "{:?}", outcome.conflicts);
    now.assert_same(&Fingerprint::of(&site), "refused");
    assert_eq!(site.journal().deployments().unwrap()[0].state, DeploymentState::Done);
}

#[test]
fn what_others_changed_elsewhere_stays() {
    let site = shop();
    site.deploy(&winter()).expect(Status::Done);
    site.execute(
        "UPDATE product SET stock = 500 WHERE id = 1; INSERT INTO orders (product, amount) VALUES (3, 3);
         UPDATE product SET name = 'cap' WHERE id = 2",
    );
    std::fs::write(site.root("web").join("theme/style.css"), "somebody's own").unwrap();
    std::fs::write(site.root("web").join("uploads/new.jpg"), "a new photo").unwrap();
    site.undo(None).expect(Status::Done);
    let rows = site.value("SELECT group_concat(id || name || price || ifnull(stock, '-')) FROM product");
    assert_eq!(rows, "1coat100500,2cap209,3scarf15-");
    assert_eq!(site.value("SELECT count(*) FROM orders"), "3");
    assert_eq!(site.text("web/theme/style.css").as_deref(), Some("somebody's own"));
    assert_eq!(site.text("web/uploads/new.jpg").as_deref(), Some("a new photo"));
    assert_eq!(site.text("web/index.php").as_deref(), Some("<?php // autumn"));
}

#[test]
fn keep_leaves_the_newer_value_and_overwrite_brings_the_old_one_back() {
    for (on_conflict, status, price, index) in [
        (OnConflict::Keep, Status::Partly, "55", "somebody's own"),
        (OnConflict::Overwrite, Status::Done, "100", "<?php // autumn"),
    ] {
        let site = shop();
        let before = Fingerprint::of(&site);
        site.deploy(&winter()).expect(Status::Done);
        site.execute("UPDATE product SET price = 55 WHERE id = 1");
        std::fs::write(site.root("web").join("index.php"), "somebody's own").unwrap();
        let outcome = site.undo_on(None, on_conflict).expect(status);
        assert_eq!(outcome.conflicts_total, 2, "{on_conflict:?}: {:?}", outcome.conflicts);
        assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), price);
        assert_eq!(site.text("web/index.php").as_deref(), Some(index));
        assert_eq!(site.value("SELECT count(*) FROM product WHERE id = 4"), "0", "the rest is undone");
        assert!(site.text("web/winter/new.txt").is_none());
        if on_conflict == OnConflict::Overwrite {
            before.parts["database main"].iter().for_each(|(name, line)| {
                assert_eq!(Fingerprint::of(&site).parts["database main"].get(name), Some(line), "{name}");
            });
        }
        assert_eq!(site.grave(), []);
    }
}

#[test]
fn one_child_alone_is_undone_and_the_rest_stays() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let inner = Pkg::new("inner").step(page("inner")).step(child(Pkg::new("deep").step(page("deep"))));
    let package = Pkg::new("all").step(child(inner)).step(child(Pkg::new("prices").step(raise())));
    let id = site.deploy(&package).id();
    let all = Fingerprint::of(&site);
    let outcome = site.undo(Some(&format!("{id}/inner/deep"))).expect(Status::Done);
    assert_eq!(outcome.answer[0], format!("undid inner/deep of all 1.0 ({id}/inner/deep)"));
    assert!(site.text("web/inner/new.txt").is_some() && site.text("web/deep/new.txt").is_none());
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "110");
    assert_eq!(site.undo(Some(&format!("{id}/inner/deep"))).status(), Status::Refused, "it is undone already");
    assert_eq!(site.undo(Some(&format!("{id}/nowhere"))).status(), Status::Usage);
    site.redo().expect(Status::Done);
    all.assert_same(&Fingerprint::of(&site), "redone");
    site.undo(Some(&format!("{id}/prices"))).expect(Status::Done);
    assert_eq!(site.value("SELECT price FROM product WHERE id = 1"), "100");
    site.undo(Some(&format!("{id}/inner"))).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "child by child all is undone");
    assert_eq!(site.journal().deployments().unwrap()[0].state, DeploymentState::Undone);
    assert_eq!(site.grave(), []);
}

#[test]
fn what_another_one_requires_is_not_undone_under_it() {
    let site = shop();
    let first = site.deploy(&winter()).id();
    let needy = site.deploy(&stock(1, 6).requires("winter")).id();
    let now = Fingerprint::of(&site);
    for on_conflict in [OnConflict::Stop, OnConflict::Keep] {
        let outcome = site.undo_on(Some(&first), on_conflict).expect(Status::Refused);
        assert_eq!(outcome.conflicts[0].kind, ConflictKind::RequiredBy);
        assert!(outcome.conflicts[0].now.contains(&needy), "{outcome:?}");
        now.assert_same(&Fingerprint::of(&site), "refused");
    }
    site.undo(Some(&needy)).expect(Status::Done);
    site.undo(Some(&first)).expect(Status::Done);
}

#[test]
fn a_child_that_a_sibling_requires_is_not_undone_under_it() {
    let site = shop();
    let needy = Pkg::new("needy").requires("base").step(page("needy"));
    let package = Pkg::new("all").step(child(Pkg::new("base").step(page("base")))).step(child(needy));
    let before = Fingerprint::of(&site);
    let id = site.deploy(&package).id();
    let outcome = site.undo(Some(&format!("{id}/base"))).expect(Status::Refused);
    assert_eq!(outcome.conflicts[0].kind, ConflictKind::RequiredBy, "{outcome:?}");
    assert!(outcome.causes[0].starts_with("base of all "), "{outcome:?}");
    site.undo(Some(&id)).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "together they go");
}

#[test]
fn what_a_child_of_another_one_requires_is_not_undone_under_it() {
    let site = shop();
    let first = site.deploy(&winter()).id();
    let needy = Pkg::new("needy").requires("winter").step(page("needy"));
    let outer = Pkg::new("outer").step(child(Pkg::new("middle").step(child(needy))));
    let second = site.deploy(&outer).id();
    let outcome = site.undo(Some(&first)).expect(Status::Refused);
    assert_eq!(outcome.conflicts[0].kind, ConflictKind::RequiredBy, "{outcome:?}");
    assert!(outcome.conflicts[0].now.contains(&format!("{second}/middle/needy")), "{outcome:?}");
    site.undo(Some(&format!("{second}/middle"))).expect(Status::Done);
    site.undo(Some(&first)).expect(Status::Done);
}

#[test]
fn a_package_may_require_one_beside_a_package_around_it() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let needy = Pkg::new("needy").requires("base").step(page("needy"));
    let base = Pkg::new("base").step(page("base"));
    let package = Pkg::new("all").step(child(base)).step(child(Pkg::new("middle").step(child(needy))));
    let id = site.deploy(&package).id();
    assert!(site.text("web/needy/new.txt").is_some());
    site.undo(Some(&format!("{id}/base"))).expect(Status::Refused);
    site.undo(Some(&format!("{id}/middle"))).expect(Status::Done);
    site.undo(Some(&format!("{id}/base"))).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "undone");
}

#[test]
fn a_plan_of_an_undo_says_all_and_changes_nothing() {
    let site = shop();
    let package = winter().step(files(Tree::new().link("current", "winter")));
    site.deploy(&package).expect(Status::Done);
    let now = Fingerprint::of(&site);
    let (described, done) = site.undo_plan(None, OnConflict::Stop);
    done.expect(Status::Done);
    let text: Vec<String> = described.iter().map(|each| format!("{}: {}", each.change, each.undo)).collect();
    for part in ["UPDATE product", "INSERT INTO product", "index.php", "winter/new.txt", "current"] {
        assert!(text.iter().any(|line| line.contains(part)), "{part} in {text:#?}");
    }
    now.assert_same(&Fingerprint::of(&site), "planned");
    site.execute("UPDATE product SET price = 55 WHERE id = 1");
    let now = Fingerprint::of(&site);
    let (_, done) = site.undo_plan(None, OnConflict::Stop);
    assert_eq!(done.expect(Status::Refused).conflicts_total, 1);
    now.assert_same(&Fingerprint::of(&site), "planned");
    assert_eq!(site.journal().deployments().unwrap()[0].state, DeploymentState::Done);
}

#[test]
fn the_history_is_never_erased() {
    let site = shop();
    let count = || {
        let mut seqs = Vec::new();
        site.journal()
            .all_entries(1, &mut |entry| {
                seqs.push((entry.seq, entry.event));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        seqs
    };
    let mut seen = Vec::new();
    site.deploy(&winter()).expect(Status::Done);
    for step in 0..4 {
        let now = count();
        assert_eq!(now[..seen.len()], seen[..], "what was written stays");
        assert!(now.len() > seen.len());
        seen = now;
        if step % 2 == 0 {
            site.undo(None).expect(Status::Done);
        } else {
            site.redo().expect(Status::Done);
        }
    }
}

#[test]
fn a_row_is_not_taken_from_under_what_others_point_at_it() {
    for script in [
        "INSERT INTO product VALUES (9, 'sleigh', 1, 1)",
        "DELETE FROM product; INSERT INTO product VALUES (9, 'sleigh', 1, 1)",
        "CREATE TABLE made (n); INSERT INTO product VALUES (9, 'sleigh', 1, 1)",
        "INSERT INTO product VALUES (9, 'sleigh', 1, 1); CREATE TABLE made (n)",
        "INSERT INTO product VALUES (9, 'sleigh', 1, 1); DELETE FROM product WHERE id = 1",
    ] {
        let site = shop();
        site.deploy(&Pkg::new("p").step(sql(script))).expect(Status::Done);
        site.execute("INSERT INTO orders (product, amount) VALUES (9, 1)");
        let now = Fingerprint::of(&site);
        let done = site.undo(None);
        assert_eq!(done.status(), Status::Refused, "{script}: {done:?}");
        assert_eq!(done.expect(Status::Refused).conflicts[0].kind, ConflictKind::ForeignKey, "{script}");
        now.assert_same(&Fingerprint::of(&site), script);
    }
}

/// Undoes the latest deployment while something is done after the first step that is undone.
fn undo_meanwhile(site: &TestSite, mut act: impl FnMut() + Send + 'static) -> Done {
    let mut first = true;
    let recorder = Recorder::with_hook(move |happening| {
        if matches!(happening, Happening::StepUndone { .. }) && std::mem::take(&mut first) {
            act();
        }
    });
    let options = undo::Options { on_conflict: OnConflict::Stop, unattributed: false };
    site.command("undo", recorder, |session| undo::undo(session, None, options))
}

#[test]
fn a_conflict_that_turns_up_late_puts_back_what_was_undone() {
    let site = shop();
    let package = Pkg::new("p").step(sql("UPDATE product SET price = 1 WHERE id = 1")).step(page("p")).step(raise());
    let id = site.deploy(&package).id();
    let before = Fingerprint::of(&site);
    let connection = site.connect("main");
    let done = undo_meanwhile(&site, move || {
        connection.execute("UPDATE product SET price = 55 WHERE id = 1", []).unwrap();
    });
    let outcome = done.expect(Status::Refused);
    assert!(outcome.closing.contains("put back"), "{}", outcome.closing);
    assert_eq!(outcome.conflicts_total, 1, "{outcome:?}");
    let mut now = Fingerprint::of(&site);
    // Their own value, and nothing else, differs.
    let theirs = now.parts.get_mut("database main").unwrap().insert("row product 1".to_owned(), String::new());
    assert_eq!(theirs.as_deref(), Some("1 | \"coat\" | 55 | 5"));
    let mut before = before;
    before.parts.get_mut("database main").unwrap().insert("row product 1".to_owned(), String::new());
    before.assert_same(&now, "put back");
    assert_eq!(site.journal().deployments().unwrap()[0].state, DeploymentState::Done);
    assert_eq!(site.grave(), []);
    site.undo_on(Some(&id), OnConflict::Overwrite).expect(Status::Done);
    assert_eq!(site.value("SELECT group_concat(price) FROM product"), "100,20,15");
    site.redo().expect(Status::Done);
}

#[test]
fn an_operator_who_stops_an_undo_gets_the_deployment_as_it_was() {
    let site = shop();
    site.deploy(&winter().step(sql("UPDATE product SET stock = 0"))).expect(Status::Done);
    let before = Fingerprint::of(&site);
    let mut recorder = Recorder::default();
    let stopper = recorder.stopper();
    recorder.set_hook(move |happening| {
        if matches!(happening, Happening::StepUndone { .. }) {
            stopper.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let options = undo::Options { on_conflict: OnConflict::Stop, unattributed: false };
    let done = site.command("undo", recorder, |session| undo::undo(session, None, options));
    done.expect(Status::Failed);
    before.assert_same(&Fingerprint::of(&site), "put back");
    site.undo(None).expect(Status::Done);
    assert_eq!(site.grave(), []);
}

/// What one deployment made and a later one took away again: undone one after the other, from the first on, the second
/// undo would bring it back for good.
#[test]
fn what_a_later_deployment_took_away_is_a_conflict() {
    let both = |first: Pkg, second: Pkg| {
        let site = shop();
        let before = Fingerprint::of(&site);
        let id = site.deploy(&first).id();
        site.deploy(&second).expect(Status::Done);
        let then = Fingerprint::of(&site);
        let outcome = site.undo(Some(&id)).expect(Status::Refused);
        assert_eq!((outcome.conflicts_total, outcome.closing.as_str()), (1, NOTHING_CHANGED), "{outcome:?}");
        then.assert_same(&Fingerprint::of(&site), "after a refused undo");
        site.undo(None).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), "after both");
        site
    };
    let step = |name: &str, text: &str| Pkg::new(name).step(sql(text));
    both(
        step("one", "INSERT INTO product VALUES (50, 'skis', 1, 1);"),
        step("two", "DELETE FROM product WHERE id = 50;"),
    );
    both(
        step("one", "UPDATE product SET stock = 500 WHERE id = 1;"),
        step("two", "UPDATE product SET stock = 5 WHERE id = 1;"),
    );
    both(step("one", "CREATE INDEX by_price ON product (price);"), step("two", "DROP INDEX by_price;"));
    both(
        step("one", "ALTER TABLE settings DROP COLUMN value;"),
        step("two", "DELETE FROM settings WHERE name = 'theme';"),
    );
    both(Pkg::new("one").step(files(Tree::new().file("new.txt", "new"))), Pkg::new("two").step(delete(["new.txt"])));
}

/// Who has it passed over is told that the undo is not whole, and so is who undoes the later one.
#[test]
fn what_a_later_deployment_took_away_is_told_where_it_is_passed_over() {
    let step = |name: &str, text: &str| Pkg::new(name).step(sql(text));
    let pairs = [
        (
            step("one", "INSERT INTO product VALUES (50, 'skis', 1, 1);"),
            step("two", "DELETE FROM product WHERE id = 50;"),
        ),
        (step("one", "CREATE INDEX by_price ON product (price);"), step("two", "DROP INDEX by_price;")),
        (Pkg::new("one").step(files(Tree::new().file("new.txt", "new"))), Pkg::new("two").step(delete(["new.txt"]))),
    ];
    for (first, second) in &pairs {
        for manner in [OnConflict::Keep, OnConflict::Overwrite] {
            let site = shop();
            let id = site.deploy(first).id();
            site.deploy(second).expect(Status::Done);
            let (_, plan) = site.undo_plan(Some(&id), manner);
            assert_eq!(plan.expect(Status::Refused).conflicts_total, 1, "{manner:?}");
            if manner == OnConflict::Overwrite {
                // There is nothing to overwrite.
                site.undo_on(Some(&id), manner).expect(Status::Refused);
                continue;
            }
            let outcome = site.undo_on(Some(&id), manner).expect(Status::Partly);
            assert_eq!(outcome.conflicts_total, 1, "{manner:?}: {outcome:?}");
            assert!(outcome.closing.contains("a later deployment"), "{outcome:?}");
            let outcome = site.undo(None).expect(Status::Done);
            let now = outcome.answer.last().unwrap();
            assert!(now.contains(&format!("what is left of {id}")), "{now}");
        }
    }
}

/// The same by the hand of others, who undo nothing: nothing of anybody's is lost.
#[test]
fn what_others_took_away_is_no_conflict_though_later_deployments_stay() {
    let site = shop();
    let id = site.deploy(&Pkg::new("one").step(sql("INSERT INTO product VALUES (50, 'skis', 1, 1);"))).id();
    site.deploy(&Pkg::new("two").step(files(Tree::new().file("other.txt", "other")))).expect(Status::Done);
    site.execute("DELETE FROM product WHERE id = 50");
    site.undo(Some(&id)).expect(Status::Done);
}

/// A later step that changed no table is in nobody's way.
#[test]
fn what_touches_no_table_keeps_no_earlier_deployment() {
    for second in [
        "CREATE INDEX by_price ON product (price);",
        "CREATE VIEW cheap AS SELECT * FROM product;",
        "DROP TABLE IF EXISTS nix;",
        "UPDATE product SET price = 1 WHERE id = 77;",
    ] {
        let site = shop();
        let before = Fingerprint::of(&site);
        let first = "CREATE TABLE made (x); ALTER TABLE settings ADD COLUMN more;";
        let id = site.deploy(&Pkg::new("one").step(sql(first))).id();
        site.deploy(&Pkg::new("two").step(sql(second))).expect(Status::Done);
        site.undo(Some(&id)).expect(Status::Done);
        site.undo(None).expect(Status::Done);
        before.assert_same(&Fingerprint::of(&site), second);
    }
}

/// What lies beyond a link that others put in a directory's place is reached by no means, and nothing is said to be.
#[test]
fn what_is_out_of_reach_is_not_overwritten() {
    let site = shop();
    site.deploy(&Pkg::new("one").step(files(Tree::new().file("theme/style.css", "new")))).expect(Status::Done);
    std::fs::rename(site.root("web").join("theme"), site.root("web").join("moved")).unwrap();
    std::fs::remove_file(site.root("web").join("current")).unwrap();
    std::os::unix::fs::symlink("moved", site.root("web").join("theme")).unwrap();
    let now = Fingerprint::of(&site);
    for manner in [OnConflict::Stop, OnConflict::Overwrite] {
        let outcome = site.undo_on(None, manner).expect(Status::Refused);
        assert_eq!((outcome.conflicts_total, outcome.closing.as_str()), (1, NOTHING_CHANGED), "{outcome:?}");
        now.assert_same(&Fingerprint::of(&site), "after a refused undo");
        assert!(outcome.hints.iter().all(|hint| !hint.contains("--on-conflict overwrite")), "{outcome:?}");
    }
    site.undo_on(None, OnConflict::Keep).expect(Status::Partly);
}

/// What has a table's name now and is none takes no rows.
#[test]
fn rows_do_not_go_back_into_a_view() {
    let site = shop();
    site.deploy(&Pkg::new("one").step(sql("UPDATE product SET stock = 0 WHERE id = 1"))).expect(Status::Done);
    site.execute("ALTER TABLE product RENAME TO goods; CREATE VIEW product AS SELECT * FROM goods;");
    let outcome = site.undo_on(None, OnConflict::Stop).expect(Status::Refused);
    assert_eq!(outcome.conflicts.len(), 1, "{outcome:?}");
    assert_eq!(outcome.conflicts[0].now, "it is a view now");
}
