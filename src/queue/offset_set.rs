//! The offsets that a group has consumed: everything below a floor, and a set above it.
//!
//! The set is kept in chunks of 64 Ki offsets, each in the smallest of three forms: a sorted array
//! while it is sparse, a bitmap of 8 KiB when it is not, and no memory at all once it is full. So
//! one job that stays out holds back nothing: a million offsets consumed above it cost about
//! 10 KiB, and there is no cap. The floor moves over a long run chunk by chunk.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::Offset;

/// Offsets of a chunk.
pub const CHUNK_LEN: u32 = 1 << CHUNK_BITS;
/// Words of a chunk's bitmap.
pub const CHUNK_WORDS: usize = (CHUNK_LEN / u64::BITS) as usize;
const CHUNK_BITS: u32 = 16;

/// From here on a bitmap (8 KiB) is smaller than a sorted array of u16.
const ARRAY_LEN_MAX: usize = 4096;

/// Consumed offsets within one chunk of 64 Ki, as a checkpoint keeps them. One set of them has one
/// form: full, or dense if there are more than 4,096, or sparse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkMembers {
    /// The low 16 bits of each, ascending.
    Sparse(Vec<u16>),
    /// One bit for each offset of the chunk.
    Dense(Box<[u64; CHUNK_WORDS]>),
    /// All offsets of the chunk.
    Full,
}

/// A set of offsets that starts as "everything below `floor`" and only grows.
#[derive(Clone, Debug)]
pub(super) struct OffsetSet {
    /// The lowest offset that is not in the set.
    floor: u64,
    /// How many offsets above the floor are in the set.
    above_count: u64,
    /// The offsets above the floor, by `offset >> CHUNK_BITS`. No chunk is empty.
    chunks: BTreeMap<u64, Chunk>,
}

/// The members of one chunk, as the low 16 bits of their offsets.
#[derive(Clone, Debug)]
enum Chunk {
    /// Sorted, at most `ARRAY_LEN_MAX` long, nothing below the floor.
    Array(Vec<u16>),
    /// Bits below the floor may still be set, but are not counted.
    Bitmap { words: Box<[u64; CHUNK_WORDS]>, count: u32 },
    /// Every offset of the chunk.
    Full,
}

impl OffsetSet {
    /// The set of all offsets below `floor`.
    pub(super) fn new(floor: Offset) -> Self {
        Self { floor: floor.0, above_count: 0, chunks: BTreeMap::new() }
    }

    /// The lowest offset that is not in the set.
    pub(super) fn floor(&self) -> Offset {
        Offset(self.floor)
    }

    /// How many offsets above the floor are in the set.
    pub(super) fn above_count(&self) -> u64 {
        self.above_count
    }

    pub(super) fn contains(&self, offset: Offset) -> bool {
        offset.0 < self.floor
            || self.chunks.get(&(offset.0 >> CHUNK_BITS)).is_some_and(|c| c.contains(low(offset.0)))
    }

    /// Adds `offset`; false if it was in the set before.
    pub(super) fn insert(&mut self, offset: Offset) -> bool {
        let offset = offset.0;
        if offset < self.floor {
            return false;
        }
        if offset == self.floor {
            self.floor += 1;
            self.raise_over_members();
            return true;
        }
        let chunk = self.chunks.entry(offset >> CHUNK_BITS).or_insert(Chunk::Array(Vec::new()));
        let added = chunk.insert(low(offset));
        self.above_count += u64::from(added);
        added
    }

    /// Adds the offsets from `first` to below `end`.
    pub(super) fn insert_run(&mut self, first: Offset, end: Offset) {
        if first.0 <= self.floor {
            return self.raise(end);
        }
        let numbers = (first.0 >> CHUNK_BITS)..=(end.0.saturating_sub(1) >> CHUNK_BITS);
        for number in numbers.filter(|_| first < end) {
            let place = |offset: Offset| {
                let from_begin = offset.0.saturating_sub(number << CHUNK_BITS);
                from_begin.min(u64::from(CHUNK_LEN)) as u32
            };
            let mut words = self.words(number);
            for (word, nth) in words.iter_mut().zip(0..) {
                *word |= below_all(place(end), nth) & !below_all(place(first), nth);
            }
            let known = self.chunks.remove(&number).map_or(0, |chunk| chunk.count());
            self.above_count -= u64::from(known);
            self.add_words(number, words);
        }
    }

