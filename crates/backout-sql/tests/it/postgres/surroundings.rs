//! What `doctor` tells of a database: what stands around it, and what the role lacks.

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use backout_model::target::Target as _;
use backout_sql::database::Database as _;
use backout_testkit::postgres::{SUPERUSER, Server};

use crate::postgres::stage::{Stage, one, open};
use crate::stage::{me, told};

#[test]
fn what_stands_around_and_what_the_role_lacks_is_named() {
    let stage = Stage::new(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION news FOR TABLE t; SELECT lo_from_bytea(0, 'x'); CREATE TABLE keyless (a int);
         CREATE FUNCTION nothing() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$; CREATE EVENT TRIGGER quiet ON sql_drop EXECUTE FUNCTION nothing();
         CREATE SCHEMA shut; GRANT INSERT ON t TO PUBLIC; CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;",
    );
    let columns: Vec<String> = (0..801).map(|number| format!("c{number} int")).collect();
    stage.others(&format!("CREATE TABLE wide ({}, PRIMARY KEY (c0))", columns.join(", ")));
    let role = format!("plain_{}", stage.live.name);
    stage
        .others(&format!("CREATE ROLE {role} LOGIN NOINHERIT; CREATE ROLE group_{role}; GRANT group_{role} TO {role}"));
    let found = open(&stage.live.url_as(&role)).examine().unwrap();
    let by_set_role = format!("has the rights of group_{role} by SET ROLE alone");
    let told: Vec<&str> = found.iter().map(|finding| finding.what.as_str()).collect();
    for expected in [
        "publications (news)",
        "event triggers (quiet)",
        "does not own: public.t",
        "may not create anything in: public, shut",
        "1 large objects",
        "no member of pg_read_all_stats",
        "may not set session_replication_role",
        "may not create a schema",
        "public.keyless has no key",
        "hides rows from the role in: public.hidden.",
        "more than 800 columns: public.wide.",
        &by_set_role,
        "cannot be captured: the database: ",
    ] {
        // Before 15 anybody may create in `public`.
        let expected = if told.iter().any(|what| what.contains("anything in: shut")) {
            expected.replace("public, shut", "shut")
        } else {
            expected.to_owned()
        };
        let here = told.iter().any(|what| what.contains(&expected));
        assert!(here || expected.contains("may not create a schema"), "{expected}: {told:#?}");
    }
    assert!(found.iter().all(|finding| !finding.grave), "{told:#?}");
}

