//! `run` steps and `finally`: environment, placeholders, timeout, output, undo.

use backout_engine::outcome::Status;
use backout_engine::report::{self, Shown};
use backout_testkit::fingerprint::Fingerprint;
use backout_testkit::package::{Pkg, child, files, run, shell, sql};
use backout_testkit::site::TestSite;
use backout_testkit::tree::Tree;
use serde_json::json;

use crate::deploy::undone;
use crate::scene::{late_failure, shop, told, winter};

/// A command that writes a word into the log beside the site's databases.
fn says(word: &str) -> String {
    format!("echo {word} >> \"$BACKOUT_ROOT_WEB/../log\"")
}

fn log(site: &TestSite) -> Vec<String> {
    site.text("log").unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn a_command_knows_its_site() {
    let site = shop();
    let script = "echo \"$BACKOUT_SITE $BACKOUT_DEPLOYMENT $BACKOUT_ROOT_WEB $BACKOUT_DATABASE_MAIN $1 $2 $(pwd)\" \
                  >> \"$BACKOUT_ROOT_WEB/../log\"";
    let mut step = run(script, Some("true"));
    if let backout_testkit::package::Kind::Run(argv) = &mut step.kind {
        argv.extend(["x", "{root.web}", "{database.main}"].map(str::to_owned));
    }
    let inner = Pkg::new("inner").step(step);
    let id = site.deploy(&Pkg::new("outer").step(child(inner))).id();
    let base = site.dir().canonicalize().unwrap();
    let base = base.display();
    assert_eq!(
        log(&site),
        [format!("shop {id} {base}/web {base}/main.sqlite {base}/web {base}/main.sqlite {base}/packages/outer/inner")]
    );
}

#[test]
fn what_a_command_printed_is_kept() {
    let site = shop();
    let id = site.deploy(&winter().step(run("echo to stdout; echo to stderr >&2", Some("true")))).id();
    let config = site.config();
    let mut outputs = Vec::new();
    report::show(&mut site.targets(&config).unwrap(), &site.journal(), Some(&id), &mut |shown| {
        if let Shown::Step { output: Some(output), .. } = shown {
            outputs.push(output);
        }
    })
    .unwrap();
    assert_eq!(outputs, ["to stdout\nto stderr\n"]);
}

#[test]
fn a_command_that_takes_too_long_is_ended_and_undone() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let slow = run("sleep 600", Some(&says("undone"))).with("timeout", "200ms");
    let done = site.deploy(&winter().step(slow));
    assert!(done.result.as_ref().unwrap().causes.join(" ").contains("timeout"), "{done:?}");
    undone(&site, &before, done);
    assert_eq!(log(&site), ["undone"], "it may have done half of its work");
}

#[test]
fn the_undo_of_a_command_that_failed_is_run_too() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let step = |name: &str, end: &str| run(&format!("{}; {end}", says(name)), Some(&says(&format!("un{name}"))));
    let done = site.deploy(&winter().step(step("one", "true")).step(step("two", "false")).step(step("three", "true")));
    undone(&site, &before, done);
    assert_eq!(log(&site), ["one", "two", "untwo", "unone"]);
}

#[test]
fn commands_are_undone_in_reverse_and_run_again_by_redo() {
    let site = shop();
    let step = |name: &str| run(&says(name), Some(&says(&format!("un{name}"))));
    let package = Pkg::new("p").step(step("one")).step(sql("UPDATE product SET stock = 0")).step(step("two"));
    site.deploy(&package).expect(Status::Done);
    site.undo(None).expect(Status::Done);
    site.redo().expect(Status::Done);
    assert_eq!(log(&site), ["one", "two", "untwo", "unone", "one", "two"]);
}

#[test]
fn an_undo_command_that_fails_for_good_needs_a_hand_and_says_what_is_left() {
    let site = shop();
    let stuck = run("true", Some("test -e \"$BACKOUT_ROOT_WEB/../mended\""));
    let package = Pkg::new("p").step(sql("UPDATE product SET stock = 0")).step(stuck).step(late_failure());
    let before = Fingerprint::of(&site);
    let done = site.deploy(&package);
    let id = done.id();
    let outcome = done.expect(Status::NeedsHand);
    assert!(outcome.closing.contains(&format!("backout undo {id}")), "{}", outcome.closing);
    assert_eq!(told(&outcome), 2, "both steps are left: {:?}", outcome.notes);
    assert_eq!(site.deploy(&winter()).status(), Status::Refused, "nothing is deployed on top");
    std::fs::write(site.dir().join("mended"), "").unwrap();
    site.undo(Some(&id)).expect(Status::Done);
    before.assert_same(&Fingerprint::of(&site), "the command that was named goes on");
    site.deploy(&winter()).expect(Status::Done);
}