    /// Adds everything below `floor`.
    pub(super) fn raise(&mut self, floor: Offset) {
        if floor.0 <= self.floor {
            return;
        }
        self.floor = floor.0;
        if self.chunks.is_empty() {
            return;
        }
        let number = floor.0 >> CHUNK_BITS;
        self.chunks = self.chunks.split_off(&number);
        if let Some(chunk) = self.chunks.get_mut(&number) {
            let mut words = chunk.words();
            words.iter_mut().zip(0..).for_each(|(word, nth)| *word &= !below(low(floor.0), nth));
            match Chunk::from_words(words) {
                Some(rest) => *chunk = rest,
                None => drop(self.chunks.remove(&number)),
            }
        }
        self.above_count = self.chunks.values().map(|chunk| u64::from(chunk.count())).sum();
        self.raise_over_members();
    }

    /// The lowest offset from `from` on that is not in the set.
    pub(super) fn next_absent(&self, from: Offset) -> Offset {
        let mut at = from.0.max(self.floor);
        while let Some(chunk) = self.chunks.get(&(at >> CHUNK_BITS)) {
            let run = chunk.run(low(at));
            at += u64::from(run);
            if run == 0 || at & u64::from(CHUNK_LEN - 1) != 0 {
                break;
            }
        }
        Offset(at)
    }

    /// How many offsets above the floor and from `from` on are in the set.
    pub(super) fn count_from(&self, from: Offset) -> u64 {
        let number = from.0 >> CHUNK_BITS;
        let behind = self.chunks.range(number + 1..).map(|(_, chunk)| u64::from(chunk.count()));
        let within = self.chunks.get(&number).map_or(0, |chunk| {
            let floor = if number == self.floor >> CHUNK_BITS { low(self.floor) } else { 0 };
            let from = low(from.0).max(floor);
            let words = chunk.words();
            let masked = words.iter().zip(0..).map(|(word, nth)| word & !below(from, nth));
            masked.map(|word| u64::from(word.count_ones())).sum()
        });
        within + behind.sum::<u64>()
    }

