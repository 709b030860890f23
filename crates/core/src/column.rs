//! Long lists of figures in little memory. Pure: the caller decides where values are kept.
//!
//! A [`ValueColumn`] keeps its last values in memory and passes full blocks to a [`Spill`], so that the
//! memory of a run does not grow with its requests. Values come back exactly as they were added,
//! and a column that was never full is a plain list.

use std::{
    borrow::Cow,
    fmt, io,
    ops::Deref,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use crate::statistic::{Absent, Statistic};

/// The number of values in a block. Shorter columns stay in memory.
pub const BLOCK: usize = 1024;

/// Keeps bytes outside of memory, such as in a file.
pub trait Spill: Send + Sync + fmt::Debug {
    /// Stores `bytes` and returns their position. After an error the bytes stay in memory.
    fn append(&self, bytes: &[u8]) -> io::Result<u64>;

    /// Reads the bytes at `position`. An implementation that fails must report it to the user:
    /// the values become not-a-number, which fails every threshold.
    fn read(&self, position: u64, bytes: &mut [u8]) -> io::Result<()>;
}

/// Where columns are kept. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Storage(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    spill: Box<dyn Spill>,
    /// The column that was loaded last: one at a time is in memory.
    last: Mutex<Option<(Key, Arc<Loaded>)>>,
}

/// Identifies the contents of a column: the positions of its first and last blocks, and its length.
type Key = (u64, u64, usize);

impl Storage {
    /// Stores full blocks in `spill`.
    pub fn new(spill: impl Spill + 'static) -> Self {
        Self(Some(Arc::new(Shared { spill: Box::new(spill), last: Mutex::new(None) })))
    }

    /// Stores `bytes` and returns their position; `None` if they must stay in memory.
    pub fn append(&self, bytes: &[u8]) -> Option<u64> {
        self.0.as_ref()?.spill.append(bytes).ok()
    }

    /// Reads stored bytes; `None` if they cannot be read, which the [`Spill`] reports.
    pub fn read(&self, position: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.as_ref()?.spill.read(position, &mut bytes).ok()?;
        Some(bytes)
    }

    /// Whether both keep blocks in the same place.
    fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, None) => true,
            _ => false,
        }
    }
}

/// A value of a column.
pub trait ColumnEntry: Copy {
    /// Its size in bytes.
    const SIZE: usize;

    /// Stands for a value that cannot be read back.
    const LOST: Self;

    /// Appends its bytes.
    fn put(self, bytes: &mut Vec<u8>);

    /// Reads it from `SIZE` bytes.
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! number_entry {
    ($($number:ty, $lost:expr;)*) => {$(
        impl ColumnEntry for $number {
            const SIZE: usize = size_of::<$number>();
            const LOST: Self = $lost;

            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }

            fn get(bytes: &[u8]) -> Self {
                bytes.try_into().map_or($lost, <$number>::from_le_bytes)
            }
        }
    )*};
}

number_entry! { f64, f64::NAN; f32, f32::NAN; u64, 0; u32, 0; }

impl<A: ColumnEntry, B: ColumnEntry> ColumnEntry for (A, B) {
    const SIZE: usize = A::SIZE + B::SIZE;
    const LOST: Self = (A::LOST, B::LOST);

    fn put(self, bytes: &mut Vec<u8>) {
        self.0.put(bytes);
        self.1.put(bytes);
    }

    fn get(bytes: &[u8]) -> Self {
        let (first, second) = bytes.split_at(A::SIZE);
        (A::get(first), B::get(second))
    }
}

impl<T: ColumnEntry, const N: usize> ColumnEntry for [T; N] {
    const SIZE: usize = N * T::SIZE;
    const LOST: Self = [T::LOST; N];

    fn put(self, bytes: &mut Vec<u8>) {
        self.into_iter().for_each(|entry| entry.put(bytes));
    }

    fn get(bytes: &[u8]) -> Self {
        std::array::from_fn(|nth| T::get(&bytes[nth * T::SIZE..(nth + 1) * T::SIZE]))
    }
}

/// Values in the order in which they were added.
#[derive(Debug, Clone)]
pub struct ValueColumn<T> {
    storage: Storage,
    /// The positions of stored blocks, with their numbers of values.
    blocks: Vec<(u64, usize)>,
    /// The number of stored values.
    stored: usize,
    /// The values after the stored ones.
    tail: Vec<T>,
    /// Whether storing failed: the values then stay in memory.
    is_in_memory: bool,
}

impl<T: ColumnEntry> Default for ValueColumn<T> {
    fn default() -> Self {
        Self::new(&Storage::default())
    }
}

