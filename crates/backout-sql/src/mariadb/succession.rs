//! Tables that take the place of others: made, filled, and given the name that another one gave up. Their rows are not carried
//! over; so a row that others deleted from the new table must not come back with the old one unsaid.

use std::collections::BTreeSet;

use super::ddl::Change;
use super::segment::{Detail, Segment};

/// All names, by the way, of the tables that segments, in the order in which they were done, make and that have had a name
/// which a table of before them gave up.
pub fn replacing<'a>(segments: impl Iterator<Item = &'a Segment>) -> BTreeSet<String> {
    // Those made here, each by all the names that it has had, the last one being its own now.
    let mut made: Vec<Vec<&str>> = Vec::new();
    let mut given_up: BTreeSet<&str> = BTreeSet::new();
    let changes = segments.filter_map(|segment| match &segment.detail {
        Detail::Ddl { change, .. } => Some(&**change),
        Detail::Rows { .. } | Detail::Script => None,
    });
    for change in changes {
        match change {
            Change::Made { name, .. } => made.push(vec![name]),
            Change::Dropped { gone } => {
                for one in gone {
                    match made.iter_mut().find(|names| names.last() == Some(&one.name.as_str())) {
                        // No table is called so any more.
                        Some(names) => names.push(""),
                        None => drop(given_up.insert(&one.name)),
                    }
                }
            }
            Change::Renamed { pairs, .. } => {
                for (from, to) in pairs {
                    match made.iter_mut().find(|names| names.last() == Some(&from.as_str())) {
                        Some(names) => names.push(to),
                        None => drop(given_up.insert(from)),
                    }
                }
            }
            Change::Swapped { .. } | Change::Altered(_) | Change::Relinked { .. } | Change::Told(_) => {}
        }
    }
    let replaces = |names: &&Vec<&str>| names.iter().any(|name| given_up.contains(name));
    made.iter().filter(replaces).flatten().filter(|name| !name.is_empty()).map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::ddl_hung::Hung;
    use super::super::segment::State;
    use super::*;

    fn segment(number: u32, change: Change) -> Segment {
        let (sql, settings) = (String::new(), String::new());
        let detail = Detail::Ddl { line: 1, sql, settings, change: Box::new(change), hung: Hung::default() };
        Segment { step: 1, number, state: State::Done, detail }
    }

    fn made(name: &str) -> Change {
        Change::Made { name: name.to_owned(), definition: String::new(), rows: None, replaces: false }
    }

    fn renamed(from: &str, to: &str) -> Change {
        Change::Renamed { pairs: vec![(from.to_owned(), to.to_owned())], triggers: Vec::new() }
    }

    fn of(changes: Vec<Change>) -> Vec<String> {
        let segments: Vec<Segment> =
            changes.into_iter().zip(1..).map(|(change, number)| segment(number, change)).collect();
        replacing(segments.iter()).into_iter().collect()
    }

    #[test]
    fn a_table_that_takes_a_name_that_another_gave_up_is_known_by_all_its_names() {
        assert_eq!(of(vec![renamed("t", "old"), made("n"), renamed("n", "t")]), ["n", "t"]);
        assert_eq!(of(vec![made("t"), renamed("u", "w")]), Vec::<String>::new());
        // What was there before and only changed its name replaces nothing.
        assert_eq!(of(vec![renamed("a", "x"), renamed("b", "a"), renamed("x", "b")]), Vec::<String>::new());
        assert_eq!(of(vec![made("n"), renamed("n", "m"), made("n")]), Vec::<String>::new());
    }
}