    /// What is in all of these sets; of none, nothing above offset 0.
    pub(super) fn intersection<'a>(sets: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let Some(lowest) = sets.clone().min_by_key(|set| set.floor) else {
            return Self::new(Offset(0));
        };
        let mut common = Self::new(lowest.floor());
        for number in lowest.chunks.keys() {
            let mut words = lowest.words(*number);
            for set in sets.clone() {
                let others = set.words(*number);
                words.iter_mut().zip(others.iter()).for_each(|(word, other)| *word &= other);
            }
            common.add_words(*number, words);
        }
        common
    }

    /// This set, and of `other` what lies from `from` on.
    pub(super) fn with_from(&self, from: Offset, other: &Self) -> Self {
        let mut union = Self::new(self.floor());
        let whole = (from.0 >> CHUNK_BITS)..=(other.floor >> CHUNK_BITS);
        let numbers = self.chunks.keys().chain(other.chunks.keys()).copied();
        let numbers: BTreeSet<u64> =
            numbers.chain(whole).filter(|number| *number >= self.floor >> CHUNK_BITS).collect();
        for number in numbers {
            let mut words = self.words(number);
            let base = number << CHUNK_BITS;
            let left_out = from.0.saturating_sub(base).min(u64::from(CHUNK_LEN)) as u32;
            for ((word, other), nth) in words.iter_mut().zip(other.words(number).iter()).zip(0..) {
                *word |= other & !below_all(left_out, nth);
            }
            union.add_words(number, words);
        }
        union.raise_over_members();
        union
    }

    /// Adds all members of another set that are not below the floor.
    pub(super) fn add_all(&mut self, other: &Self) {
        self.raise(other.floor());
        for (number, members) in other.chunks() {
            let add = |low: u16| {
                self.insert(Offset((number << CHUNK_BITS) + u64::from(low)));
            };
            match members {
                ChunkMembers::Sparse(array) => array.into_iter().for_each(add),
                ChunkMembers::Dense(words) => members_of(&words).for_each(add),
                ChunkMembers::Full => (0..=u16::MAX).for_each(add),
            }
        }
    }

    /// The chunks of the offsets above the floor, ascending, by `offset >> 16`.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (u64, ChunkMembers)> {
        let floor_chunk = self.floor >> CHUNK_BITS;
        self.chunks.iter().map(move |(number, chunk)| {
            let from = if *number == floor_chunk { low(self.floor) } else { 0 };
            (*number, chunk.members(from))
        })
    }

    /// Adds a chunk that [`chunks`](Self::chunks) gave, behind those added before; false if it is
    /// none that it can have given.
    pub(super) fn add_chunk(&mut self, number: u64, members: ChunkMembers) -> bool {
        let behind = self.chunks.last_key_value().is_none_or(|(last, _)| *last < number);
        let fits = number <= u64::MAX >> CHUNK_BITS;
        let Some(chunk) = Chunk::restore(members).filter(|_| behind && fits) else {
            return false;
        };
        let first = (number << CHUNK_BITS) + u64::from(chunk.first());
        if first <= self.floor {
            return false;
        }
        self.above_count += u64::from(chunk.count());
        self.chunks.insert(number, chunk);
        true
    }

    /// The highest offset above the floor, if there is one.
    pub(super) fn last(&self) -> Option<Offset> {
        let (number, chunk) = self.chunks.last_key_value()?;
        Some(Offset((number << CHUNK_BITS) + u64::from(chunk.last())))
    }

    /// The heap memory of the set in bytes; the nodes of the tree are estimated.
    pub(super) fn heap_bytes(&self) -> usize {
        let nodes = self.chunks.len() * (size_of::<u64>() + size_of::<Chunk>());
        nodes + self.chunks.values().map(Chunk::heap_bytes).sum::<usize>()
    }

    /// The members of a chunk as bits, those below the floor included.
    fn words(&self, number: u64) -> Box<[u64; CHUNK_WORDS]> {
        let mut words = self.chunks.get(&number).map_or_else(no_words, Chunk::words);
        let begin = number << CHUNK_BITS;
        let filled = self.floor.saturating_sub(begin).min(u64::from(CHUNK_LEN)) as u32;
        words.iter_mut().zip(0..).for_each(|(word, nth)| *word |= below_all(filled, nth));
        words
    }

    /// Adds a chunk that is not there from its bits; those below the floor mean nothing.
    fn add_words(&mut self, number: u64, mut words: Box<[u64; CHUNK_WORDS]>) {
        let begin = number << CHUNK_BITS;
        let filled = self.floor.saturating_sub(begin).min(u64::from(CHUNK_LEN)) as u32;
        words.iter_mut().zip(0..).for_each(|(word, nth)| *word &= !below_all(filled, nth));
        if let Some(chunk) = Chunk::from_words(words) {
            self.above_count += u64::from(chunk.count());
            self.chunks.insert(number, chunk);
        }
    }

    /// Moves the floor over the members that it has come to touch.
    fn raise_over_members(&mut self) {
        while let Some(chunk) = self.chunks.get_mut(&(self.floor >> CHUNK_BITS)) {
            let key = self.floor >> CHUNK_BITS;
            let run = chunk.take_run(low(self.floor));
            let emptied = chunk.is_empty();
            self.floor += u64::from(run);
            self.above_count -= u64::from(run);
            if emptied {
                self.chunks.remove(&key);
            }
            if run == 0 || self.floor >> CHUNK_BITS == key {
                return;
            }
        }
    }
}

impl Chunk {
    fn contains(&self, low: u16) -> bool {
        match self {
            Self::Array(array) => array.binary_search(&low).is_ok(),
            Self::Bitmap { words, .. } => {
                words.get(word_of(low)).is_some_and(|word| word & bit_of(low) != 0)
            }
            Self::Full => true,
        }
    }

