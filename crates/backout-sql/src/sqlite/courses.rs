//! The tables that a step makes, renames and drops, each with the names that it has on its way, and where each is while
//! the step is undone or done again. Reads events; never touches the database.

use std::collections::HashSet;

use super::ddl_event::{Change, DdlEvent};
use super::dependents;
use super::replay::Direction;
use super::stream::Event;

/// One table on its way through a step. Numbers are places among the step's events.
pub struct Course {
    pub created: Option<usize>,
    pub dropped: Option<usize>,
    /// All names that it has had, in order, each with the event that gave it; none for that of before the step.
    names: Vec<(Option<usize>, String)>,
}

impl Course {
    /// Its name before the step; none where the step made it.
    pub fn first(&self) -> Option<&str> {
        self.names.first().filter(|_| self.created.is_none()).map(|(_, name)| name.as_str())
    }

    /// Its name after the step; none where the step dropped it.
    pub fn last(&self) -> Option<&str> {
        self.names.last().filter(|_| self.dropped.is_none()).map(|(_, name)| name.as_str())
    }

    /// Its name right before the event of that number.
    pub fn name_before(&self, event: usize) -> &str {
        let known = self.names.iter().rposition(|(given, _)| *given < Some(event)).unwrap_or(0);
        self.names.get(known).map_or("", |(_, name)| name.as_str())
    }

    /// How many names it has had until then.
    fn names_before(&self, event: usize) -> usize {
        self.names.iter().filter(|(given, _)| *given < Some(event)).count()
    }

    /// Its names, in lower case, before and after an event; none where it is not there then.
    fn names_around(&self, event: usize) -> Vec<String> {
        let is_there =
            self.created.is_none_or(|created| created <= event) && self.dropped.is_none_or(|dropped| dropped >= event);
        let names = [self.name_before(event), self.name_before(event + 1)];
        names.iter().filter(|_| is_there).map(|name| name.to_ascii_lowercase()).collect()
    }

    /// Whether an event makes, renames or drops it.
    fn has(&self, event: usize) -> bool {
        let event = Some(event);
        self.created == event || self.dropped == event || self.names.iter().any(|(given, _)| *given == event)
    }

    pub fn all_names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(_, name)| name.as_str())
    }

    /// Whether it was renamed or dropped.
    pub fn is_moved(&self) -> bool {
        self.dropped.is_some() || self.names.len() > 1
    }

    /// Whether the table ever had this name.
    pub fn has_been(&self, name: &str) -> bool {
        self.names.iter().any(|(_, one)| one.eq_ignore_ascii_case(name))
    }

    pub fn shares_a_name(&self, other: &Course) -> bool {
        self.names.iter().any(|(_, name)| other.has_been(name))
    }
}

/// The courses of all tables that a step makes, renames or drops.
pub fn courses(events: &[Event]) -> Vec<Course> {
    let mut courses: Vec<Course> = Vec::new();
    let find = |courses: &mut Vec<Course>, name: &str| -> usize {
        if let Some(at) =
            courses.iter().position(|course| course.last().is_some_and(|last| last.eq_ignore_ascii_case(name)))
        {
            return at;
        }
        courses.push(Course { created: None, dropped: None, names: vec![(None, name.to_owned())] });
        courses.len() - 1
    };
    for (number, event) in events.iter().enumerate() {
        let Event::Ddl { event, .. } = event else { continue };
        match event.change() {
            Some(Change::Create(name)) => {
                courses.push(Course {
                    created: Some(number),
                    dropped: None,
                    names: vec![(Some(number), name.to_owned())],
                });
            }
            Some(Change::Rename { from, to }) => {
                let at = find(&mut courses, from);
                courses[at].names.push((Some(number), to.to_owned()));
            }
            Some(Change::Drop(name)) => {
                let at = find(&mut courses, name);
                courses[at].dropped = Some(number);
            }
            None => {}
        }
    }
    courses
}

/// A table that replaces another within one step. Numbers are places among the step's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub create: usize,
    pub drop: usize,
    /// The new table's name while both are there.
    pub new: String,
    /// The old one's.
    pub old: String,
}

impl Pair {
    /// True for what stands between the making of the new table and the end of the old one.
    pub fn spans(&self, event: usize) -> bool {
        self.create < event && event < self.drop
    }
}

