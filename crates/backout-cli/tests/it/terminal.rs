//! On a terminal there are bars and questions; a pseudoterminal plays it.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;

use rusqlite::types::Value;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::scene::Scene;

/// Runs the binary with stdin and stderr on a terminal, types `keys`, and returns exit status, stdout and the screen.
fn typed(scene: &Scene, words: &[&str], keys: &str) -> (Option<i32>, String, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = scene.command(words);
    command.env("TERM", "xterm").stdin(slave.try_clone().unwrap()).stderr(slave).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The terminal ends when its last slave is closed: that of the command must not be it.
    drop(command);
    let mut master = File::from(master);
    master.write_all(keys.as_bytes()).unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut screen = Vec::new();
        let mut bytes = [0; 4096];
        // Linux gives EIO once the other side is closed.
        while let Ok(length @ 1..) = master.read(&mut bytes) {
            screen.extend_from_slice(&bytes[..length]);
        }
        String::from_utf8_lossy(&screen).into_owned()
    });
    let mut answer = String::new();
    stdout.read_to_string(&mut answer).unwrap();
    let code = child.wait().unwrap().code();
    (code, answer, reader.join().unwrap())
}

#[test]
fn overwriting_shows_what_and_asks() {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    scene.sql("UPDATE product SET price = 7 WHERE id = 1");
    let before = scene.fingerprint();
    let words = ["undo", "--on-conflict", "overwrite"];
    for no in ["n\n", "\n", "whatever\n"] {
        let (code, _, screen) = typed(&scene, &words, no);
        assert_eq!(code, Some(4), "{screen}");
        assert!(screen.contains("column price") && screen.contains("[y/N]"), "{screen}");
        assert!(screen.contains("Nothing was changed."), "{screen}");
        assert_eq!(scene.fingerprint(), before);
    }
    let (code, answer, screen) = typed(&scene, &words, "y\n");
    assert_eq!(code, Some(0), "{screen}");
    assert!(answer.contains("undid winter"), "{answer}");
    assert_eq!(scene.value("SELECT price FROM product WHERE id = 1"), Value::Integer(2500));
}

#[test]
fn overwriting_nothing_asks_nothing() {
    let scene = Scene::with_good_package();
    scene.run(&["deploy", "winter"]).exits(0);
    let (code, _, screen) = typed(&scene, &["undo", "--on-conflict", "overwrite"], "");
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains("[y/N]"), "{screen}");
}

#[test]
fn deploy_and_undo_never_ask_and_colour_their_words() {
    let scene = Scene::with_good_package();
    let (code, answer, screen) = typed(&scene, &["deploy", "winter"], "");
    assert_eq!(code, Some(0), "{screen}");
    assert!(answer.starts_with("deployed winter 2026.11.1"), "{answer}");
    scene.run(&["undo"]).exits(0);
    let (code, _, screen) = typed(&scene, &["undo"], "");
    assert_eq!(code, Some(4), "{screen}");
    assert!(screen.contains("\u{1b}[1;31merror:\u{1b}[0m"), "{screen:?}");
    let (_, _, screen) = typed(&scene, &["undo", "--color", "never"], "");
    assert!(!screen.contains("\u{1b}[1;31m"), "{screen:?}");
}

#[test]
fn init_asks() {
    let scene = Scene::new();
    std::fs::remove_file(scene.path("site.yaml")).unwrap();
    let (code, answer, screen) = typed(&scene, &["init"], "shop\nshop.sqlite\nweb\n\n");
    assert_eq!(code, Some(0), "{screen}");
    assert!(answer.contains("site.yaml"), "{answer}");
    assert!(screen.contains("Name of the site"), "{screen}");
    scene.run(&["doctor"]).exits(0).answers("shop is fit");
}
