//! What an undo would change although a later step, which stays, changed it too, and left it the same or had it made the
//! same again: a look at the site finds nothing there, and that step's own undo would.

use std::collections::HashMap;

use backout_model::conflict::{Conflict, Conflicts};
use backout_model::sieve::Sieve;
use backout_model::target::Touched;

use crate::act::Act;
use crate::error::EngineError;
use crate::later::LaterStep;
use crate::step::Run;
use crate::step_view::StepView;
use crate::undo::open;

/// The bits of the sieve of later rows and paths, 8 MiB at most: of a million rows one in sixty is let through for nothing.
const SIEVE_BITS: u64 = 1 << 26;

/// What the undo would change of one row or path.
struct Candidate {
    object: String,
    key: Option<String>,
    /// By which of the steps to undo, each with its place in the order and with the values that it changed; none: the
    /// whole.
    changed: Vec<(u64, Option<Vec<String>>)>,
}

impl Candidate {
    fn new(touched: &Touched<'_>) -> Self {
        Self { object: touched.object.to_owned(), key: (touched.key)(), changed: Vec::new() }
    }

    fn add(&mut self, seq: u64, touched: &Touched<'_>) {
        let aspects = touched.aspects.map(|aspects| aspects.iter().map(|one| (*one).to_owned()).collect());
        self.changed.push((seq, aspects));
    }

    /// Leaves out what is told as a conflict: that stays as others made it, or nothing is undone at all.
    fn without(&mut self, told: &Conflict) {
        match &told.column {
            Some(column) => {
                for aspects in self.changed.iter_mut().filter_map(|(_, aspects)| aspects.as_mut()) {
                    aspects.retain(|one| !one.eq_ignore_ascii_case(column));
                }
                self.changed.retain(|(_, aspects)| aspects.is_some());
            }
            None => self.changed.clear(),
        }
    }

    /// True where a later step changed it, too; with the value that both changed, where it is one.
    fn meets(&self, seq: u64, touched: &Touched<'_>) -> Option<Option<String>> {
        self.changed.iter().filter(|(own, _)| *own < seq).find_map(|(_, own)| match (own, touched.aspects) {
            (Some(own), Some(theirs)) => {
                if own.iter().any(|one| one == Touched::CAME) {
                    return theirs.contains(&Touched::WENT).then_some(None);
                }
                let both = |one: &&String| theirs.iter().any(|other| other.eq_ignore_ascii_case(one));
                let both = own.iter().filter(|one| *one != Touched::WENT).find(both);
                both.map(|one| Some(one.clone()))
            }
            (Some(some), None) => (!some.is_empty()).then_some(None),
            (None, some) => some.is_none_or(|some| !some.is_empty()).then_some(None),
        })
    }
}

/// A change of all rows of an object.
struct OfAll {
    object: String,
    aspects: Vec<String>,
    seq: u64,
}

impl OfAll {
    fn new(touched: &Touched<'_>, seq: u64) -> Self {
        let aspects = touched.aspects.unwrap_or_default().iter().map(|one| (*one).to_owned()).collect();
        Self { object: touched.object.to_owned(), aspects, seq }
    }

    /// True where it is about what was changed of a row. What came is taken away whole, by whatever names its values go.
    fn meets(&self, row: &Touched<'_>) -> bool {
        let is_one = |aspect: &&str| self.aspects.iter().any(|own| own.eq_ignore_ascii_case(aspect));
        let is_key = self.aspects.iter().any(|own| own == Touched::KEY);
        self.object.eq_ignore_ascii_case(row.object)
            && row.aspects.map_or(!is_key && !row.made, |aspects| aspects.iter().any(is_one))
    }
}

/// So many are looked up at once.
const AT_ONCE: usize = 8192;

/// The steps of one target: those to undo, and the later ones that stay.
struct Both<'s> {
    act: &'s Act,
    own: Vec<&'s StepView>,
    later: Vec<&'s LaterStep>,
}

impl Run<'_, '_> {
    /// What `own` steps and `later` ones both changed, by their images, but for what is told as a conflict already: it is
    /// required by the later one. The first [`Conflicts::KEPT`] of a target, no more.
    pub(crate) fn shared(
        &mut self,
        own: &[StepView],
        later: &[LaterStep],
        told: &Conflicts,
    ) -> Result<Conflicts, EngineError> {
        let mut found = Conflicts::default();
        for (label, both) in self.both(own, later)? {
            found.extend(self.shared_on(&label, &both, told)?);
        }
        Ok(found)
    }