#[test]
fn finally_runs_last_after_deploy_undo_and_redo_and_children_come_first() {
    let site = shop();
    let inner = Pkg::new("inner").step(run(&says("inner"), Some(&says("uninner")))).finally(&says("finally-inner"));
    let package = Pkg::new("outer")
        .step(child(inner))
        .step(run(&says("outer"), Some(&says("unouter"))))
        .finally(&says("finally-outer"));
    site.deploy(&package).expect(Status::Done);
    assert_eq!(log(&site), ["inner", "outer", "finally-inner", "finally-outer"]);
    std::fs::remove_file(site.dir().join("log")).unwrap();
    site.undo(None).expect(Status::Done);
    assert_eq!(log(&site), ["unouter", "uninner", "finally-inner", "finally-outer"]);
    std::fs::remove_file(site.dir().join("log")).unwrap();
    site.redo().expect(Status::Done);
    assert_eq!(log(&site), ["inner", "outer", "finally-inner", "finally-outer"]);
    std::fs::remove_file(site.dir().join("log")).unwrap();
    let failing = Pkg { steps: vec![late_failure()], ..package };
    site.undo(None).expect(Status::Done);
    std::fs::remove_file(site.dir().join("log")).unwrap();
    site.deploy(&failing).expect(Status::Failed);
    assert_eq!(log(&site), ["finally-outer"], "the inner package never ran");
}

#[test]
fn a_finally_that_fails_is_told_and_is_no_failure() {
    let site = shop();
    let outcome = site.deploy(&winter().finally("echo no cache; exit 7")).expect(Status::Done);
    assert!(
        outcome.notes.iter().any(|note| note.contains("exit status 7") && note.contains("no cache")),
        "{outcome:?}"
    );
}

#[test]
fn a_command_that_is_not_there_fails_the_package() {
    let site = shop();
    let before = Fingerprint::of(&site);
    let mut step = run("", Some("true"));
    step.kind = backout_testkit::package::Kind::Run(vec!["no-such-program-anywhere".to_owned()]);
    let package = winter().step(step.with("undo", json!(["true"])));
    undone(&site, &before, site.deploy(&package));
}

/// A step that says where each of its commands runs, and needs a tree of a `files` step to run at all.
fn somewhere() -> Pkg {
    let needs = |name: &str| format!("test -e 0.files/x && echo \"{name} $PWD\" >> \"$BACKOUT_ROOT_WEB/../log\"");
    let undo = "test -e package.yaml && echo \"undo $PWD\" >> \"$BACKOUT_ROOT_WEB/../log\"";
    Pkg::new("p")
        .step(files(Tree::new().file("x", "x")))
        .step(run(&needs("step"), Some(undo)))
        .before(json!({ "run": shell(&needs("before")) }))
        .after(json!({ "run": shell(&needs("after")) }))
        .finally(&needs("finally"))
}

#[test]
fn commands_run_in_their_package_and_their_undo_in_the_copy() {
    let site = shop();
    let base = site.dir().canonicalize().unwrap();
    let package = base.join("packages/p").display().to_string();
    let said = |words: &[&str], at: &str| words.iter().map(|word| format!("{word} {at}")).collect::<Vec<_>>();
    let id = site.deploy(&somewhere()).id();
    let copy = base.join("state/packages").join(id).join("package").display().to_string();
    assert_eq!(log(&site), said(&["before", "step", "after", "finally"], &package));
    std::fs::remove_file(site.dir().join("log")).unwrap();
    site.undo(None).expect(Status::Done);
    assert_eq!(log(&site), said(&["undo"], &copy), "and `finally` lacks the files");
    std::fs::remove_file(site.dir().join("log")).unwrap();
    site.redo().expect(Status::Done);
    assert_eq!(log(&site), said(&["before", "step", "after", "finally"], &package));
    site.undo(None).expect(Status::Done);
    std::fs::write(site.dir().join("packages/p/more"), "no longer what was deployed").unwrap();
    assert_eq!(site.redo().status(), Status::Refused, "the copy lacks the files");
}

#[test]
fn a_child_that_is_tried_again_runs_in_its_package() {
    let site = shop();
    let script = "test -e 0.files/x && test -e \"$BACKOUT_ROOT_WEB/../mended\"";
    let inner = Pkg::new("inner").step(files(Tree::new().file("x", "x"))).step(run(script, Some("true")));
    let id = site.deploy(&Pkg::new("outer").step(child(inner).with("on-failure", "continue"))).id();
    std::fs::write(site.dir().join("mended"), "").unwrap();
    site.retry(&format!("{id}/inner")).expect(Status::Done);
}
