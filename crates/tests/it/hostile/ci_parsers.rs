//! The parsers of CI systems for commands in the output of a step, as ports.

/// Commands that the runner of GitHub Actions knows.
const COMMANDS: [&str; 16] = [
    "internal-set-repo-path",
    "set-env",
    "set-output",
    "save-state",
    "add-path",
    "add-mask",
    "add-matcher",
    "remove-matcher",
    "debug",
    "warning",
    "error",
    "notice",
    "group",
    "endgroup",
    "echo",
    "stop-commands",
];

/// A command with its properties and data, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CiCommand {
    pub(super) name: String,
    pub(super) properties: String,
    pub(super) data: String,
}

/// The lines of an output as the runner's process reader splits them.
pub(super) fn lines(output: &str) -> impl Iterator<Item = &str> {
    output.split(['\n', '\r'])
}

/// `ActionCommand.TryParseV2`: `::name properties::data` behind blanks.
fn github_v2(line: &str) -> Option<CiCommand> {
    let rest = line.trim_start().strip_prefix("::")?;
    let (info, data) = rest.split_once("::")?;
    known(info, data)
}

/// `ActionCommand.TryParse`: `##[name properties]data` anywhere.
fn github_v1(line: &str) -> Option<CiCommand> {
    let (_, rest) = line.split_once("##[")?;
    let (info, data) = rest.split_once(']')?;
    known(info, data)
}

fn known(info: &str, data: &str) -> Option<CiCommand> {
    let (name, properties) = info.split_once(' ').unwrap_or((info, ""));
    COMMANDS.contains(&name).then(|| CiCommand {
        name: name.to_owned(),
        properties: properties.to_owned(),
        data: data.to_owned(),
    })
}

/// `ActionCommandManager.TryProcessCommand`. The runner compares texts by the rules of a language,
/// which ignore characters without width.
pub(super) fn github(line: &str) -> Option<CiCommand> {
    let ignored = |ch: &char| {
        let is_control = ch.is_control() && *ch != '\t';
        let is_without_width = matches!(ch, '\u{ad}' | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}');
        !is_control && !is_without_width
    };
    let line: String = line.chars().filter(ignored).collect();
    github_v2(&line).or_else(|| github_v1(&line))
}

/// `Command.TryParse` of the Azure Pipelines agent (`##vso[area.event]`), its formats
/// (`##[section]`), and TeamCity's messages.
pub(super) fn is_azure_or_teamcity(line: &str) -> bool {
    let lower = line.to_lowercase();
    ["##vso[", "##[", "##teamcity["].iter().any(|start| lower.contains(start))
}

/// The section markers of GitLab's trace parser: `section_start:TIME:NAME` and `section_end`, then
/// a carriage return and `ESC[0K`.
pub(super) fn has_gitlab_section(output: &str) -> bool {
    ["section_start:", "section_end:"].iter().any(|start| {
        output
            .match_indices(start)
            .any(|(at, _)| output[at + start.len()..].starts_with(|ch: char| ch.is_ascii_digit()))
    })
}

#[test]
fn the_parsers_find_commands() {
    let command = |name: &str, properties: &str, data: &str| CiCommand {
        name: name.to_owned(),
        properties: properties.to_owned(),
        data: data.to_owned(),
    };
    assert_eq!(github("\u{3000} ::error title=a::b"), Some(command("error", "title=a", "b")));
    assert_eq!(github("x ##[add-mask]y"), Some(command("add-mask", "", "y")));
    assert_eq!(github("#\u{200b}#[group]y"), Some(command("group", "", "y")));
    for line in ["x ::error::y", "::unknown::y", "##[unknown]y", "::error", r"##\u{5b}error]x"] {
        assert_eq!(github(line), None, "{line}");
    }
    assert_eq!(lines("a\r::error::x").filter_map(github).count(), 1);
    assert!(is_azure_or_teamcity("x ##VSO[task.complete]"));
    assert!(has_gitlab_section("x section_start:1:a"));
    assert!(!has_gitlab_section(r"section_start\u{3a}1:a"));
}
