//! Opening: modes, locks, formats, what is not a journal.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use backout_journal::{Journal, JournalError};

use crate::support::{assert_sound, begun, calm, copy_of, open, options};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn nobody_else_may_look_into_the_state_directory() {
    calm();
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("deep/er/state");
    let mut journal = open(&state);
    journal.append(&begun("a")).unwrap();
    assert_eq!((mode(&state), mode(&state.join("images"))), (0o700, 0o700));
    for file in ["journal.db", "journal.db-wal", "journal.db-shm", "lock", "reserve"] {
        assert_eq!(mode(&state.join(file)), 0o600, "{file}");
    }
    assert!(journal.reserve_is_ready());
    assert!(std::fs::metadata(state.join("reserve")).unwrap().len() >= 8 * 1024 * 1024);
}

#[test]
fn a_directory_open_to_others_is_closed_where_it_is_ours_and_refused_where_it_holds_other_things() {
    calm();
    let home = tempfile::tempdir().unwrap();
    let (empty, used) = (home.path().join("empty"), home.path().join("used"));
    for directory in [&empty, &used] {
        std::fs::create_dir(directory).unwrap();
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    drop(open(&empty));
    assert_eq!(mode(&empty), 0o700);
    std::fs::set_permissions(&empty, std::fs::Permissions::from_mode(0o750)).unwrap();
    drop(open(&empty));
    assert_eq!(mode(&empty), 0o700);
    std::fs::write(used.join("index.php"), "").unwrap();
    assert!(matches!(Journal::open(&used, options()), Err(JournalError::Exposed { mode: 0o755, .. })));
    assert_eq!(std::fs::read_dir(&used).unwrap().count(), 1);
}

#[test]
fn a_second_opener_is_told_who_has_it_and_does_not_wait() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.set_holder_note("deploy winter-catalogue");
    let Err(JournalError::Held { holder: Some(holder), .. }) = Journal::open(state.path(), options()) else {
        panic!("a second opener got in")
    };
    assert_eq!((holder.pid, holder.purpose.as_str()), (std::process::id(), "deploy winter-catalogue"));
    assert_eq!(Journal::read(state.path()).unwrap().holder(), Some(*holder));
    drop(journal);
    assert_eq!(Journal::read(state.path()).unwrap().holder(), None);
    drop(open(state.path()));
}

/// Runs as another process, see the next test.
#[test]
#[ignore = "holds the lock for another test"]
fn child_holds_the_lock() {
    let Some(state) = std::env::var_os("BACKOUT_TEST_STATE") else { return };
    let journal = open(Path::new(&state));
    println!("\nheld");
    std::io::stdout().flush().unwrap();
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    drop(journal);
}

#[test]
fn the_lock_ends_with_the_process_that_had_it() {
    let state = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "opening::child_holds_the_lock", "--ignored", "--nocapture"])
        .env("BACKOUT_TEST_STATE", state.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));
    match Journal::open(state.path(), options()) {
        Err(JournalError::Held { holder: Some(holder), .. }) => assert_eq!(holder.pid, child.id()),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two processes hold the lock"),
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // The note is stale now, and known to be.
    assert_eq!(Journal::read(state.path()).unwrap().holder(), None);
    assert_sound(open(state.path()).reader());
}

#[test]
fn an_empty_history_where_there_is_no_state_or_nothing_in_it() {
    calm();
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("none");
    let empty = home.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    // As after a crash between making the file and its tables.
    std::fs::write(empty.join("journal.db"), "").unwrap();
    for state in [&missing, &empty] {
        let reader = Journal::read(state).unwrap();
        assert_eq!(reader.deployments().unwrap(), []);
        assert_eq!(reader.unfinished().unwrap(), None);
        assert_eq!((reader.last_seq().unwrap(), reader.last_epoch().unwrap()), (0, 0));
        assert_sound(&reader);
    }
    assert!(!missing.exists());
    open(&empty).append(&begun("a")).unwrap();
}

#[test]
fn a_newer_format_is_refused_and_left_as_it_is() {
    calm();
    let state = tempfile::tempdir().unwrap();
    drop(open(state.path()));
    let database = rusqlite::Connection::open(state.path().join("journal.db")).unwrap();
    database.execute("UPDATE meta SET value = '2' WHERE key = 'format'", []).unwrap();
    drop(database);
    let before = std::fs::read(state.path().join("journal.db")).unwrap();
    for error in [Journal::open(state.path(), options()).err(), Journal::read(state.path()).err()] {
        let error = error.unwrap();
        assert!(matches!(error, JournalError::NewerFormat { found: 2, known: 1, .. }), "{error}");
        assert!(error.to_string().contains("newer version"), "{error}");
    }
    assert_eq!(std::fs::read(state.path().join("journal.db")).unwrap(), before);
}

#[test]
fn what_is_not_a_journal_is_refused_and_left_as_it_is() {
    calm();
    let text = tempfile::tempdir().unwrap();
    std::fs::write(text.path().join("journal.db"), "not a database ".repeat(100)).unwrap();
    let other = tempfile::tempdir().unwrap();
    let database = rusqlite::Connection::open(other.path().join("journal.db")).unwrap();
    database.execute_batch("CREATE TABLE customers (name TEXT); PRAGMA application_id = 7;").unwrap();
    drop(database);
    for state in [text, other] {
        let before = std::fs::read(state.path().join("journal.db")).unwrap();
        for error in [Journal::open(state.path(), options()).err(), Journal::read(state.path()).err()] {
            assert!(matches!(error, Some(JournalError::NotAJournal { .. })), "{error:?}");
        }
        assert_eq!(std::fs::read(state.path().join("journal.db")).unwrap(), before);
    }
}

#[test]
fn a_link_in_place_of_the_lock_is_not_followed() {
    calm();
    let state = tempfile::tempdir().unwrap();
    drop(open(state.path()));
    std::fs::remove_file(state.path().join("lock")).unwrap();
    std::os::unix::fs::symlink("/dev/null", state.path().join("lock")).unwrap();
    let error = Journal::open(state.path(), options()).err();
    assert!(matches!(error, Some(JournalError::Io { .. })), "{error:?}");
}

#[test]
fn another_program_cannot_change_or_erase_an_entry_by_mistake() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    let other = rusqlite::Connection::open(state.path().join("journal.db")).unwrap();
    for sql in [
        "UPDATE entry SET body = '{}'",
        "DELETE FROM entry WHERE seq = 4",
        "REPLACE INTO entry SELECT seq, deployment, '{}', digest FROM entry WHERE seq = 2",
        "INSERT INTO entry SELECT 9, deployment, body, digest FROM entry WHERE seq = 4",
    ] {
        assert!(other.execute(sql, []).is_err(), "{sql}");
    }
    // One that writes without the lock makes the writer stop, and nothing is lost.
    other.execute("INSERT INTO entry SELECT 5, deployment, body, digest FROM entry WHERE seq = 4", []).unwrap();
    let error = journal.append(&[crate::support::step("a", "", 0, backout_model::state::Event::StepIntended)]);
    assert!(matches!(error, Err(JournalError::Diverged { .. })), "{error:?}");
}

#[test]
fn a_copy_of_the_directory_is_a_journal() {
    calm();
    let state = tempfile::tempdir().unwrap();
    let mut journal = open(state.path());
    journal.append(&begun("a")).unwrap();
    let copy = copy_of(state.path());
    assert_eq!(Journal::read(copy.path()).unwrap().last_seq().unwrap(), 4);
    assert_sound(open(copy.path()).reader());
}