    /// Adds `low`; false if it was there before.
    fn insert(&mut self, low: u16) -> bool {
        match self {
            Self::Array(array) => {
                // Commits mostly come in order, so the end is tried before the search.
                if array.last().is_none_or(|&last| last < low) {
                    array.push(low);
                } else {
                    let Err(at) = array.binary_search(&low) else {
                        return false;
                    };
                    array.insert(at, low);
                }
                if array.len() > ARRAY_LEN_MAX {
                    let count = array.len() as u32;
                    *self = Self::Bitmap { words: self.words(), count };
                }
                true
            }
            Self::Bitmap { words, count } => {
                let Some(word) = words.get_mut(word_of(low)) else {
                    return false;
                };
                if *word & bit_of(low) != 0 {
                    return false;
                }
                *word |= bit_of(low);
                *count += 1;
                if *count == CHUNK_LEN {
                    *self = Self::Full;
                }
                true
            }
            Self::Full => false,
        }
    }

    /// Forgets the unbroken run of members that starts at `from`, and says how long it was.
    fn take_run(&mut self, from: u16) -> u32 {
        let from = u32::from(from);
        match self {
            Self::Array(array) => {
                let members = array.iter().zip(from..);
                let run = members.take_while(|&(&low, wanted)| u32::from(low) == wanted).count();
                array.drain(..run);
                run as u32
            }
            Self::Bitmap { words, count } => {
                let run = run_of(words, from);
                *count -= run;
                run
            }
            Self::Full => {
                *self = Self::Array(Vec::new());
                CHUNK_LEN - from
            }
        }
    }

    /// The chunk with these members; none if there are none.
    fn from_words(words: Box<[u64; CHUNK_WORDS]>) -> Option<Self> {
        let count: u32 = words.iter().map(|word| word.count_ones()).sum();
        match count as usize {
            0 => None,
            1..=ARRAY_LEN_MAX => Some(Self::Array(members_of(&words).collect())),
            _ if count == CHUNK_LEN => Some(Self::Full),
            _ => Some(Self::Bitmap { words, count }),
        }
    }

    /// The members as bits.
    fn words(&self) -> Box<[u64; CHUNK_WORDS]> {
        let mut words = no_words();
        match self {
            Self::Array(array) => {
                for &low in array {
                    if let Some(word) = words.get_mut(word_of(low)) {
                        *word |= bit_of(low);
                    }
                }
            }
            Self::Bitmap { words: known, .. } => words.copy_from_slice(&known[..]),
            Self::Full => words.fill(u64::MAX),
        }
        words
    }

    /// How long the unbroken run of members is that starts at `from`.
    fn run(&self, from: u16) -> u32 {
        match self {
            Self::Array(array) => {
                let at = array.partition_point(|&low| low < from);
                let members = array.iter().skip(at).zip(u32::from(from)..);
                members.take_while(|&(&low, wanted)| u32::from(low) == wanted).count() as u32
            }
            Self::Bitmap { words, .. } => run_of(words, u32::from(from)),
            Self::Full => CHUNK_LEN - u32::from(from),
        }
    }

    /// The members from `from` on.
    fn members(&self, from: u16) -> ChunkMembers {
        match self {
            Self::Array(array) => ChunkMembers::Sparse(array.clone()),
            Self::Full => ChunkMembers::Full,
            Self::Bitmap { words, count } => {
                let mut words = words.clone();
                words.iter_mut().zip(0..).for_each(|(word, nth)| *word &= !below(from, nth));
                match *count as usize {
                    0..=ARRAY_LEN_MAX => ChunkMembers::Sparse(members_of(&words).collect()),
                    _ => ChunkMembers::Dense(words),
                }
            }
        }
    }

    /// The chunk with these members; none if they are not in their one form.
    fn restore(members: ChunkMembers) -> Option<Self> {
        match members {
            ChunkMembers::Sparse(array) => {
                let ascends = array.is_sorted_by(|one, next| one < next);
                let fits = (1..=ARRAY_LEN_MAX).contains(&array.len());
                (ascends && fits).then_some(Self::Array(array))
            }
            ChunkMembers::Dense(words) => {
                let count: u32 = words.iter().map(|word| word.count_ones()).sum();
                let fits = count as usize > ARRAY_LEN_MAX && count < CHUNK_LEN;
                fits.then_some(Self::Bitmap { words, count })
            }
            ChunkMembers::Full => Some(Self::Full),
        }
    }

