//! What `doctor` tells of a database: what stands around it, and what the role lacks.

use backout_model::target::Target as _;

use crate::postgres::stage::{Stage, open};

#[test]
fn what_stands_around_and_what_the_role_lacks_is_named() {
    let stage = Stage::new(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION news FOR TABLE t; SELECT lo_from_bytea(0, 'x'); CREATE TABLE keyless (a int);
         CREATE FUNCTION nothing() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$; CREATE EVENT TRIGGER quiet ON sql_drop EXECUTE FUNCTION nothing();
         CREATE SCHEMA shut; GRANT INSERT ON t TO PUBLIC;",
    );
    let role = format!("plain_{}", stage.live.name);
    stage.others(&format!("CREATE ROLE {role} LOGIN"));
    let found = open(&stage.live.url_as(&role)).examine().unwrap();
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
