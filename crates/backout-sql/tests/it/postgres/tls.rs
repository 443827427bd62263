//! Connections by TLS: as much is verified as was asked for, and no more is taken for good than libpq takes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backout_testkit::postgres::{Server, Setup};
use backout_testkit::site::{postgres_options, postgres_url};

use crate::stage::told;

fn openssl(folder: &Path, words: &str) {
    let mut command = Command::new("openssl");
    command.args(words.split(' ')).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success(), "openssl {words}");
}

/// An authority with a certificate for `localhost`, and its lists of what is revoked: before and after that was.
fn authority(folder: &Path) {
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    for name in ["ca", "other"] {
        openssl(folder, &format!("{new} -subj /CN={name} -keyout {name}.key -out {name}.pem"));
    }
    openssl(
        folder,
        &format!(
            "{new} -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
             -CA ca.pem -CAkey ca.key -keyout server.key -out server.pem"
        ),
    );
    std::fs::write(folder.join("index"), "").unwrap();
    std::fs::write(folder.join("number"), "01\n").unwrap();
    let config =
        "[ca]\ndefault_ca = a\n[a]\ndatabase = index\ncrlnumber = number\ndefault_md = sha256\ndefault_crl_days = 2\n";
    std::fs::write(folder.join("ca.conf"), config).unwrap();
    let ca = "ca -config ca.conf -cert ca.pem -keyfile ca.key";
    openssl(folder, &format!("{ca} -gencrl -out none.crl"));
    openssl(folder, &format!("{ca} -revoke server.pem"));
    openssl(folder, &format!("{ca} -gencrl -out revoked.crl"));
}

/// Writes a file of PEM by the server itself, whose own it must be.
fn by_server(server: &Server, from: PathBuf, to: &Path) {
    let lines = std::fs::read_to_string(from).unwrap();
    let lines: Vec<String> = lines.lines().map(|line| format!("('{line}')")).collect();
    let copy = format!("COPY (VALUES {}) TO '{}'", lines.join(", "), to.display());
    server.connect("postgres").batch_execute(&copy).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_server_is_verified_as_far_as_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path());
    let server = Server::with(&Setup { tcp: true, ..Setup::default() });
    for name in ["server.key", "server.pem"] {
        by_server(&server, folder.path().join(name), &server.data().join(name));
    }
    let mut admin = server.connect("postgres");
    for sql in [
        "ALTER SYSTEM SET ssl_cert_file = 'server.pem'",
        "ALTER SYSTEM SET ssl_key_file = 'server.key'",
        "ALTER SYSTEM SET ssl = on",
    ] {
        admin.batch_execute(sql).unwrap();
    }
    drop(admin);
    server.stop();
    server.start();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let full = format!("sslmode=verify-full&sslrootcert={}", at("ca.pem"));
    for (host, parameters, error) in [
        ("localhost", "sslmode=require".to_owned(), None),
        ("localhost", full.clone(), None),
        ("localhost", format!("sslmode=verify-full&sslrootcert={}", at("other.pem")), Some("UnknownIssuer")),
        ("127.0.0.1", full.clone(), Some("not valid for name")),
        ("127.0.0.1", full.replace("full", "ca"), None),
        ("localhost", format!("{full}&sslcrl={}", at("none.crl")), None),
        ("localhost", format!("{full}&sslcrl={}", at("revoked.crl")), Some("Revoked")),
        ("localhost", format!("{full}&sslcrl={}", at("nothing.crl")), Some("nothing.crl")),
        ("localhost", format!("{full}&ssl_min_protocol_version=TLSv1.3"), None),
        ("localhost", format!("{full}&ssl_max_protocol_version=TLSv1.2"), None),
        (
            "localhost",
            format!("{full}&ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2"),
            Some("is above"),
        ),
        ("localhost", "gssencmode=require".to_owned(), Some("gssencmode")),
    ] {
        let url = format!("postgresql://postgres@{host}:{}/postgres?{parameters}", server.port());
        let opened =
            backout_sql::postgres::Postgres::open(&postgres_options("shop".into(), "main".into(), &postgres_url(&url)));
        match (opened.map(drop), error) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => {
                assert!(told(&error).contains(expected), "{host} {parameters}: {}", told(&error))
            }
            (Ok(()), Some(expected)) => panic!("{host} {parameters}: connected, not {expected}"),
            (Err(error), None) => panic!("{host} {parameters}: {}", told(&error)),
        }
    }
}
