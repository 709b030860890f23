//! The messages of the YAML parser in the words of this program.

const TAG: &str = "this value is not of the type that its tag states";
const TAG_HELP: &str = "remove the tag: `1.0` instead of `!!int 1.0`";

/// A part of the parser's message → our message and a hint.
const SYNTAX: &[(&str, &str, &str)] = &[
    (
        "mapping values are not allowed",
        "this colon cannot be here",
        "put a text with a colon in quotes, a space after each key's colon,\nand the keys of one map at the same indentation",
    ),
    (
        "simple key expected",
        "a colon is missing after this key",
        "a key is followed by a colon and a space: `port: 8000`",
    ),
    ("tabs disallowed", "there is a tab in the indentation", "YAML is indented with spaces only"),
    ("unclosed quote", "this quote is not closed", "end the text with the same quote"),
    ("unclosed bracket", "this bracket is not closed", "end the list with `]`, the map with `}`"),
    (
        "did not find expected key",
        "this line is not at the indentation of the lines around it",
        "give the keys of one map the same indentation",
    ),
    (
        "did not find expected '-'",
        "this line is not an item of the list above it",
        "begin each item with `- `, or indent the line more to continue the item",
    ),
    (
        "did not find expected ','",
        "a comma or a closing bracket is missing before this",
        "end the list with `]`, the map with `}`, and put a text with a colon in quotes",
    ),
    (
        "unknown escape",
        "there is an unknown escape in this text",
        "in double quotes write `\\\\` for a backslash, or use single quotes",
    ),
    ("unexpected character", "a value cannot begin with this character", "put the value in quotes"),
    (
        "unknown value",
        "this anchor is not defined",
        "define it above with `&name`, or put a text that begins with `*` in quotes",
    ),
    (
        "only single YAML document",
        "there is a second document in this file",
        "remove the line `---`",
    ),
    (
        "merge value must be",
        "`<<` merges maps only",
        "write `<<: *name`, where `&name` is before a map",
    ),
    ("invalid u64", TAG, TAG_HELP),
    ("invalid i64", TAG, TAG_HELP),
    ("invalid floating point", TAG, TAG_HELP),
    ("invalid bool", TAG, TAG_HELP),
    ("ecursive reference", "this alias is inside its own anchor", "write the value out"),
];

/// The message and the hint for a message of the YAML parser.
pub(super) fn explain(message: &str) -> (String, String) {
    let known = SYNTAX.iter().find(|(theirs, ..)| message.contains(theirs));
    match known {
        Some((_, what, help)) => ((*what).to_owned(), (*help).to_owned()),
        None => (
            format!("this is not YAML: {message}"),
            "check quotes, colons and indentation here and in the line above".to_owned(),
        ),
    }
}