/// Which tables of a step replace which: the new one ends under a name that the old one had.
pub fn pairs(courses: &[Course]) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut dropped: Vec<(usize, &Course)> =
        courses.iter().filter_map(|course| Some((course.dropped?, course))).collect();
    dropped.sort_by_key(|(drop, _)| *drop);
    for (drop, old) in dropped {
        // The last one made is the likeliest: a name that serves for a while may serve many.
        for new in courses.iter().rev() {
            let Some(create) = new.created.filter(|create| *create < drop) else { continue };
            let is_there = new.dropped.is_none_or(|gone| gone > drop);
            // Renamed before, its rows would be found under two names.
            let known = pairs.iter().any(|other| other.create == create || other.drop == drop);
            // And so would those that were copied from it under another name than it went by.
            let keeps_its_name = old.names_before(create) == old.names_before(drop);
            if is_there && new.names_before(drop) == 1 && keeps_its_name && !known && old.shares_a_name(new) {
                pairs.push(Pair {
                    create,
                    drop,
                    new: new.name_before(drop).to_owned(),
                    old: old.name_before(drop).to_owned(),
                });
            }
        }
    }
    pairs
}

/// Where the tables of a step are while it is undone or done again.
pub struct Track {
    courses: Vec<Course>,
    pub pairs: Vec<Pair>,
    direction: Direction,
    /// The name that each has by now; none for what is not there.
    now: Vec<Option<String>>,
    /// The tables to which rows of those that they replace went over.
    carried: Vec<usize>,
}

/// What became of one table between the beginning of an undo or redo and now.
pub struct Passage<'a> {
    /// Its name when that began; where it was not there then, that of the table in its place.
    pub from: Option<&'a str>,
    /// The name that it ought to have in the end; none for what ought to be gone.
    pub to: Option<&'a str>,
    pub now: Option<&'a str>,
    /// Whether `from` names another table, which this one replaces.
    pub replaces: bool,
    /// Rows of that one came over into this one.
    pub carried: bool,
}

impl Track {
    pub fn new(events: &[Event], direction: Direction) -> Self {
        let courses = courses(events);
        let now = courses
            .iter()
            .map(|course| match direction {
                Direction::Undo => course.last(),
                Direction::Redo => course.first(),
            })
            .map(|name| name.map(str::to_owned))
            .collect();
        Self { pairs: pairs(&courses), courses, direction, now, carried: Vec::new() }
    }

    /// Notes that the event of that number was undone or done again.
    pub fn happened(&mut self, event: usize) {
        let Some(at) = self.courses.iter().position(|course| course.has(event)) else { return };
        let course = &self.courses[at];
        let (gone, name) = match self.direction {
            Direction::Undo => (course.created == Some(event), course.name_before(event)),
            Direction::Redo => (course.dropped == Some(event), course.name_before(event + 1)),
        };
        let name = (!gone).then(|| name.to_owned());
        // Two tables have one name only where the one had to give way.
        for now in self.now.iter_mut().filter(|now| now.is_some() && **now == name) {
            *now = None;
        }
        self.now[at] = name;
    }

    /// The old table of a pair as people know it: by its name before the step.
    pub fn known_as<'a>(&'a self, pair: &'a Pair) -> &'a str {
        let old = self.courses.iter().find(|course| course.dropped == Some(pair.drop));
        old.and_then(Course::first).unwrap_or(&pair.old)
    }

    /// The new table of a pair as people know it: by its name after the step.
    pub fn known_after<'a>(&'a self, pair: &'a Pair) -> &'a str {
        let new = self.courses.iter().find(|course| course.created == Some(pair.create));
        new.and_then(Course::last).unwrap_or(&pair.new)
    }

    /// Whether the table that an event drops is one that the step itself made.
    pub fn is_made(&self, drop: usize) -> bool {
        self.courses.iter().any(|course| course.dropped == Some(drop) && course.created.is_some())
    }

    /// How people know a table whose name it has for a while only, while one replaces another.
    pub fn known_as_a_whole(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find_map(|pair| match name {
            _ if name.eq_ignore_ascii_case(&pair.new) => Some(self.known_after(pair)),
            _ if name.eq_ignore_ascii_case(&pair.old) => Some(self.known_as(pair)),
            _ => None,
        })
    }

    /// Whether the table of an event is where that expects it: an event before it may not have been undone or done again.
    pub fn is_ready(&self, event: usize) -> bool {
        self.courses.iter().zip(&self.now).filter(|(course, _)| course.has(event)).all(|(course, now)| {
            let expected = match self.direction {
                Direction::Undo if course.dropped == Some(event) => None,
                Direction::Undo => Some(course.name_before(event + 1)),
                Direction::Redo if course.created == Some(event) => None,
                Direction::Redo => Some(course.name_before(event)),
            };
            now.as_deref() == expected
        })
    }

    /// Whether the two tables of a pair are there, under the names that they have beside each other.
    pub fn has_both(&self, pair: &Pair) -> bool {
        let is_there = |wanted: &dyn Fn(&Course) -> bool, name: &str| {
            let found = self.courses.iter().zip(&self.now).find(|(course, _)| wanted(course));
            found.is_some_and(|(_, now)| now.as_deref() == Some(name))
        };
        is_there(&|course| course.created == Some(pair.create), &pair.new)
            && is_there(&|course| course.dropped == Some(pair.drop), &pair.old)
    }

