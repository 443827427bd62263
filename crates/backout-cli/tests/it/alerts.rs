//! Alerts, against a real mail server and an HTTP receiver on loopback: what is told, when, and that a server that is
//! down hides nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use backout_testkit::http::{Answer, HttpServer};
use serde_json::Value;

use crate::scene::{Ran, SITE, Scene};

/// A check that fails after everything is done.
const BROKEN: &str = "steps:\n  - sql: x.sql\nafter:\n  - name: nothing is free\n    sql: SELECT count(*) FROM product WHERE price = 0\n    equals: \"0\"\n";

fn alerting(alerts: &str) -> Scene {
    let scene = Scene::new();
    scene.write("site.yaml", format!("{SITE}alerts:\n{alerts}"));
    scene.package("broken", BROKEN);
    scene.write("broken/x.sql", "UPDATE product SET price = 0;");
    scene
}

struct MailServer {
    child: Child,
    port: u16,
    mails: PathBuf,
}

impl MailServer {
    fn start(dir: &Path, more: &[&str]) -> Self {
        let mails = dir.join("mails");
        fs::create_dir_all(&mails).unwrap();
        let mut child = Command::new("/usr/bin/python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/smtp.py"))
            .arg(&mails)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the mail server's port (script/setup installs python3-aiosmtpd)");
        Self { child, port, mails }
    }

    /// The mail that it took, as text: no line of it is folded or encoded.
    fn mail(&self) -> String {
        assert_eq!(fs::read_dir(&self.mails).unwrap().count(), 1, "mails");
        fs::read_to_string(self.mails.join("1.eml")).unwrap().replace("=\r\n", "").replace("\r\n", "\n")
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.mails).unwrap().count() == 0
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

/// An authority, and a certificate of it for `localhost`: their files.
fn certificate(dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let [authority, authority_key, certificate, key] =
        ["ca.pem", "ca.key", "mail.pem", "mail.key"].map(|name| dir.join(name));
    let openssl = |words: &[&str], files: &[(&str, &Path)]| {
        let mut command = Command::new("openssl");
        command.args(words).stderr(Stdio::null());
        for (name, file) in files {
            command.arg(name).arg(file);
        }
        assert!(command.status().unwrap().success());
    };
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    openssl(&[&new[..], &["-subj", "/CN=test"]].concat(), &[("-keyout", &authority_key), ("-out", &authority)]);
    openssl(
        &[
            &new[..],
            &[
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ],
        ]
        .concat(),
        &[("-CA", &authority), ("-CAkey", &authority_key), ("-keyout", &key), ("-out", &certificate)],
    );
    (authority, certificate, key)
}

#[test]
fn a_failed_deployment_is_told_by_mail() {
    let dir = tempfile::tempdir().unwrap();
    let server = MailServer::start(dir.path(), &["--busy", "1"]);
    let scene = alerting(&format!("  - email: ops@shop.example\n    smtp: smtp://localhost:{}\n", server.port));
    let ran = scene.run(&["deploy", "broken"]).exits(1).closes("Everything was undone and verified.");
    assert!(!ran.stderr.contains("warning"), "{ran}");
    let mail = server.mail();
    let id = scene.latest();
    for line in [
        "To: ops@shop.example",
        "Subject: [shop] deploy broken 1: failed, the site is as it was before",
        "On the site shop, deploy broken 1 ended at 20",
        "check \"nothing is free\": expected 0, got 2",
        "Everything was undone and verified.",
        "Nothing is urgent: the site works as it did before.",
        &format!("backout show {id}"),
    ] {
        assert!(mail.contains(line), "{line}\n{mail}");
    }
}

#[test]
fn mail_goes_over_tls_and_to_servers_that_want_a_login() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, certificate, key) = certificate(dir.path());
    let [certificate, key] = [&certificate, &key].map(|path| path.to_str().unwrap());
    for (number, wrapped) in [false, true].into_iter().enumerate() {
        let mut words = vec!["--tls", certificate, key, "--user", "joe", "p@ss w/o%rd"];
        words.extend(wrapped.then_some("--wrapped"));
        let mails = dir.path().join(number.to_string());
        let server = MailServer::start(&mails, &words);
        let scheme = if wrapped { "smtps" } else { "smtp" };
        let url = format!("{scheme}://joe:${{MAIL_PASSWORD}}@localhost:{}", server.port);
        let scene = alerting(&format!(
            "  - email: ops@shop.example\n    from: Shop <shop@shop.example>\n    smtp: \"{url}\"\n"
        ));
        let deploy = |password: &str, trusted: bool| {
            let mut command = scene.command(&["deploy", "broken"]);
            command.env("MAIL_PASSWORD", password);
            if trusted {
                command.env("SSL_CERT_FILE", &authority);
            }
            Ran::of(&["deploy", "broken"], command.output().unwrap()).exits(1)
        };
        let ran = deploy("hunter2hunter2", true).says("warning: nobody was told by mail to ops@shop.example");
        assert!(!ran.stderr.contains("hunter2hunter2"), "{ran}");
        deploy("p@ss w/o%rd", false).says("warning: nobody was told by mail to ops@shop.example by localhost");
        assert!(server.is_empty());
        let ran = deploy("p@ss w/o%rd", true);
        assert!(!ran.stderr.contains("warning"), "{ran}");
        let mail = server.mail();
        assert!(mail.contains("Tls: True") && mail.contains("From: Shop <shop@shop.example>"), "{mail}");
    }
}

