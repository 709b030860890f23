//! Sweeps: a workload at several loads, each of which is a separate workload.

use super::{
    keys::Section,
    reader::{Entry, Reader},
    trace::speed,
    workloads::rate,
    yaml::Yaml,
};

/// The most points of a sweep: each is a trial per model and run.
const MOST_POINTS: usize = 64;

/// The values of a key: one, or the points of a sweep.
pub(super) enum Points<T> {
    /// One value: not a sweep.
    One(T),
    /// Several values, in the order in which they are written.
    Sweep(Vec<T>),
}

impl<T> Points<T> {
    /// Returns the values, each with the end of the name that its workload gets.
    pub(super) fn named(self, suffix: impl Fn(&T) -> String) -> Vec<(String, T)> {
        match self {
            Self::One(value) => vec![(String::new(), value)],
            Self::Sweep(values) => {
                values.into_iter().map(|value| (suffix(&value), value)).collect()
            }
        }
    }
}

/// The numbers of requests in flight of `concurrency`: a number, a list or a range.
pub(super) fn concurrencies(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Points<usize>> {
    let number = |reader: &mut Reader<'_>, entry: &Entry<'_>| {
        reader.whole(entry).and_then(|whole| usize::try_from(whole).ok())
    };
    match &entry.value.value {
        Yaml::List(_) => list(reader, entry, number).map(Points::Sweep),
        Yaml::Map(_) => {
            let whole = |reader: &mut Reader<'_>, entry: &Entry<'_>| {
                number(reader, entry).map(|whole| whole as f64)
            };
            let points = range(reader, entry, Section::ConcurrencyRange, whole)?;
            let mut points: Vec<_> = points.iter().map(|point| point.round() as usize).collect();
            points.dedup();
            Some(Points::Sweep(points))
        }
        _ => number(reader, entry).map(Points::One),
    }
}

/// The arrivals per second of `rate`: a rate, a list or a range.
pub(super) fn rates(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Points<f64>> {
    match &entry.value.value {
        Yaml::List(_) => list(reader, entry, rate).map(Points::Sweep),
        Yaml::Map(_) => range(reader, entry, Section::RateRange, rate).map(Points::Sweep),
        _ => rate(reader, entry).map(Points::One),
    }
}

/// The speeds of `speed`: one or a list.
pub(super) fn speeds(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Points<f64>> {
    match &entry.value.value {
        Yaml::List(_) => list(reader, entry, speed).map(Points::Sweep),
        _ => speed(reader, entry).map(Points::One),
    }
}

/// A list of different values.
pub(super) fn list<T: PartialEq>(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    read: impl Fn(&mut Reader<'_>, &Entry<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let items = reader.list(entry, "a list", entry.example());
    let mut values: Vec<T> = Vec::new();
    let mut is_valid = true;
    for item in &items {
        match read(reader, item) {
            Some(value) if values.contains(&value) => {
                reader.error(item, format!("{} has this value twice", entry.label), "remove one");
                is_valid = false;
            }
            Some(value) => values.push(value),
            None => is_valid = false,
        }
    }
    if items.is_empty() {
        let help = format!("write one value or several: [{0}, …]", entry.example());
        reader.error(entry, format!("{} is an empty list", entry.label), help);
    }
    check_number(reader, entry, values.len())?;
    (is_valid && !values.is_empty()).then_some(values)
}

/// The values from `from` to `to`, each the one before times `factor`. The last one is `to`.
fn range(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    section: Section,
    read: impl Fn(&mut Reader<'_>, &Entry<'_>) -> Option<f64>,
) -> Option<Vec<f64>> {
    let fields = reader.fields(entry, section);
    let mut end = |name: &str| {
        let found = fields.get(name);
        if found.is_none() && fields.meant.is_empty() {
            let help = format!("for example {}", section.info().example);
            reader.error(entry, format!("{} has no `{name}`", entry.label), help);
        }
        read(reader, found?)
    };
    let (from, to) = (end("from"), end("to"));
    let factor = match fields.get("factor") {
        Some(factor) => reader.number(factor)?,
        None => 2.0,
    };
    let (from, to) = (from?, to?);
    if from >= to {
        let what = format!("the range of {} ends before it begins", entry.label);
        reader.error(entry, what, "`from` is the smaller end, `to` the larger one");
        return None;
    }
    let values = std::iter::successors(Some(from), |value| Some(value * factor));
    // A step that ends just before the end would be the end twice.
    let mut values: Vec<_> =
        values.take_while(|value| *value < to * 0.999).take(MOST_POINTS + 1).collect();
    values.push(to);
    check_number(reader, entry, values.len())?;
    Some(values)
}

pub(super) fn check_number(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    points: usize,
) -> Option<()> {
    if points > MOST_POINTS {
        let what = format!("{} has more than {MOST_POINTS} points", entry.label);
        reader.error(entry, what, "write fewer values, or a larger `factor`");
        return None;
    }
    Some(())
}