    /// The lowest member of a chunk that was just restored.
    fn first(&self) -> u16 {
        match self {
            Self::Array(array) => array.first().copied().unwrap_or_default(),
            Self::Bitmap { words, .. } => members_of(words).next().unwrap_or_default(),
            Self::Full => 0,
        }
    }

    fn last(&self) -> u16 {
        match self {
            Self::Array(array) => array.last().copied().unwrap_or_default(),
            Self::Bitmap { words, .. } => members_of(words).last().unwrap_or_default(),
            Self::Full => u16::MAX,
        }
    }

    fn count(&self) -> u32 {
        match self {
            Self::Array(array) => array.len() as u32,
            Self::Bitmap { count, .. } => *count,
            Self::Full => CHUNK_LEN,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Array(array) => array.is_empty(),
            Self::Bitmap { count, .. } => *count == 0,
            Self::Full => false,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Array(array) => array.capacity() * size_of::<u16>(),
            Self::Bitmap { .. } => CHUNK_WORDS * size_of::<u64>(),
            Self::Full => 0,
        }
    }
}

fn no_words() -> Box<[u64; CHUNK_WORDS]> {
    Box::new([0; CHUNK_WORDS])
}

/// The bits of the `nth` word that stand for places below `place`.
fn below(place: u16, nth: u32) -> u64 {
    below_all(u32::from(place), nth)
}

/// As [`below`]; the place may be the end of the chunk.
fn below_all(place: u32, nth: u32) -> u64 {
    let bits = place.saturating_sub(nth * u64::BITS);
    1_u64.checked_shl(bits).map_or(u64::MAX, |bit| bit - 1)
}

/// How long the unbroken run of set bits is that starts at `from`.
fn run_of(words: &[u64; CHUNK_WORDS], from: u32) -> u32 {
    let mut at = from;
    while let Some(word) = words.get((at / u64::BITS) as usize) {
        let skipped = at % u64::BITS;
        let ones = (word >> skipped).trailing_ones();
        at += ones;
        if ones < u64::BITS - skipped {
            break;
        }
    }
    at - from
}

/// The members of a bitmap, ascending.
fn members_of(words: &[u64; CHUNK_WORDS]) -> impl Iterator<Item = u16> {
    words.iter().zip(0_u32..).flat_map(|(word, number)| {
        let mut rest = *word;
        std::iter::from_fn(move || {
            let bit = rest.trailing_zeros();
            rest &= rest.checked_sub(1)?;
            Some((number * u64::BITS + bit) as u16)
        })
    })
}

/// The place of an offset within its chunk.
fn low(offset: u64) -> u16 {
    (offset & u64::from(CHUNK_LEN - 1)) as u16
}

fn word_of(low: u16) -> usize {
    usize::from(low) / u64::BITS as usize
}