/// As many make one for themselves: `openssl req -x509` says that it is an authority's.
#[test]
fn what_is_wrong_with_a_certificate_is_said_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, certificate, key) = certificate(dir.path());
    let own = (&authority, dir.path().join("ca.key"), "its certificate is one of an authority");
    let unknown = (&certificate, key, "signed by nobody whom this machine trusts");
    for (number, (certificate, key, said)) in [own, unknown].into_iter().enumerate() {
        let files = ["--wrapped", "--tls", certificate.to_str().unwrap(), key.to_str().unwrap()];
        let server = MailServer::start(&dir.path().join(number.to_string()), &files);
        let alerts = format!("  - email: ops@shop.example\n    smtp: smtps://localhost:{}\n", server.port);
        let scene = alerting(&alerts);
        let mut command = scene.command(&["deploy", "broken"]);
        if number == 0 {
            command.env("SSL_CERT_FILE", &authority);
        }
        Ran::of(&["deploy", "broken"], command.output().unwrap()).exits(1).says(said);
    }
}

#[test]
fn webhooks_get_every_field_or_a_text() {
    let server = HttpServer::start(|_| Answer::new(200, "ok"));
    let alerts = ["json", "slack", "mattermost"]
        .map(|format| format!("  - webhook: {}\n    format: {format}\n", server.url(&format!("/{format}"))));
    let scene = alerting(&alerts.concat());
    scene.run(&["deploy", "broken"]).exits(1);
    // They are told side by side.
    let mut asked = server.asked();
    asked.sort_by_key(|asked| asked.path.clone());
    let paths: Vec<&str> = asked.iter().map(|asked| asked.path.as_str()).collect();
    assert_eq!(paths, ["/json", "/mattermost", "/slack"]);
    let fields: Value = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(fields["site"], "shop");
    assert_eq!((&fields["status"], &fields["exit"]), (&Value::from("failed"), &Value::from(1)));
    assert_eq!(fields["deployment"], scene.latest());
    assert_eq!(fields["closing"], "Everything was undone and verified.");
    for text in &asked[1..] {
        let body: Value = serde_json::from_str(&text.body).unwrap();
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        assert!(body["text"].as_str().unwrap().starts_with("[shop] deploy broken 1: failed"), "{body}");
    }
}

#[test]
fn what_is_told_and_what_is_not() {
    let server = HttpServer::start(|_| Answer::new(204, ""));
    let scene = alerting(&format!("  - webhook: {}\n", server.url("/")));
    let told = || {
        server
            .asked()
            .iter()
            .map(|asked| {
                let body: Value = serde_json::from_str(&asked.body).unwrap();
                format!("{}: {}", body["command"].as_str().unwrap(), body["status"].as_str().unwrap())
            })
            .collect::<Vec<_>>()
    };
    scene.good_package("winter");
    scene.run(&["deploy", "winter"]).exits(0);
    scene.run(&["undo", "--plan"]).exits(0);
    scene.run(&["undo"]).exits(0);
    scene.run(&["undo"]).exits(4);
    assert_eq!(told(), [""; 0], "all was well, or nothing was changed");
    scene.package("parent", "steps:\n  - package: child\n    on-failure: continue\n");
    scene.write("parent/child/package.yaml", format!("package: child\nversion: 1\n{BROKEN}"));
    scene.write("parent/child/x.sql", "UPDATE product SET price = 0;");
    scene.run(&["deploy", "parent"]).exits(5);
    let id = scene.latest();
    scene.run(&["retry", &format!("{id}/child")]).exits(1);
    scene.package("stuck", "steps:\n  - run: [\"true\"]\n    undo: [\"false\"]\n");
    scene.run(&["deploy", "stuck"]).exits(0);
    scene.run(&["undo"]).exits(3);
    let expected =
        ["deploy parent 1: partly".to_owned(), format!("retry {id}/child: failed"), "undo: needs-hand".to_owned()];
    assert_eq!(told(), expected);
}

#[test]
fn an_alert_that_fails_hides_nothing() {
    let server = HttpServer::start(|_| Answer::new(404, "no such hook"));
    let secret = server.url("/T0/hunter2hunter2");
    let alerts = format!("  - webhook: {secret}\n  - email: ops@shop.example\n    smtp: smtp://localhost:1\n");
    let scene = alerting(&alerts);
    let ran = scene.run(&["deploy", "broken"]).exits(1).closes("Everything was undone and verified.");
    let ran = ran.says("warning: nobody was told by webhook at 127.0.0.1").says("it answered 404");
    let ran = ran.says("warning: nobody was told by mail to ops@shop.example by localhost:1");
    assert!(!ran.stderr.contains("hunter2hunter2"), "{ran}");
    assert_eq!(server.asked().len(), 1, "another try would not help");
}

