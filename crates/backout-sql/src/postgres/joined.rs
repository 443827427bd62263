//! The two images of each row of a step, brought together by its key: they are two streams, in no common order. What waits
//! for its other half is kept, and no more than [`Join::ROOM`] of it: where that is too little, a part of the keys is put
//! off to another reading of both. Never touches the database.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::stream::{Reader, Span, StreamError, Walk};

/// A row as it was and as it was left; one of them where it came or went.
pub struct Pair<'l> {
    pub before: Option<&'l [u8]>,
    pub after: Option<&'l [u8]>,
}

/// A line that waits for its other half.
struct Waiting {
    is_after: bool,
    line: Box<[u8]>,
    /// Rows that nothing tells apart.
    count: u64,
}

/// The keys of which a reading takes care: those whose hash leaves `rest`.
#[derive(Clone, Copy)]
struct Part {
    of: u64,
    rest: u64,
}

impl Part {
    const ALL: Part = Part { of: 1, rest: 0 };

    fn has(self, key: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        hasher.finish() % self.of == self.rest
    }

    /// Half of it, and the other half.
    fn halves(self) -> (Part, Part) {
        (Part { of: self.of * 2, rest: self.rest }, Part { of: self.of * 2, rest: self.rest + self.of })
    }
}

/// In the same order each time.
type Waitings = HashMap<Box<[u8]>, Waiting, BuildHasherDefault<DefaultHasher>>;

/// Brings the images of the rows of one table together.
pub struct Join<'k> {
    /// Writes the key of a line.
    pub key: &'k dyn Fn(&[u8], &mut Vec<u8>),
    /// Bytes that may wait.
    pub room: usize,
}

impl Join<'_> {
    pub const ROOM: usize = 16 << 20;
    /// What a line costs beside its bytes.
    const BESIDE: usize = 128;
    /// A row must fit, however large: so few are never put off.
    const FEW: usize = 4;

    /// Hands on every row, some perhaps more than once, in the same order each time.
    pub fn pairs<E: From<StreamError>>(
        &self,
        reader: &mut Reader<'_>,
        before: Span,
        after: Span,
        each: &mut dyn FnMut(Pair<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut parts = vec![Part::ALL];
        while let Some(part) = parts.pop() {
            self.part(reader, part, [before, after], &mut parts, each)?;
        }
        Ok(())
    }

    fn part<E: From<StreamError>>(
        &self,
        reader: &mut Reader<'_>,
        mut part: Part,
        spans: [Span; 2],
        put_off: &mut Vec<Part>,
        each: &mut dyn FnMut(Pair<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut walks = spans.map(Walk::new);
        let (mut waiting, mut bytes) = (Waitings::default(), 0);
        let mut key = Vec::new();
        let cost = |key: &[u8], line: &[u8]| key.len() + line.len() + Self::BESIDE;
        while !walks.iter().all(Walk::is_done) {
            // Side by side: as a rule both come in about the same order.
            let [before, after] = &walks;
            let is_after = before.is_done() || !after.is_done() && after.seen() < before.seen();
            walks[usize::from(is_after)].next(reader)?;
            let is_alone = spans[usize::from(!is_after)].records == 0;
            let walk = &walks[usize::from(is_after)];
            for line in walk.lines() {
                let line = line.map_err(StreamError::from)?;
                if is_alone {
                    each(alone(is_after, line))?;
                    continue;
                }
                key.clear();
                (self.key)(line, &mut key);
                if !part.has(&key) {
                    continue;
                }
                match waiting.entry(key.as_slice().into()) {
                    Entry::Occupied(mut entry) if entry.get().is_after != is_after => {
                        let other = entry.get_mut();
                        let [before, after] = if is_after { [&*other.line, line] } else { [line, &*other.line] };
                        each(Pair { before: Some(before), after: Some(after) })?;
                        other.count -= 1;
                        if other.count == 0 {
                            bytes -= cost(&key, &other.line);
                            entry.remove();
                        }
                    }
                    Entry::Occupied(mut entry) => entry.get_mut().count += 1,
                    Entry::Vacant(entry) => {
                        bytes += cost(&key, line);
                        entry.insert(Waiting { is_after, line: line.into(), count: 1 });
                    }
                }
                while bytes > self.room && waiting.len() > Self::FEW && part.of < 1 << 32 {
                    let (here, later) = part.halves();
                    waiting.retain(|key, _| here.has(key));
                    bytes = waiting.iter().map(|(key, waiting)| cost(key, &waiting.line)).sum();
                    put_off.push(later);
                    part = here;
                }
            }
        }
        for walk in &mut walks {
            // It says where rows are missing.
            walk.next(reader)?;
        }
        for Waiting { is_after, line, .. } in waiting.values() {
            each(alone(*is_after, line))?;
        }
        Ok(())
    }
}

fn alone(is_after: bool, line: &[u8]) -> Pair<'_> {
    if is_after { Pair { before: None, after: Some(line) } } else { Pair { before: Some(line), after: None } }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Cursor, Write};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::postgres::stream::{Index, Side, Writer};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Numbers from 0 on in an order of their own.
    fn mixed(count: u64, step: u64) -> impl Iterator<Item = u64> {
        (0..count).map(move |at| at * step % count)
    }

    #[test]
    fn every_row_is_told_whatever_the_order_and_the_room() {
        const COUNT: u64 = 10_007;
        let out = Shared::default();
        let mut writer = Writer::new(Box::new(out.clone())).unwrap();
        let mut span = |side, numbers: &mut dyn Iterator<Item = u64>, word: &str| {
            let (start, mut records) = (writer.boundary().unwrap(), 0);
            for number in numbers {
                writer.row(side, 0, format!("{number}\t{word}").as_bytes()).unwrap();
                records += 1;
            }
            Span { start, end: writer.boundary().unwrap(), records }
        };
        let before = span(Side::Before, &mut mixed(COUNT, 17).filter(|number| number % 5 != 0), "old");
        let after = span(Side::After, &mut mixed(COUNT, 7001).filter(|number| number % 7 != 0), "new");
        writer.finish(&Index::default()).unwrap();
        let mut bytes = Cursor::new(out.0.lock().unwrap().clone());
        let mut reader = Reader::open(&mut bytes).unwrap();
        let key = |line: &[u8], key: &mut Vec<u8>| key.extend(line.split(|byte| *byte == b'\t').next().unwrap());
        for room in [1 << 30, 100_000, 5_000] {
            let mut found: BTreeMap<u64, (bool, bool)> = BTreeMap::new();
            let join = Join { key: &key, room };
            let mut told = 0;
            join.pairs::<StreamError>(&mut reader, before, after, &mut |pair| {
                let line = pair.before.or(pair.after).unwrap();
                let number = std::str::from_utf8(line).unwrap().split('\t').next().unwrap().parse().unwrap();
                let both = (pair.before.is_some(), pair.after.is_some());
                assert_eq!(*found.entry(number).or_insert(both), both, "{number} in {room}");
                told += 1;
                Ok(())
            })
            .unwrap();
            let wanted = (0..COUNT).filter(|number| number % 35 != 0);
            let wanted: BTreeMap<u64, (bool, bool)> =
                wanted.map(|number| (number, (number % 5 != 0, number % 7 != 0))).collect();
            assert!(found == wanted, "in {room} bytes");
            assert!(room < 1 << 30 || told == found.len());
        }
    }
}
