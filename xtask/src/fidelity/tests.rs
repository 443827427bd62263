//! The judge judged: stand-ins for the tool, each right or wrong in one way, must get the verdict they deserve.

use std::fs;
use std::process::Command;

use super::*;

/// A stand-in that copies the whole database before and after; `$1` is the command, `$deploy`, `$undo` may be bent.
const STAND_IN: &str = r#"#!/bin/sh
command=$1; package=$2
while [ "$1" != --site ]; do shift; done
cd "$(dirname "$2")" || exit 255
n=$(cat .count 2>/dev/null || echo 0)
case $command in
deploy)
  n=$((n + 1)); cp main.sqlite ".before$n"; DEPLOY
  for script in "$package"/*.sql; do
    sqlite3 -bail main.sqlite < "$script" >/dev/null 2>.error || {
      FAILED; echo "error: $(cat .error)" >&2; exit 1; }
  done
  cp main.sqlite ".after$n"; echo "$n" > .count ;;
undo) cp ".before$n" main.sqlite; echo $((n - 1)) > .count; UNDO ;;
redo) n=$((n + 1)); cp ".after$n" main.sqlite; echo "$n" > .count ;;
esac
"#;

const RESTORE: &str = r#"cp ".before$n" main.sqlite"#;

/// Runs the judge over three steps, the second of which fails, with a stand-in bent as said.
fn judged(deploy: &str, failed: &str, undo: &str) -> Result<(Tally, bool)> {
    let dir = tempfile::tempdir()?;
    let program = dir.path().join("stand-in");
    let text = STAND_IN.replace("DEPLOY", deploy).replace("FAILED", failed).replace("UNDO", undo);
    // Another process makes the executable: had this one had it open for writing, a test beside it could have forked
    // at that moment and kept it busy.
    let source = dir.path().join("source");
    fs::write(&source, text)?;
    assert!(Command::new("install").args(["-m", "755"]).args([&source, &program]).status()?.success());
    for (folder, name, sql) in [
        ("base", "1.sql", "CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT NOT NULL);"),
        ("steps", "1.sql", "CREATE TABLE b (x); UPDATE a SET x = x || '!';"),
        ("steps", "2.sql", "INSERT INTO b VALUES (1); INSERT INTO nowhere VALUES (1);"),
        ("steps", "3.sql", "DELETE FROM a; PRAGMA user_version = 7;"),
    ] {
        fs::create_dir_all(dir.path().join(folder))?;
        fs::write(dir.path().join(folder).join(name), sql)?;
    }
    let options = Options {
        engine: EngineName::Sqlite,
        base: Some(dir.path().join("base")),
        steps: dir.path().join("steps"),
        rows: 3,
        only: None,
        keep: false,
        backout: Some(program),
    };
    let tally = judge_all(&options)?;
    let right = tally.wrong == 0;
    Ok((tally, right))
}

#[test]
fn a_tool_that_is_right_gets_nothing_wrong() -> Result<()> {
    let (tally, right) = judged(":", RESTORE, ":")?;
    assert_eq!((tally, right), (Tally { identical: 2, refused: 0, failed: 1, wrong: 0 }, true));
    Ok(())
}

#[test]
fn a_refusal_with_nothing_changed_is_no_fault() -> Result<()> {
    let (tally, right) = judged("echo 'error: not this' >&2; exit 4", RESTORE, ":")?;
    assert_eq!((tally, right), (Tally { identical: 0, refused: 2, failed: 1, wrong: 0 }, true));
    Ok(())
}

#[test]
fn every_way_to_be_wrong_is_found() -> Result<()> {
    for (what, deploy, failed, undo) in [
        ("a refusal that changes something", "sqlite3 main.sqlite 'CREATE TABLE oops (x)'; exit 4", RESTORE, ":"),
        ("something more than the plain client does", "sqlite3 main.sqlite 'UPDATE a SET x = 1'", RESTORE, ":"),
        ("an undo that leaves a row", ":", RESTORE, "sqlite3 main.sqlite 'INSERT INTO a (x) VALUES (1)'"),
        ("an undo that moves a rowid", ":", RESTORE, "sqlite3 main.sqlite 'UPDATE a SET id = id + 100'"),
        ("an undo that says it failed", ":", RESTORE, "exit 3"),
        ("a deployment that needs a hand", "exit 3", RESTORE, ":"),
        ("a failure that leaves half of it", ":", ":", ":"),
    ] {
        let (tally, right) = judged(deploy, failed, undo)?;
        assert!(!right && tally.wrong > 0, "{what}: {tally:?}");
    }
    Ok(())
}

#[test]
fn a_pattern_matches_whole_names() {
    assert!(matches("*wagtail*", "0012-wagtailcore.sql") && matches("00?2*.sql", "0012-x.sql") && matches("a", "a"));
    assert!(!matches("wagtail*", "0012-wagtail") && !matches("?", "") && !matches("a", "ab"));
}

#[test]
fn verdicts_are_counted() {
    let mut tally = Tally::default();
    let why = String::new;
    for verdict in [Verdict::Identical, Verdict::Refused(why()), Verdict::Failed(why()), Verdict::Wrong(why())] {
        tally.add(&verdict);
    }
    assert_eq!(tally, Tally { identical: 1, refused: 1, failed: 1, wrong: 1 });
}
