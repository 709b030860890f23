//! The letters and colours of models.

use llm_stream_core::text::visible;
use maud::{Markup, html};

/// The number of colours; further models use them again.
pub(super) const COLOURS: usize = 7;

/// A model in the charts: a letter and a colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelKey {
    /// A, B, …, Z, AA, AB, …
    pub(super) letter: String,
    /// The model's name in the results.
    pub(super) model: String,
    /// The name on the page: with visible characters only, without the suffix of simulated models.
    pub(super) name: String,
    /// Whether its figures are those of a script.
    pub(super) simulated: bool,
    /// Whether the page has other models: a single one has no letter.
    pub(super) is_one_of_several: bool,
    /// Its position.
    pub(super) index: usize,
}

impl ModelKey {
    /// Returns the key of the model at a position.
    pub(super) fn new(index: usize, name: &str, simulated: bool, is_one_of_several: bool) -> Self {
        let (letter, model) = (letter(index), name.to_owned());
        // The tag next to the name says it.
        let short = name.strip_suffix("-simulated").filter(|short| simulated && !short.is_empty());
        let name = visible(short.unwrap_or(name)).into_owned();
        Self { letter, model, name, simulated, is_one_of_several, index }
    }

    /// Returns the letter in a circle; nothing for a single model.
    pub(super) fn badge(&self) -> Markup {
        html! {
            @if self.is_one_of_several {
                b.k data-m=(self.letter) { (self.letter) } " "
            }
        }
    }

    /// Returns the letter and the name.
    pub(super) fn named(&self) -> Markup {
        html! { (self.badge()) (self.name) }
    }

    /// Returns the letter, the name, and whether the model is simulated.
    pub(super) fn tagged(&self) -> Markup {
        html! {
            (self.named())
            @if self.simulated { " " i.tag { "simulated" } }
        }
    }
}

/// Returns A to Z, then AA, AB, ….
fn letter(index: usize) -> String {
    let ch = |index: usize| char::from(b'A' + (index % 26) as u8);
    match index {
        0..26 => ch(index).to_string(),
        _ => letter(index / 26 - 1) + &ch(index).to_string(),
    }
}

/// Returns the style rules that give each letter its colour.
pub(super) fn colour_rules(keys: &[ModelKey]) -> String {
    let rule = |key: &ModelKey| {
        format!("[data-m={}]{{--m:var(--c{})}}", key.letter, key.index % COLOURS + 1)
    };
    keys.iter().map(rule).collect()
}

/// Returns the list of models above charts. The page's script makes a button of each.
pub(super) fn legend<'k>(keys: impl IntoIterator<Item = &'k ModelKey>) -> Markup {
    let keys: Vec<_> = keys.into_iter().filter(|key| key.is_one_of_several).collect();
    html! {
        @if keys.len() > 1 {
            ul.keys {
                @for key in keys {
                    li data-key=(key.letter) {
                        b.k data-m=(key.letter) { (key.letter) }
                        span { (key.name) @if key.simulated { " " i.tag { "simulated" } } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_go_on_after_z() {
        assert_eq!(
            [0, 25, 26, 27, 51, 52, 701, 702].map(letter),
            ["A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]
        );
    }

    #[test]
    fn colours_repeat_after_seven() {
        let keys = [0, 7].map(|index| ModelKey::new(index, "m", false, true));
        assert_eq!(colour_rules(&keys), "[data-m=A]{--m:var(--c1)}[data-m=H]{--m:var(--c1)}");
    }
}