fn bit_of(low: u16) -> u64 {
    1 << (u32::from(low) % u64::BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::queue::retry::mix;

    /// The obviously right set: every member above the start, one by one.
    struct Model {
        floor: u64,
        members: BTreeSet<u64>,
    }

    impl Model {
        fn insert(&mut self, offset: u64) -> bool {
            let added = offset >= self.floor && self.members.insert(offset);
            while self.members.remove(&self.floor) {
                self.floor += 1;
            }
            added
        }

        fn contains(&self, offset: u64) -> bool {
            offset < self.floor || self.members.contains(&offset)
        }
    }

    fn check(set: &OffsetSet, model: &Model, seed: u64) {
        assert_eq!(set.floor().0, model.floor, "floor, seed {seed}");
        assert_eq!(set.above_count(), model.members.len() as u64, "count, seed {seed}");
        assert!(set.chunks.values().all(|chunk| !chunk.is_empty()), "empty chunk, seed {seed}");
    }

    fn insert_both(set: &mut OffsetSet, model: &mut Model, offset: u64, seed: u64) {
        assert_eq!(set.insert(Offset(offset)), model.insert(offset), "at {offset}, seed {seed}");
    }

    /// The set rebuilt from its chunks, with the same members.
    fn restored(set: &OffsetSet, seed: u64) -> OffsetSet {
        let mut copy = OffsetSet::new(set.floor());
        for (number, members) in set.chunks() {
            assert!(copy.add_chunk(number, members.clone()), "chunk {number}, seed {seed}");
            assert!(!copy.add_chunk(number, members), "twice");
        }
        assert_eq!((copy.floor(), copy.above_count()), (set.floor(), set.above_count()));
        assert!(copy.chunks().eq(set.chunks()), "seed {seed}");
        copy
    }

    #[test]
    fn agrees_with_a_plain_set() {
        for seed in 0..6 {
            // Starts just below a chunk border, so that every seed crosses some.
            let start = 65_530 + seed;
            let mut set = OffsetSet::new(Offset(start));
            let mut model = Model { floor: start, members: BTreeSet::new() };
            let window = [50, 3_000, 9_000, 70_000, 140_000, 300_000][seed as usize];
            for step in 0..60_000 {
                let noise = mix(seed, step, 0);
                let offset = model.floor.saturating_sub(3) + noise % window;
                if noise >> 60 == 0 {
                    let floor = model.floor;
                    insert_both(&mut set, &mut model, floor, seed);
                }
                insert_both(&mut set, &mut model, offset, seed);
                if step % 64 == 0 {
                    check(&set, &model, seed);
                    let probe = model.floor.saturating_sub(2) + (noise >> 20) % window;
                    assert_eq!(set.contains(Offset(probe)), model.contains(probe), "seed {seed}");
                }
                if step % 4_096 == 0 {
                    set = restored(&set, seed);
                }
            }
            check(&set, &model, seed);
        }
    }

    /// A random set with its members up to `end` one by one.
    fn random_set(seed: u64, end: u64) -> (OffsetSet, BTreeSet<u64>) {
        let mut set = OffsetSet::new(Offset(mix(seed, 0, 1) % end));
        for step in 0..[10, 5_000, 90_000][(seed % 3) as usize] {
            let begin = mix(seed, step, 2) % end;
            let run = [1, 1, 700, 66_000][(mix(seed, step, 3) % 4) as usize] / (1 + step / 40);
            (begin..=begin + run).for_each(|offset| _ = set.insert(Offset(offset)));
        }
        let members = (0..end * 2).filter(|offset| set.contains(Offset(*offset))).collect();
        (set, members)
    }

    #[test]
    fn sets_are_cut_joined_and_counted_as_plain_ones() {
        let end = 140_000;
        for seed in 0..4 {
            let (one, members) = random_set(seed, end);
            let (other, others) = random_set(seed + 100, end);
            let (third, thirds) = random_set(seed + 200, end);
            let plain = |set: &OffsetSet| -> BTreeSet<u64> {
                (0..end * 2).filter(|offset| set.contains(Offset(*offset))).collect()
            };
            let same = |set: &OffsetSet, expected: &BTreeSet<u64>, what: &str| {
                assert!(plain(set) == *expected, "{what}, seed {seed}");
                let floor = set.floor().0;
                assert!(!expected.contains(&floor), "{what}: floor, seed {seed}");
                assert_eq!(set.above_count(), expected.range(floor..).count() as u64, "{what}");
                assert!(set.chunks.values().all(|chunk| !chunk.is_empty()), "{what}");
                restored(set, seed);
            };
            let common = OffsetSet::intersection([&one, &other, &third].into_iter());
            let both: BTreeSet<u64> = &(&members & &others) & &thirds;
            same(&common, &both, "intersection");
            let from = one.floor().0 + mix(seed, 9, 9) % 70_000;
            let joined = common.with_from(Offset(from), &one);
            let above = members.range(from..).copied().collect();
            same(&joined, &(&both | &above), "with_from");
            for probe in 0..50 {
                let at = mix(seed, probe, 7) % (end * 2);
                let absent = (at..).find(|offset| !members.contains(offset)).unwrap();
                assert_eq!(one.next_absent(Offset(at)).0, absent, "from {at}, seed {seed}");
                let count = members.range(at.max(one.floor().0)..).count() as u64;
                assert_eq!(one.count_from(Offset(at)), count, "from {at}, seed {seed}");
            }
            let mut raised = one.clone();
            raised.raise(Offset(from));
            same(&raised, &(&members | &(0..from).collect()), "raise");
        }
    }

    #[test]
    fn a_run_is_added_as_its_members_are() {
        for seed in 0..6 {
            let (mut set, mut members) = random_set(seed, 140_000);
            for step in 0..4 {
                let first = mix(seed, step, 5) % 140_000;
                let long = [3, 70, 5_000, 65_536, 139_000][(mix(seed, step, 6) % 5) as usize];
                let end = (first + mix(seed, step, 8) % long).min(270_000);
                set.insert_run(Offset(first), Offset(end));
                members.extend(first..end);
                let found: BTreeSet<u64> =
                    (0..280_000).filter(|o| set.contains(Offset(*o))).collect();
                assert!(found == members, "seed {seed}, {first}..{end}");
                let floor = set.floor().0;
                assert!(!members.contains(&floor), "seed {seed}");
                assert_eq!(set.above_count(), members.range(floor..).count() as u64);
                restored(&set, seed);
            }
        }
    }

    #[test]
    fn full_chunks_cost_nothing_and_are_crossed_at_once() {
        for seed in 0..3 {
            let start = 65_536 * seed + seed;
            let mut set = OffsetSet::new(Offset(start));
            let mut model = Model { floor: start, members: BTreeSet::new() };
            let end = start + 4 * 65_536;
            // Every offset but the first, in an order that leaves holes for long (the factor is
            // odd, so it visits each place of a range whose size is a power of two once).
            let size = 4 * 65_536;
            for step in 0..size {
                let offset = start + (step * 40_503 + seed) % size;
                if offset != start {
                    insert_both(&mut set, &mut model, offset, seed);
                }
            }
            check(&set, &model, seed);
            assert!(set.chunks.values().filter(|c| matches!(c, Chunk::Full)).count() >= 3);
            assert!(set.heap_bytes() < 20_000, "{}", set.heap_bytes());
            insert_both(&mut set, &mut model, start, seed);
            check(&set, &model, seed);
            assert_eq!((set.floor().0, set.chunks.len()), (end, 0));
        }
    }

    #[test]
    fn a_chunk_that_no_set_has_is_refused() {
        let dense = |count: usize| {
            let mut words = Box::new([0; CHUNK_WORDS]);
            (0..count).for_each(|at| words[at / 64] |= 1 << (at % 64));
            ChunkMembers::Dense(words)
        };
        let unordered = [vec![], vec![2, 1], vec![1, 1], (0..4_097).collect()];
        let mut wrong: Vec<_> = unordered.map(ChunkMembers::Sparse).into();
        wrong.extend([dense(4_096), dense(65_536), dense(0)]);
        for members in wrong {
            assert!(!OffsetSet::new(Offset(0)).add_chunk(1, members.clone()), "{members:?}");
        }
        let at_floor = ChunkMembers::Sparse(vec![7, 9]);
        assert!(!OffsetSet::new(Offset(7)).add_chunk(0, at_floor.clone()));
        let mut set = OffsetSet::new(Offset(6));
        assert!(set.add_chunk(0, at_floor) && set.add_chunk(3, dense(5_000)));
        assert!(!set.add_chunk(2, ChunkMembers::Full), "out of order");
        assert!(!set.add_chunk(1 << 48, ChunkMembers::Full), "beyond every offset");
        assert_eq!((set.above_count(), set.last()), (5_002, Some(Offset(3 * 65_536 + 4_999))));
    }

    #[test]
    fn an_array_becomes_a_bitmap_when_that_is_smaller() {
        let mut set = OffsetSet::new(Offset(0));
        (0..ARRAY_LEN_MAX as u64).for_each(|n| assert!(set.insert(Offset(2 * n + 1))));
        assert!(matches!(set.chunks[&0], Chunk::Array(_)));
        assert!(set.insert(Offset(65_535)));
        assert!(matches!(set.chunks[&0], Chunk::Bitmap { count: 4097, .. }));
        assert!(!set.insert(Offset(1)) && !set.insert(Offset(65_535)));
        assert!(set.contains(Offset(8_191)) && !set.contains(Offset(8_190)));
    }
}