/// Servers that take a connection and say nothing: who waits may stop, and what was to be told stands there all the same.
#[test]
fn whoever_does_not_want_to_wait_for_a_silent_server_need_not() {
    let silent: Vec<std::net::TcpListener> =
        (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let port = |at: usize| silent[at].local_addr().unwrap().port();
    let scene = alerting(&format!(
        "  - webhook: http://127.0.0.1:{}/\n  - email: ops@shop.example\n    smtp: smtp://127.0.0.1:{}\n",
        port(0),
        port(1)
    ));
    let mut tool = scene.spawn(&["deploy", "broken"]);
    let mut errors = BufReader::new(tool.stderr.take().unwrap());
    let mut said = String::new();
    while said.matches("telling by").count() < 2 {
        assert!(errors.read_line(&mut said).unwrap() > 0, "{said}");
    }
    let pid = rustix::process::Pid::from_child(&tool);
    // Heard once it listens; asked again until then.
    let began = std::time::Instant::now();
    let status = loop {
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        if let Some(status) = tool.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(began.elapsed().as_secs() < 8, "{:?}", began.elapsed());
    std::io::Read::read_to_string(&mut errors, &mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(said.matches("stopped by the operator").count(), 2, "{said}");
    assert_eq!(said.lines().last(), Some("Everything was undone and verified."), "{said}");
}

#[test]
fn doctor_says_who_would_be_told_and_who_cannot_be_reached() {
    let told = HttpServer::start(|_| Answer::new(200, ""));
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let scene = alerting(&format!(
        "  - webhook: {}\n  - email: ops@shop.example\n    smtp: smtp://127.0.0.1:{gone}\n",
        told.url("/secret")
    ));
    let ran =
        scene.run(&["doctor"]).exits(0).answers("can be reached").answers("cannot be reached, so nobody would be told");
    let unreached = |line: &&str| line.contains("cannot be reached");
    assert!(ran.stdout.lines().filter(unreached).all(|line| line.starts_with("note ")), "{ran}");
    assert!(!ran.stdout.contains("secret") && told.asked().iter().all(|asked| asked.method.is_empty()), "{ran}");
    Scene::new().run(&["doctor"]).exits(0).answers("site.yaml has no `alerts:`");
}

/// A mail goes through many hands: where a conflict is it may say, and no key or value of a row.
#[test]
fn no_row_goes_into_an_alert() {
    let server = HttpServer::start(|_| Answer::new(200, ""));
    let scene = alerting(&format!("  - webhook: {}\n", server.url("/")));
    let others = "run: [sqlite3, ../shop.sqlite, \"UPDATE product SET price = 987654, name = 'Ada'\"]";
    scene.package(
        "met",
        &format!("steps:\n  - sql: x.sql\n  - {others}\n    undo: [\"true\"]\nafter:\n  - run: [\"false\"]\n"),
    );
    scene.write("met/x.sql", "UPDATE product SET price = 123456, name = 'Grace';");
    let ran = scene.run(&["deploy", "met"]).exits(3).says("now 987654");
    let body = server.asked()[0].body.clone();
    for line in ["conflict: database main: product, column name (2 times)", "product, column price (2 times)"] {
        assert!(body.contains(line), "{line}\n{body}\n{ran}");
    }
    for value in ["987654", "123456", "2500", "Ada", "Grace", "gloves", "id=1"] {
        assert!(!body.contains(value), "{value}\n{body}");
    }
}

/// What alerts need and is missing is a matter for the commands that alert, and told before they begin.
#[test]
fn only_who_alerts_needs_what_alerts_need() {
    let scene = alerting("  - webhook: \"https://hooks.example/${HOOK_TOKEN}\"\n");
    scene.good_package("winter");
    for words in [&["status"][..], &["log"], &["plan", "winter"], &["verify"]] {
        scene.run(words).exits(0);
    }
    scene.refused(&["deploy", "winter"], 2).says("the environment has no `HOOK_TOKEN`").says("site.yaml:");
    scene.refused(&["undo"], 2).says("the environment has no `HOOK_TOKEN`");
    scene.run(&["doctor"]).exits(4).answers("GRAVE  alerts: nobody could be told");
    let words = ["deploy", "winter"];
    Ran::of(&words, scene.command(&words).env("HOOK_TOKEN", "x").output().unwrap()).exits(0);
    // What is wrong in the file is told in any case.
    scene.write("site.yaml", format!("{SITE}alerts:\n  - webhook: \"ftp://${{HOOK_TOKEN}}\"\n"));
    scene.run(&["status"]).exits(2).says("this is not the URL of a webhook");
}