#[test]
fn what_nothing_can_be_written_to_or_read_from_is_named() {
    let live = Server::shared().database_in("SQL_ASCII");
    live.connect()
        .batch_execute(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", live.name))
        .unwrap();
    let found = open(&live.url()).examine().unwrap();
    for (expected, grave) in [("any bytes for text (SQL_ASCII)", false), ("set to read only for this account", true)] {
        let named = found.iter().find(|finding| finding.what.contains(expected));
        assert!(named.is_some_and(|finding| finding.grave == grave), "{expected}: {found:#?}");
    }
}

#[test]
fn what_of_others_is_told_apart_is_said() {
    let live = Server::shared().database();
    let said = |url: &str| {
        let found = open(url).examine().unwrap();
        found.into_iter().map(|finding| finding.what).collect::<Vec<_>>().join("\n")
    };
    assert!(said(&live.url()).contains("is told apart, if its client takes its application name from PGAPPNAME"));
    let role = format!("member_{}", live.name);
    live.connect().batch_execute(&format!("CREATE TABLE t (id int); CREATE ROLE {role} LOGIN")).unwrap();
    let database =
        format!("GRANT CREATE ON DATABASE {0} TO {role}; GRANT CREATE ON SCHEMA public TO {role}", live.name);
    live.connect().batch_execute(&database).unwrap();
    let lacks = said(&live.url_as(&role));
    assert!(lacks.contains("cannot be captured: table public.t: ") && lacks.contains("GRANT postgres TO"), "{lacks}");
    assert!(!lacks.contains("PGAPPNAME"), "{lacks}");
}

/// A real standby: it is named on the server that is deployed to, and is none to deploy to.
#[test]
fn a_standby_is_named_on_both_sides() {
    let (primary, standby) = (Server::fresh(), Server::fresh());
    primary.stop();
    standby.stop();
    std::fs::remove_dir_all(standby.data()).unwrap();
    let copied = Command::new("cp").arg("-a").args([primary.data(), standby.data()]).status().unwrap();
    assert!(copied.success());
    let source =
        format!("primary_conninfo = 'host={} user={SUPERUSER} application_name=east'\n", primary.socket().display());
    std::fs::OpenOptions::new()
        .append(true)
        .open(standby.data().join("postgresql.auto.conf"))
        .and_then(|mut file| file.write_all(source.as_bytes()))
        .unwrap();
    std::fs::write(standby.data().join("standby.signal"), "").unwrap();
    primary.start();
    standby.start();
    let live = primary.database();
    let (mut asked, deadline) = (live.connect(), Instant::now() + Duration::from_secs(60));
    let mut streams = || one(&mut asked, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1";
    while !streams() {
        assert!(Instant::now() < deadline, "the standby does not follow:\n{}", standby.log());
        std::thread::yield_now();
    }
    let found = open(&live.url()).examine().unwrap();
    let named = found.iter().find(|finding| finding.what.contains("replicas (east streaming)"));
    assert!(named.is_some_and(|finding| !finding.grave), "{found:?}");
    let there = format!("postgresql:///postgres?host={}&user={SUPERUSER}", standby.socket().display());
    let found = open(&there).examine().unwrap();
    assert!(found.iter().any(|finding| finding.grave && finding.what.contains("is a replica")), "{found:?}");
}

#[test]
fn a_server_that_took_away_what_changes_are_told_by_is_named() {
    let live = Server::shared().database();
    let role = format!("mute_{}", live.name);
    let mut admin = live.connect();
    let more = if live.server().version() < 17 { "" } else { ", boolean" };
    let function = format!("pg_logical_emit_message(boolean, text, text{more})");
    let taken = format!("REVOKE EXECUTE ON FUNCTION pg_catalog.{function} FROM PUBLIC");
    admin
        .batch_execute(&format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}; {taken}"))
        .unwrap();
    let found = open(&live.url_as(&role)).examine().unwrap();
    let told =
        found.iter().find(|finding| finding.what.contains(&format!("pg_catalog.{}", function.replace(", ", ","))));
    assert!(told.is_some_and(|finding| finding.grave), "{found:?}");
}

/// Where nothing was deployed yet, the tool's own tables have to be made first.
#[test]
fn a_role_that_may_create_nothing_is_refused_before_anything_is_made() {
    let live = Server::shared().database();
    let role = format!("poor_{}", live.name);
    let mut admin = live.connect();
    admin.batch_execute(&format!("CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")).unwrap();
    let mut poor = open(&live.url_as(&role));
    let grave = poor.examine().unwrap().into_iter().find(|finding| finding.grave).expect("doctor finds nothing");
    assert!(grave.what.contains("may create nothing") && grave.what.contains("GRANT CREATE"), "{}", grave.what);
    // What `deploy` asks before it makes anything.
    let refused = poor.planner().map(drop).unwrap_err();
    assert!(told(&refused).contains("may create nothing"), "{}", told(&refused));
    admin.batch_execute(&format!("CREATE SCHEMA room; GRANT CREATE, USAGE ON SCHEMA room TO {role}")).unwrap();
    assert!(poor.planner().is_ok() && !poor.examine().unwrap().iter().any(|finding| finding.grave));
    poor.lock(&me(), 1).unwrap();
    assert_eq!(poor.own_objects().unwrap(), ["room.backout_shop_marker"]);
}
