//! `SET STATEMENT … FOR`: settings for one statement alone. Where they decide nothing that has to be known of it, it is
//! looked at without them; the server always runs the whole.

use super::reader::{Reader, reader};
use super::setting;
use super::token::Kind;

/// How long a statement may take or wait, how much memory it takes, which way it goes, what is written down of it. Nothing
/// of that decides what an object is, or what a row holds that is not captured as it comes.
const OF_ANY: [&str; 18] = [
    "max_statement_time",
    "lock_wait_timeout",
    "innodb_lock_wait_timeout",
    "sort_buffer_size",
    "join_buffer_size",
    "join_cache_level",
    "read_buffer_size",
    "read_rnd_buffer_size",
    "mrr_buffer_size",
    "bulk_insert_buffer_size",
    "tmp_table_size",
    "tmp_memory_table_size",
    "use_stat_tables",
    "rowid_merge_buff_size",
    "long_query_time",
    "log_slow_query_time",
    "slow_query_log",
    "low_priority_updates",
];
const OF_ANY_BEGIN: [&str; 2] = ["optimizer_", "log_slow_"];
/// What values rows get. They are captured as they are, whatever made them so.
const OF_ROWS: [&str; 11] = [
    "sql_mode",
    "time_zone",
    "timestamp",
    "lc_time_names",
    "div_precision_increment",
    "default_week_format",
    "auto_increment_increment",
    "auto_increment_offset",
    "group_concat_max_len",
    "max_sort_length",
    "sql_select_limit",
];
const ROWS: [&str; 11] =
    ["SELECT", "WITH", "VALUES", "DO", "INSERT", "REPLACE", "UPDATE", "DELETE", "CALL", "LOAD", "ANALYZE"];
const CHANGES: [&str; 5] = ["CREATE", "ALTER", "DROP", "TRUNCATE", "RENAME"];

/// Where the statement begins that such settings are for; none where there are no settings, or some that must be known.
pub fn begin(sql: &str) -> Option<usize> {
    let mut rest = reader(sql);
    rest.takes("SET STATEMENT").then_some(())?;
    let first = rest.peek()?.start;
    let mut only_rows = false;
    loop {
        only_rows |= !is_of_any(&mut rest)?;
        if rest.takes_sign(b',') {
            continue;
        }
        let end = rest.peek()?.start;
        rest.takes("FOR").then_some(())?;
        setting::set(reader(&sql[first..end])).ok()?;
        let next = rest.next()?;
        let admitted = ROWS.iter().any(|word| next.is(word)) || !only_rows && CHANGES.iter().any(|word| next.is(word));
        return admitted.then_some(next.start);
    }
}

/// Past `name = value`: whether it is one of those that decide nothing. None where it may be something else.
fn is_of_any(rest: &mut Reader<'_>) -> Option<bool> {
    let name = rest.next()?.name()?.to_ascii_lowercase();
    rest.takes_sign(b'=').then_some(())?;
    rest.takes_sign(b'-');
    let value = rest.next()?;
    // A number would hide the modes that it stands for.
    let plain = match value.kind {
        Kind::Text => true,
        Kind::Word => !rest.peek().is_some_and(|next| next.is_sign(b'(')) && name != "sql_mode",
        Kind::Literal => name != "sql_mode",
        Kind::Quoted | Kind::Sign(_) => false,
    };
    // `1.5` is three tokens.
    if rest.takes_sign(b'.') {
        rest.next();
    }
    let of_any = OF_ANY.contains(&&*name) || OF_ANY_BEGIN.iter().any(|begin| name.starts_with(begin));
    (plain && (of_any || OF_ROWS.contains(&&*name))).then_some(of_any)
}

#[cfg(test)]
mod tests {
    use super::super::token::bare;

    #[test]
    fn settings_that_need_not_be_known_are_looked_past() {
        for (sql, rest) in [
            ("SET STATEMENT max_statement_time=1.5 FOR UPDATE t SET a = 1", "UPDATE t SET a = 1"),
            (
                "set statement Sort_Buffer_Size = 9, `optimizer_switch`='mrr=on' for alter table t add b int",
                "alter table",
            ),
            ("/*!100100 SET STATEMENT lock_wait_timeout = 1 FOR */ DROP TABLE `é`", "DROP TABLE"),
            (
                "SET STATEMENT sql_mode = 'STRICT_ALL_TABLES', timestamp = 5 FOR INSERT INTO t VALUES (NOW())",
                "INSERT INTO",
            ),
            ("SET STATEMENT max_statement_time = DEFAULT FOR CALL p()", "CALL p()"),
        ] {
            let bare = bare(sql, 101_106);
            assert_eq!((bare.trim_start().starts_with(rest), bare.len()), (true, sql.len()), "{sql}: {bare}");
        }
        for sql in [
            "SET STATEMENT sql_mode = 'ANSI_QUOTES' FOR INSERT INTO t VALUES (1)",
            "SET STATEMENT sql_mode = 4 FOR INSERT INTO t VALUES (1)",
            "SET STATEMENT sql_mode = '' FOR ALTER TABLE t ADD d date",
            "SET STATEMENT foreign_key_checks = 0 FOR DELETE FROM t",
            "SET STATEMENT sql_log_bin = 0 FOR DELETE FROM t",
            "SET STATEMENT max_statement_time = f() FOR DELETE FROM t",
            "SET STATEMENT max_statement_time = (SELECT 1) FOR DELETE FROM t",
            "SET STATEMENT max_statement_time = 1 FOR SET STATEMENT sql_log_bin = 0 FOR DELETE FROM t",
            "SET STATEMENT max_statement_time = 1 FOR COMMIT",
            "SET STATEMENT max_statement_time = 1 FOR PREPARE s FROM 'DELETE FROM t'",
            "SET STATEMENT max_statement_time = 1",
            "SET @statement = 1",
        ] {
            assert_eq!(bare(sql, 101_106), sql);
        }
    }
}
