//! Texts in which `${NAME}` stands for an environment variable.

use std::{env::VarError, fmt};

use serde_saphyr::Spanned;

use super::{Config, ConfigError, secrets};
use crate::env;

/// A text of the config that may hold `${NAME}`. It is not shown: the value may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvTemplate(Spanned<String>);

impl fmt::Debug for EnvTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnvTemplate(…)")
    }
}

/// A template with the values of its variables.
#[derive(Clone, Default)]
pub struct Expanded {
    /// All of it.
    pub text: String,
    /// The values.
    pub values: Vec<String>,
}

/// A part of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

impl EnvTemplate {
    /// Parses `text`; an error is the byte of a `${` without a variable name.
    pub(super) fn new(text: Spanned<String>) -> Result<Self, usize> {
        match pieces(&text.value) {
            Ok(_) => Ok(Self(text)),
            Err(offset) => Err(offset),
        }
    }

    /// Where it is written.
    pub fn at(&self) -> &Spanned<String> {
        &self.0
    }

    /// The text, if it has no variables.
    pub fn plain(&self) -> Option<&str> {
        let has_variable = self.pieces().any(|piece| matches!(piece, Piece::Variable(_)));
        (!has_variable).then_some(self.0.value.as_str())
    }

    /// The text with `value` in place of each variable.
    pub(super) fn with(&self, value: &str) -> String {
        let text = |piece| match piece {
            Piece::Text(text) => text,
            Piece::Variable(_) => value,
        };
        self.pieces().map(text).collect()
    }

    /// The names of its variables.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.pieces().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Variable(name) => Some(name),
        })
    }

    fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        pieces(&self.0.value).unwrap_or_default().into_iter()
    }
}

impl Config {
    /// `template` with the values of its variables. `escape` gets the text before a value, and
    /// returns the form of the value there.
    pub fn expand(
        &self,
        template: &EnvTemplate,
        escape: impl Fn(&str, String) -> String,
    ) -> Result<Expanded, ConfigError> {
        let mut expanded = Expanded::default();
        for piece in template.pieces() {
            match piece {
                Piece::Text(text) => expanded.text.push_str(text),
                Piece::Variable(name) => {
                    let value = self.variable(template, name)?;
                    let escaped = escape(&expanded.text, value.clone());
                    expanded.text.push_str(&escaped);
                    expanded.values.extend([value, escaped]);
                }
            }
        }
        Ok(expanded)
    }

    fn variable(&self, template: &EnvTemplate, name: &str) -> Result<String, ConfigError> {
        let what = match env::variable(name) {
            Ok(value) if value.trim().is_empty() => "is empty",
            Ok(value) if !value.trim().contains(char::is_control) => {
                return Ok(value.trim().to_owned());
            }
            Err(VarError::NotPresent) => "is not set",
            Ok(_) | Err(VarError::NotUnicode(_)) => "is not one line of text",
        };
        let what = format!("the environment variable `{name}` {what}");
        let help = format!("set it: `export {name}=…`");
        Err(self.error_in(&template.0, &what, &help))
    }
}

/// The parts of `text`; an error is the byte of a `${` without a variable name.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, usize> {
    let mut pieces = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].find("${").map(|at| from + at) {
        let name = text[start + 2..].split_once('}').map(|(name, _)| name);
        let name = name.filter(|name| secrets::is_variable(name)).ok_or(start)?;
        pieces.extend([Piece::Text(&text[from..start]), Piece::Variable(name)]);
        from = start + "${}".len() + name.len();
    }
    pieces.push(Piece::Text(&text[from..]));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_and_what_is_none_is_told() {
        use Piece::{Text, Variable};
        assert_eq!(pieces("a"), Ok(vec![Text("a")]));
        assert_eq!(
            pieces("x ${A}${B_1}, $C"),
            Ok(vec![Text("x "), Variable("A"), Text(""), Variable("B_1"), Text(", $C")])
        );
        assert_eq!(pieces("ab${"), Err(2));
        assert_eq!(pieces("${A}${}"), Err(4));
        assert_eq!(pieces("${a-b}"), Err(0));
    }
}
