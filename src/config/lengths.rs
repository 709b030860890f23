//! `input_tokens` and `output_tokens`: a number, a range with a distribution, or the points of a sweep.

use llm_stream_core::lengths::{LengthDistribution, LengthRange};

use super::{
    keys::Section,
    reader::{Entry, Fields, Reader},
    sweep::{self, Points},
    words::DISTRIBUTIONS,
    yaml::Yaml,
};

/// The end of a name for the points of a sweep over `input_tokens`.
pub(super) const INPUT: &str = "@i";

/// The end of a name for the points of a sweep over `output_tokens`.
pub(super) const OUTPUT: &str = "@o";

/// The shape of a distribution that needs a mean and a standard deviation.
pub(super) type MakeDistribution = fn(u64, u64) -> LengthDistribution;

/// Reads a length: a number, or a range.
pub(super) fn length(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<LengthRange> {
    match entry.value.value {
        Yaml::Map(_) => {
            range(reader, entry, (Section::TokenRange, |reader, end| reader.whole(end)))
        }
        _ => reader.whole(entry).map(LengthRange::fixed),
    }
}

/// Reads a length, or a list of numbers: a sweep, with the end of the name of each point.
pub(super) fn swept(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    suffix: &str,
) -> Option<Vec<(String, LengthRange)>> {
    let points = match &entry.value.value {
        Yaml::List(_) => {
            let number = |reader: &mut Reader<'_>, item: &Entry<'_>| reader.whole(item);
            let values = sweep::list(reader, entry, number)?;
            Points::Sweep(values.into_iter().map(LengthRange::fixed).collect())
        }
        _ => Points::One(length(reader, entry)?),
    };
    Some(points.named(|point| format!("{suffix}{point}")))
}

/// The values of a sweep, each with the end of its name.
type NamedPoints<T> = Vec<(String, T)>;

/// Returns every combination of two sweeps, with the ends of both names.
pub(super) fn combined<A: Clone, B: Clone>(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    (first, second): (NamedPoints<A>, NamedPoints<B>),
) -> Option<Vec<(String, (A, B))>> {
    sweep::check_number(reader, entry, first.len() * second.len())?;
    let pairs = first.into_iter().flat_map(|(name, a)| {
        second.clone().into_iter().map(move |(end, b)| (format!("{name}{end}"), (a.clone(), b)))
    });
    Some(pairs.collect())
}

/// Reads an end of a range.
pub(super) type EndReader = fn(&mut Reader<'_>, &Entry<'_>) -> Option<u64>;

/// Reads a range with the keys of `section`, whose values `read` reads.
pub(super) fn range(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    (section, read): (Section, EndReader),
) -> Option<LengthRange> {
    let fields = reader.fields(entry, section);
    let mut end = |name| {
        let found = fields.get(name);
        if found.is_none() && fields.meant.is_empty() {
            let help = format!("for example `{}{}`", entry.lead, section.info().example);
            reader.error(entry, format!("{} has no `{name}`", entry.label), help);
        }
        read(reader, found?)
    };
    let (least, most) = (end("min"), end("max"));
    let distribution = distribution(reader, entry, (&fields, read));
    let (least, most, distribution) = (least?, most?, distribution?);
    if least > most {
        let max = fields.get("max").map(|max| reader.written(max)).unwrap_or_default();
        let what = format!("`min` is more than `max`, which is {max}");
        reader.error(entry, what, "write the smaller number first");
        return None;
    }
    let mean = match distribution {
        LengthDistribution::Uniform => None,
        LengthDistribution::Normal { mean, .. } | LengthDistribution::LogNormal { mean, .. } => {
            Some(mean)
        }
    };
    if let Some(mean) = mean.filter(|mean| !(least..=most).contains(mean)) {
        let mean = fields.get("mean").map_or_else(|| mean.to_string(), |mean| reader.written(mean));
        let what = format!("`mean` is {mean}, which is not from `min` to `max`");
        reader.error(entry, what, "choose bounds on both sides of it");
        return None;
    }
    Some(LengthRange { least, most, distribution })
}

/// Reads `distribution` with its `mean` and `sd`.
fn distribution(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    (fields, read): (&Fields<'_>, EndReader),
) -> Option<LengthDistribution> {
    let make = match fields.get("distribution") {
        Some(entry) => reader.word(entry, &DISTRIBUTIONS)?,
        None => None,
    };
    let Some(make) = make else {
        for key in ["mean", "sd"] {
            if let Some(entry) = fields.get(key) {
                let what = format!("`{key}` is for `distribution: normal` and `lognormal`");
                reader.error_at_key(entry, what, "add the distribution, or remove it");
                return None;
            }
        }
        return Some(LengthDistribution::Uniform);
    };
    let mut parameter = |name| {
        let found = fields.get(name);
        if found.is_none() && fields.meant.is_empty() {
            let help = "a normal or log-normal distribution has `mean` and `sd`";
            reader.error(entry, format!("{} has no `{name}`", entry.label), help);
        }
        read(reader, found?)
    };
    let (mean, sd) = (parameter("mean"), parameter("sd"));
    Some(make(mean?, sd?))
}