    /// All changes of the schema that stand or fall with one that makes, renames or drops a table: those of that table, of
    /// the tables that it replaces or that replace it, of what hangs on them, and of what several of them change the text
    /// of; none for other changes.
    pub fn together(&self, events: &[Event], event: usize) -> Vec<usize> {
        if !self.courses.iter().any(|course| course.has(event)) {
            return Vec::new();
        }
        let mut found = vec![event];
        loop {
            let before = found.len();
            let members = self.members(&found);
            let changes = || found.iter().filter_map(|number| events.get(*number)).filter_map(Event::ddl);
            let views = changes().flat_map(DdlEvent::rows).filter(|row| row.kind == "view");
            let views: HashSet<String> = views.map(|row| row.name.to_ascii_lowercase()).collect();
            let texts =
                changes().flat_map(|change| change.pairs(Direction::Undo)).map(|(row, _)| (&row.kind, &row.name));
            let texts: HashSet<(&String, &String)> = texts.collect();
            let hangs = |number: usize, change: &DdlEvent| {
                // Tables by the name that they have then, views and triggers by what they speak of.
                let mut names = views.clone();
                names.extend(members.iter().flat_map(|course| course.names_around(number)));
                change.rows().any(|row| {
                    let by_text = row.kind == "view" || row.kind == "trigger";
                    names.contains(&row.table.to_ascii_lowercase()) || by_text && dependents::speaks_of(row, &names)
                }) || change.pairs(Direction::Undo).iter().any(|(row, _)| texts.contains(&(&row.kind, &row.name)))
            };
            let changes = events.iter().enumerate().filter_map(|(number, event)| Some((number, event.ddl()?)));
            let more: Vec<usize> = changes
                .filter(|(number, _)| !found.contains(number))
                .filter(|(number, change)| members.iter().any(|course| course.has(*number)) || hangs(*number, change))
                .map(|(number, _)| number)
                .collect();
            found.extend(more);
            if found.len() == before {
                return found;
            }
        }
    }

    /// The tables that events make, rename or drop, with those that replace them or that they replace, be it by name alone.
    fn members(&self, events: &[usize]) -> Vec<&Course> {
        let of_events = self.courses.iter().filter(|course| events.iter().any(|event| course.has(*event)));
        let mut members: Vec<&Course> = of_events.collect();
        let mut at = 0;
        while let Some(course) = members.get(at).copied() {
            at += 1;
            for other in &self.courses {
                let replaces = self.pairs.iter().any(|pair| {
                    let (new, old) = (Some(pair.create), Some(pair.drop));
                    course.created == new && other.dropped == old || course.dropped == old && other.created == new
                });
                let ends_as = |one: &Course, other: &Course| {
                    one.last().zip(other.first()).is_some_and(|(last, first)| last.eq_ignore_ascii_case(first))
                };
                let succeeds = ends_as(course, other) || ends_as(other, course);
                if (replaces || succeeds) && !members.iter().any(|member| std::ptr::eq(*member, other)) {
                    members.push(other);
                }
            }
        }
        members
    }

    /// Notes that rows of others may have gone over from the one table of a pair to the other.
    pub fn carried(&mut self, pair: &Pair) {
        self.carried.extend(self.courses.iter().position(|course| match self.direction {
            Direction::Undo => course.dropped == Some(pair.drop),
            Direction::Redo => course.created == Some(pair.create),
        }));
    }

    pub fn passages(&self) -> Vec<Passage<'_>> {
        (0..self.courses.len()).map(|at| self.passage(at)).collect()
    }

    fn passage(&self, at: usize) -> Passage<'_> {
        let (first, last) = (self.courses[at].first(), self.courses[at].last());
        let (mut from, to) = match self.direction {
            Direction::Undo => (last, first),
            Direction::Redo => (first, last),
        };
        let mut replaces = false;
        // The one in its place may have been replaced itself.
        let mut other = at;
        while from.is_none() {
            let of = &self.courses[other];
            let next = self.pairs.iter().find_map(|pair| match self.direction {
                Direction::Undo if of.dropped == Some(pair.drop) => {
                    self.courses.iter().position(|course| course.created == Some(pair.create))
                }
                Direction::Redo if of.created == Some(pair.create) => {
                    self.courses.iter().position(|course| course.dropped == Some(pair.drop))
                }
                _ => None,
            });
            let Some(next) = next else { break };
            other = next;
            replaces = true;
            from = match self.direction {
                Direction::Undo => self.courses[other].last(),
                Direction::Redo => self.courses[other].first(),
            };
        }
        Passage { from, to, now: self.now[at].as_deref(), replaces, carried: self.carried.contains(&at) }
    }
}
