//! What a change of the schema that is done again gives rows anew. It runs at the moment at which it ran first; a server may keep
//! the time to itself (`secure_timestamp`): then what gives rows nothing by the clock runs without, and all else does not.

use backout_model::target::TargetError;
use mysql::Error;

use super::Mariadb;
use super::classify::No;
use super::ddl::Change;
use super::ddl_alter::Altered;
use super::ddl_fit::{added, default_of, is_given};
use super::segment::{Detail, Segment};
use super::session::Session;
use super::token::{bare, each_token};

const MOMENT: &str = ", timestamp = ";

/// Of settings that were kept those that the server lets be set.
pub fn settable<'s>(a: &mut Session, settings: &'s str) -> Result<&'s str, Error> {
    Ok(match settings.split_once(MOMENT) {
        Some((others, _)) if a.keeps_time()? => others,
        _ => settings,
    })
}

/// A statement that gives rows the moment of the settings that are kept with it, and not one right behind that; none where it gives
/// them none, or says itself under which settings it runs.
pub fn pinned(sql: &str, bare: &str, settings: &str) -> Option<String> {
    let (_, moment) = settings.split_once(MOMENT)?;
    let is_plain = sql.get(..3).is_some_and(|word| !word.eq_ignore_ascii_case("SET"));
    (is_plain && may_tell(bare)).then(|| format!("SET STATEMENT timestamp = {moment} FOR {sql}"))
}

/// True where a bare ALTER may give rows a value by the clock: by a function, or by a type that has the moment for its default or
/// is filled up with the day.
fn may_tell(sql: &str) -> bool {
    let tells =
        |name: String| ["NOW", "TIME", "DATE", "YEAR"].iter().any(|word| name.to_ascii_uppercase().contains(word));
    each_token(sql).filter_map(|token| token.name()).any(tells)
}

/// A column that came with values which only the first run gives, and which are not kept.
fn once(altered: &Altered) -> Option<String> {
    const WORDS: [&str; 10] = [
        "UUID",
        "UUID_SHORT",
        "UUID_V4",
        "UUID_V7",
        "SYS_GUID",
        "RAND",
        "RANDOM_BYTES",
        "CONNECTION_ID",
        "SYSDATE",
        "ENCRYPT",
    ];
    if altered.kept.as_ref().is_some_and(|kept| kept.given > 0) {
        return None;
    }
    let differs = |(_, text): &(String, String)| {
        let default = default_of(text).unwrap_or_default();
        let varies = each_token(default).any(|token| token.text == "@" || WORDS.iter().any(|word| token.is(word)));
        varies && is_given(text)
    };
    added(altered).into_iter().find(differs).map(|(name, _)| name)
}

impl Mariadb {
    /// Refuses to do again what would give rows other values, or another moment, before any of it is done.
    pub(super) fn look_at_moments(&mut self, shown: &str, segments: &[Segment]) -> Result<(), TargetError> {
        for segment in segments {
            if let Detail::Ddl { change, sql, line, .. } = &segment.detail
                && let Change::Altered(altered) = &**change
                && let Some(column) = once(altered)
            {
                let why = format!(
                    "it gives rows values in {column} that no second run gives, and they are kept only where the table has a key that stays"
                );
                let refused = No::step(why, "deploy the package again").at(&format!("{shown}:{line}"), sql);
                return Err(refused.refusal.into());
            }
        }
        let altering = segments.iter().filter_map(|segment| match &segment.detail {
            Detail::Ddl { change, sql, settings, line, .. } if matches!(**change, Change::Altered(_)) => {
                (settings.contains(MOMENT) && may_tell(&bare(sql, self.version))).then_some((sql, line))
            }
            _ => None,
        });
        let Some((sql, line)) = altering.into_iter().next() else { return Ok(()) };
        if !self.b.keeps_time().map_err(|source| self.failed("cannot read the settings of", source))? {
            return Ok(());
        }
        let why = "it may give rows the time, and the server lets nobody set that any more (secure_timestamp): they would get another one than at first";
        let way_out =
            "have the server run with secure_timestamp=NO for as long as that takes, or deploy the package again";
        Err(No::step(why, way_out).at(&format!("{shown}:{line}"), sql).refusal.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_tell_the_time_is_known() {
        for (sql, expected) in [
            ("ALTER TABLE t ADD d datetime DEFAULT NOW()", true),
            ("ALTER TABLE t ADD at timestamp", true),
            ("ALTER TABLE t ADD s int DEFAULT (unix_timestamp())", true),
            ("ALTER TABLE t MODIFY s year", true),
            ("ALTER TABLE t ADD s varchar(9) DEFAULT 'NOW()'", false),
        ] {
            assert_eq!(may_tell(sql), expected, "{sql}");
        }
    }
}
