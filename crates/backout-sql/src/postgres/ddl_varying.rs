//! Values that a schema change computes and that may differ each time: a redo runs the statement again, and says so.

use super::catalog::{Kind, Object};
use super::ddl::DdlEvent;
use super::ddl_names::starts_with;
use super::token::{Token, each_token};

impl DdlEvent {
    /// The columns to which it may give other values when it runs again, in rows that were there before it.
    pub(super) fn varying(&self) -> Vec<String> {
        let of_column = |after: &Object, made: &[&str]| {
            after.kind == Kind::Column && !after.is_inherited() && !made.contains(&after.of())
        };
        let made: Vec<&str> = self.made().collect();
        let using = each_token(&self.sql).find(|token| token.is("USING")).and_then(|token| self.sql.get(token.end..));
        let using = using.filter(|_| starts_with(&self.sql, "ALTER"));
        let varies = |before: Option<&Object>, after: &Object| match before {
            None => after.part("identity").is_some() || after.part("default").is_some_and(is_computed),
            Some(before) => using.is_some_and(is_computed) && before.part("type") != after.part("type"),
        };
        self.changes
            .iter()
            .filter_map(|change| Some((change.before.as_ref(), change.after.as_ref()?)))
            .filter(|(before, after)| of_column(after, &made) && varies(*before, after))
            .map(|(_, after)| after.shown())
            .collect()
    }
}

/// True where an expression calls a function, or asks for the time or for who one is.
pub(super) fn is_computed(expression: &str) -> bool {
    /// Types that take an argument.
    const TYPES: [&str; 10] =
        ["varying", "character", "varchar", "char", "bpchar", "numeric", "bit", "time", "timestamp", "interval"];
    const ASKS: [&str; 3] = ["current_", "localtime", "session_user"];
    let tokens: Vec<Token<'_>> = each_token(expression).collect();
    (0..tokens.len()).any(|at| {
        let Some(name) = tokens[at].name() else { return false };
        let calls = tokens.get(at + 1).is_some_and(|next| next.is_sign(b'(')) && !TYPES.contains(&name.as_str());
        calls || ASKS.iter().any(|start| name.starts_with(start))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_not_computed() {
        for constant in ["'x'::character varying(10)", "1.5::numeric(10,2)", "NULL", "'{}'::jsonb", "(-1)", "true"] {
            assert!(!is_computed(constant), "{constant}");
        }
        for computed in ["now()", "CURRENT_TIMESTAMP", "nextval('s'::regclass)", "(random() * 2)", "\"my fn\"()"] {
            assert!(is_computed(computed), "{computed}");
        }
    }
}