impl<T: ColumnEntry> ValueColumn<T> {
    /// Creates an empty column.
    pub fn new(storage: &Storage) -> Self {
        let is_in_memory = storage.0.is_none();
        let storage = storage.clone();
        Self { storage, blocks: Vec::new(), stored: 0, tail: Vec::new(), is_in_memory }
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.stored + self.tail.len()
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a value.
    pub fn push(&mut self, value: T) {
        self.tail.push(value);
        if self.tail.len() >= BLOCK && !self.is_in_memory {
            self.store();
        }
    }

    /// Stores the values in memory as a block. After an error they stay there.
    fn store(&mut self) {
        let mut bytes = Vec::with_capacity(self.tail.len() * T::SIZE);
        self.tail.iter().for_each(|value| value.put(&mut bytes));
        match self.storage.append(&bytes) {
            Some(position) => {
                self.blocks.push((position, self.tail.len()));
                self.stored += self.tail.len();
                self.tail.clear();
            }
            None => self.is_in_memory = true,
        }
    }

    /// Adds the values of `other`.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        // Blocks of the same storage change hands; a short block is fine.
        if !self.is_in_memory && !other.blocks.is_empty() && self.storage.is(&other.storage) {
            if !self.tail.is_empty() {
                self.store();
            }
            if self.tail.is_empty() {
                self.blocks.extend(&other.blocks);
                self.stored += other.stored;
                self.tail = other.tail;
                self.is_in_memory = other.is_in_memory;
                return;
            }
        }
        other.iter().for_each(|value| self.push(value));
    }

    /// Returns the values, one stored block at a time.
    pub fn iter(&self) -> impl Iterator<Item = T> + Clone {
        let blocks = self.blocks.iter().map(|block| self.read(*block));
        blocks.flatten().chain(self.tail.iter().copied())
    }

    fn read(&self, (position, values): (u64, usize)) -> Vec<T> {
        match self.storage.read(position, values * T::SIZE) {
            Some(bytes) => bytes.chunks_exact(T::SIZE).map(T::get).collect(),
            None => vec![T::LOST; values],
        }
    }

    fn to_vec(&self) -> Vec<T> {
        let mut values = Vec::with_capacity(self.len());
        self.blocks.iter().for_each(|block| values.extend(self.read(*block)));
        values.extend_from_slice(&self.tail);
        values
    }

    /// Returns the values as a list; of a stored column, as a copy.
    pub fn values(&self) -> Cow<'_, [T]>
    where
        [T]: ToOwned<Owned = Vec<T>>,
    {
        match self.blocks.is_empty() {
            true => Cow::Borrowed(&self.tail),
            false => Cow::Owned(self.to_vec()),
        }
    }
}

impl ValueColumn<f64> {
    /// Loads the values. Of stored columns the last one stays loaded, because several statistics
    /// of a figure are computed one after another.
    pub fn load(&self) -> Figures<'_> {
        let ([(first, _), ..], [.., (end, _)], Some(shared)) =
            (&self.blocks[..], &self.blocks[..], &self.storage.0)
        else {
            return Figures(Kept::InMemory(&self.tail));
        };
        let key = (*first, *end, self.len());
        let mut last = shared.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, loaded)) = last.as_ref().filter(|(of, _)| *of == key) {
            return Figures(Kept::Loaded(loaded.clone()));
        }
        // Releases the other column first.
        *last = None;
        let loaded = Arc::new(Loaded { values: self.to_vec(), sorted: OnceLock::new() });
        *last = Some((key, loaded.clone()));
        Figures(Kept::Loaded(loaded))
    }
}

impl<T: ColumnEntry> Extend<T> for ValueColumn<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.push(value));
    }
}

/// A stored column in memory.
#[derive(Debug)]
struct Loaded {
    values: Vec<f64>,
    sorted: OnceLock<Vec<f64>>,
}

/// The values of a column, as a list.
#[derive(Debug, Clone)]
pub struct Figures<'a>(Kept<'a>);

#[derive(Debug, Clone)]
enum Kept<'a> {
    InMemory(&'a [f64]),
    Loaded(Arc<Loaded>),
}

impl Default for Figures<'_> {
    fn default() -> Self {
        Self(Kept::InMemory(&[]))
    }
}

impl Deref for Figures<'_> {
    type Target = [f64];

    fn deref(&self) -> &[f64] {
        match &self.0 {
            Kept::InMemory(values) => values,
            Kept::Loaded(loaded) => &loaded.values,
        }
    }
}

impl Figures<'_> {
    /// Computes a statistic. Those of a stored column share one sorted copy.
    pub fn statistic(&self, statistic: Statistic) -> Result<f64, Absent> {
        match (&self.0, statistic) {
            (Kept::Loaded(loaded), Statistic::Median | Statistic::Percentile(_)) => {
                let sorted = loaded.sorted.get_or_init(|| {
                    let mut sorted = loaded.values.clone();
                    sorted.sort_unstable_by(f64::total_cmp);
                    sorted
                });
                statistic.of_sorted(sorted)
            }
            _ => statistic.of(self),
        }
    }
}