    /// The steps that may have anything in common, by target.
    fn both<'s>(
        &mut self,
        own: &'s [StepView],
        later: &'s [LaterStep],
    ) -> Result<Vec<(String, Both<'s>)>, EngineError> {
        let mut both: Vec<(String, Both<'_>)> = Vec::new();
        for step in own {
            let label = self.session.targets.of(step.act())?.label();
            let met = later.iter().filter(|one| one.may_share(&label, &step.intended.summary));
            let met: Vec<&LaterStep> = met.collect();
            if met.is_empty() {
                continue;
            }
            let at = both.iter().position(|(known, _)| *known == label).unwrap_or_else(|| {
                both.push((label, Both { act: step.act(), own: Vec::new(), later: Vec::new() }));
                both.len() - 1
            });
            let known = &mut both[at].1;
            known.own.push(step);
            for one in met {
                if !known.later.iter().any(|other| other.seq() == one.seq()) {
                    known.later.push(one);
                }
            }
        }
        Ok(both)
    }

    fn shared_on(&mut self, label: &str, both: &Both<'_>, told: &Conflicts) -> Result<Conflicts, EngineError> {
        let session = &mut *self.session;
        let reader = session.journal.reader();
        let target = session.targets.of(both.act)?;
        let count = both.later.iter().map(|step| step.count()).sum();
        let (mut sieve, mut of_all) = (Sieve::new(count, SIEVE_BITS), Vec::new());
        for step in &both.later {
            target.touched(&mut *open(reader, step.seq()), &mut |touched| {
                if touched.identity.is_empty() {
                    of_all.push((OfAll::new(touched, step.seq()), *step));
                } else {
                    sieve.put([touched.identity]);
                }
                Ok(())
            })?;
        }
        let mut of_object: HashMap<String, Vec<&Conflict>> = HashMap::new();
        for conflict in told.listed.iter().filter(|conflict| conflict.target == label) {
            of_object.entry(conflict.object.to_ascii_lowercase()).or_default().push(conflict);
        }
        // Which of them others made is not told of each.
        let beyond = |object: &str| told.beyond.contains(&(label.to_owned(), object.to_owned()));
        let (mut found, mut all) = (Conflicts::default(), Vec::new());
        let mut candidates: HashMap<Vec<u8>, Candidate> = HashMap::new();
        let mut own = both.own.iter().map(|step| step.seq).peekable();
        // Where the last look into a step ended.
        let mut passed = 0;
        while let Some(seq) = own.peek().copied() {
            let (mut at, mut is_whole) = (0, true);
            let mut images = open(reader, seq);
            target.touched(&mut *images, &mut |touched| {
                at += 1;
                if at <= passed || !is_whole {
                    return Ok(());
                }
                if touched.identity.is_empty() {
                    all.push(OfAll::new(touched, seq));
                    return Ok(());
                }
                if let Some((_, step)) = of_all.iter().find(|(one, _)| one.seq > seq && one.meets(touched)) {
                    found.push(step.requires(touched.object.to_owned(), (touched.key)(), None));
                    return Ok(());
                }
                if !sieve.may_hold([touched.identity]) || beyond(touched.object) {
                    return Ok(());
                }
                let known = candidates.entry(touched.identity.to_vec());
                known.or_insert_with(|| Candidate::new(touched)).add(seq, touched);
                if candidates.len() >= AT_ONCE {
                    (passed, is_whole) = (at, false);
                }
                Ok(())
            })?;
            if is_whole {
                own.next();
                passed = 0;
                if own.peek().is_some() {
                    continue;
                }
            }
            for candidate in candidates.values_mut() {
                let told = of_object.get(&candidate.object.to_ascii_lowercase()).into_iter().flatten();
                let told: Vec<&Conflict> = told.filter(|told| told.key == candidate.key).copied().collect();
                told.into_iter().for_each(|told| candidate.without(told));
            }
            for step in &both.later {
                // As a rule there are none to begin with: then nothing is read once more.
                if candidates.is_empty() {
                    break;
                }
                let mut images = open(reader, step.seq());
                target.touched(&mut *images, &mut |touched| {
                    let Some(candidate) = candidates.get(touched.identity) else { return Ok(()) };
                    if let Some(column) = candidate.meets(step.seq(), touched) {
                        found.push(step.requires(candidate.object.clone(), candidate.key.clone(), column));
                        candidates.remove(touched.identity);
                    }
                    Ok(())
                })?;
            }
            candidates.clear();
            if found.listed.len() >= Conflicts::KEPT {
                break;
            }
        }
        for step in both.later.iter().filter(|_| !all.is_empty()) {
            target.touched(&mut *open(reader, step.seq()), &mut |touched| {
                if !touched.identity.is_empty() && all.iter().any(|one| one.seq < step.seq() && one.meets(touched)) {
                    let needed = step.requires(touched.object.to_owned(), (touched.key)(), None);
                    if !found.listed.contains(&needed) {
                        found.push(needed);
                    }
                }
                Ok(())
            })?;
        }
        Ok(found)
    }
}
