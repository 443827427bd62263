//! Settings that decide what a statement's text says: a redo runs it under those of the first run.

use crate::postgres::rows::there_and_back;

const SETUP: &str = "CREATE TABLE t (id int PRIMARY KEY, f float8, b bytea, n int, m money);
    INSERT INTO t VALUES (1, 0.1234567890123456, E'\\\\x4100ff', 5, 3), (2, 1e15 / 7, 'b', NULL, 4);";

#[test]
fn a_redo_reads_a_statement_as_the_first_run_did() {
    for change in [
        "SET timezone = 'Asia/Tokyo'; ALTER TABLE t ADD c timestamptz DEFAULT '2020-02-03'",
        "SET TIME ZONE -5; ALTER TABLE t ADD c timestamptz DEFAULT '2020-02-03'",
        "SET timezone_abbreviations = 'Australia'; ALTER TABLE t ADD c timestamptz DEFAULT '2020-02-03 00:00 EST'",
        "SET DateStyle = 'SQL, DMY'; ALTER TABLE t ADD c date DEFAULT '03/02/2020'",
        "SET DateStyle = 'SQL, DMY'; ALTER TABLE t ADD c text DEFAULT date '2020-02-03'::text",
        "SET IntervalStyle = 'sql_standard'; ALTER TABLE t ADD c interval DEFAULT '-1 2:03:04'",
        "SET extra_float_digits = -10; ALTER TABLE t ALTER f TYPE text USING f::text",
        "SET bytea_output = 'escape'; ALTER TABLE t ALTER b TYPE text USING b::text",
        "SET xmlbinary = 'hex'; ALTER TABLE t ALTER b TYPE text USING xmlelement(name x, b)::text",
        "SET transform_null_equals = on; ALTER TABLE t ALTER n TYPE bool USING n = NULL",
        "SET array_nulls = off; ALTER TABLE t ADD c text[] DEFAULT '{NULL, a}'",
        "SET default_text_search_config = 'simple'; ALTER TABLE t ADD c tsvector DEFAULT to_tsvector('the cats')",
        "SET backslash_quote = on; SET timezone = 'Asia/Tokyo'; ALTER TABLE t ADD c text DEFAULT E'it\\'s', ADD d timestamptz DEFAULT '2020-02-03'",
    ] {
        there_and_back(SETUP, change);
    }
}

#[test]
fn so_it_does_under_what_is_set_for_the_role_in_the_database() {
    for setting in ["DATABASE %I SET timezone", "ROLE CURRENT_USER IN DATABASE %I SET timezone"] {
        let set = format!(
            "DO $$ BEGIN EXECUTE format('ALTER {setting} = ''Asia/Tokyo''', current_database()); END $$; {SETUP}"
        );
        there_and_back(&set, "ALTER TABLE t ADD c timestamptz DEFAULT '2020-02-03'");
    }
}
