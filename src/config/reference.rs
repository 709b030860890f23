//! The reference of `configs.yaml` as Markdown, from the table of keys.

use std::fmt::Write as _;

use super::{
    keys::{Key, SECTIONS, Section, SectionInfo, ValueShape},
    schema::default_of,
    suggest::{any_of, list, one_of_these},
};

/// The keys of each section as Markdown tables.
pub fn reference() -> String {
    let sections = SECTIONS.iter().filter(|info| info.section != Section::Defaults);
    sections.map(section).collect::<Vec<_>>().join("\n")
}

fn section(info: &SectionInfo) -> String {
    let mut text = format!("### {}\n\n", info.title);
    text += "| key | value | default | meaning |\n|---|---|---|---|\n";
    for key in info.section.keys() {
        let (value, default) = (value(key), default(info, key));
        let _ = writeln!(text, "| `{}` | {value} | {default} | {} |", key.name, key.help);
    }
    let rules = rules(info);
    if !rules.is_empty() {
        let _ = writeln!(text, "\n{}", rules.join("\n"));
    }
    text
}

/// The rules for several keys of a section, a line each.
fn rules(info: &SectionInfo) -> Vec<String> {
    let choices = info.one_of.iter().filter(|group| group.len() > 1);
    let choices = choices.map(|group| format!("- Exactly one of {} is required.", list(group)));
    let some =
        info.some_of.iter().map(|group| format!("- At least one of {} is required.", list(group)));
    let with = info.only_with.iter();
    let with = with.map(|(key, other)| format!("- `{key}` requires `{other}`."));
    let extra = match info.section {
        Section::Top => {
            vec!["- A key that starts with `x-` is ignored: a place for YAML anchors.".into()]
        }
        Section::Model => vec![defaults()],
        _ => Vec::new(),
    };
    choices.chain(some).chain(with).chain(extra).collect()
}

/// The difference between a model and `defaults`.
fn defaults() -> String {
    let own = Section::Model.names().into_iter();
    let own: Vec<_> = own.filter(|name| Section::Defaults.key(name).is_none()).collect();
    format!("- `defaults` may have every key of a model except {}.", list(&own))
}

fn default(info: &SectionInfo, key: &Key) -> String {
    let is_required = info.one_of.contains(&[key.name].as_slice());
    match default_of(key) {
        Some(_) => format!("`{}`", key.default),
        None if is_required => "required".to_owned(),
        None => key.default.to_owned(),
    }
}

/// The values of `key`.
fn value(key: &Key) -> String {
    match key.shape {
        ValueShape::Duration { .. } | ValueShape::Form { .. } => {
            format!("{}, such as `{}`", describe(&key.shape), key.example)
        }
        _ => describe(&key.shape),
    }
}

fn describe(shape: &ValueShape) -> String {
    match shape {
        ValueShape::Text => "text".to_owned(),
        ValueShape::Flag => "`true` or `false`".to_owned(),
        ValueShape::Only(value) => format!("`{value}`"),
        ValueShape::Null => "`null`".to_owned(),
        ValueShape::Whole(low, u64::MAX) => format!("whole number from {low}"),
        ValueShape::Whole(low, high) => format!("whole number from {low} to {high}"),
        ValueShape::Number(low, high) => format!("number from {low} to {high}"),
        ValueShape::Duration { .. } => "duration".to_owned(),
        ValueShape::Words(words) => one_of_these(&words()),
        ValueShape::Form { form, .. } => (*form).to_owned(),
        ValueShape::Fields => "map".to_owned(),
        ValueShape::Texts => "map of texts".to_owned(),
        ValueShape::Figures(value) => {
            format!("map from names of [metrics](metrics.md#metrics) to {}", describe(value))
        }
        ValueShape::Weights => "map from names of prompts to numbers".to_owned(),
        ValueShape::Pair(words) => format!("map from a name to {}", one_of_these(&words())),
        ValueShape::Map(section) => link(*section),
        ValueShape::Named(section) => format!("map from names to {}", link(*section)),
        ValueShape::List(item) | ValueShape::Some(item) => format!("list of {}", describe(item)),
        ValueShape::Any(shapes) => {
            let choices: Vec<_> = shapes.iter().flat_map(choices).collect();
            any_of(&choices.iter().map(String::as_str).collect::<Vec<_>>())
        }
    }
}

/// The choices that `shape` is in a list of choices.
fn choices(shape: &ValueShape) -> Vec<String> {
    match shape {
        ValueShape::Words(words) => words().iter().map(|word| format!("`{word}`")).collect(),
        shape => vec![describe(shape)],
    }
}

/// The section's title with a link to its table.
fn link(section: Section) -> String {
    let title = section.info().title.to_lowercase();
    let target = match section {
        Section::Defaults => "model".to_owned(),
        _ => title.replace(' ', "-"),
    };
    format!("[{title}](#{target})")
}
