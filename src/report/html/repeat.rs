//! What is needed to repeat the run: commands, config, environment.

use llm_stream_core::text::{counted, visible, visible_lines};
use maud::{Markup, html};

use super::page_run::{PageData, PageRun};
use crate::setup::{DataFile, ServerRecord, Setup};

/// Returns the section.
pub(super) fn section(page: &PageData<'_>) -> Markup {
    let run = page.main();
    let setup = run.report.setup.as_deref();
    html! {
        section #repeat {
            h2 { "How to repeat this" }
            p.lead {
                @match setup {
                    Some(setup) if setup.config.has_secrets =>
                        "The folder of the run holds its config with masked secrets: put them back before a repetition.",
                    Some(_) => "The folder of the run holds its config, command line and seed.",
                    None => "The run was stored by an earlier version, or made by code: its config and command line are not known.",
                }
            }
            div.rep {
                div {
                    h3 { "Repeat the run" }
                    (copied("command that repeats the run", &format!("llm-stream-bench rerun {}", quoted(&run.name))))
                    @if let Some(setup) = setup {
                        h3 { "The same by hand" }
                        (copied("command line", &command_line(setup)))
                    }
                    h3 { "Compare with another run" }
                    (copied("command that compares runs", &format!("llm-stream-bench compare {} latest", quoted(&run.name))))
                    h3 { "Environment" }
                    (environment(page, run, setup))
                }
                @if let Some(setup) = setup {
                    div {
                        h3 { (visible(&setup.config.file)) }
                        (copied("configuration", &visible_lines(&setup.config.text)))
                    }
                }
            }
        }
    }
}

/// Returns a text to which the script of the page adds a button that copies it.
fn copied(what: &str, text: &str) -> Markup {
    html! { div.copy data-what=(what) { pre tabindex="0" role="region" aria-label=(what) { code { (text) } } } }
}

/// Quotes an argument for a shell if it needs it.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%~".contains(c);
    let argument = visible(argument);
    match !argument.is_empty() && argument.chars().all(is_plain) {
        true => argument.into_owned(),
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    }
}

fn command_line(setup: &Setup) -> String {
    let variables = setup.variables.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
    let arguments = setup.arguments.iter().enumerate().map(|(index, argument)| {
        // The path of the program is of no use on another machine.
        let name = argument.rsplit(['/', '\\']).next().unwrap_or(argument);
        quoted(if index == 0 { name } else { argument })
    });
    variables.chain(arguments).collect::<Vec<_>>().join(" ")
}

fn row(name: &str, value: Markup) -> Markup {
    html! { tr { th scope="row" { (name) } td { (value) } } }
}

fn environment(page: &PageData<'_>, run: &PageRun<'_>, setup: Option<&Setup>) -> Markup {
    let report = run.report;
    html! {
        table.env {
            caption.vh { "Environment" }
            tbody {
                (row("Tool", html! {
                    (visible(&report.tool.name)) " " (visible(&report.tool.version)) ", definitions " (visible(&report.definitions))
                    @if let Some(built) = setup.and_then(|setup| setup.built_from.as_deref()) { ", built from " code { (visible(built)) } }
                }))
                (row("Client", html! { (visible(&report.machine)) }))
                @if let Some(setup) = setup { (from_setup(setup)) }
                @for server in setup.map(|setup| setup.servers.as_slice()).unwrap_or_default() { (server_row(server)) }
                (row("Models", models(page)))
                (row("Order", html! { (visible(&report.order)) }))
                @for other in page.runs.iter().skip(1) {
                    (row("Next to it", html! { (visible(&other.name)) ": " (visible(&other.report.machine)) ", " (visible(&other.report.tool.version)) }))
                }
            }
        }
    }
}

fn from_setup(setup: &Setup) -> Markup {
    let host = &setup.host;
    let variables: Vec<_> =
        setup.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    html! {
        @if let Some(name) = &host.name {
            (row("Host", html! { (visible(name)) @if let Some(memory) = host.memory { ", " (gibibytes(memory)) " of memory" } }))
        }
        @if let Some(kernel) = &host.kernel { (row("System", html! { (visible(&host.system)) ", kernel " (visible(kernel)) })) }
        (row("Time", html! {
            (setup.started.strftime("%Y-%m-%d %H:%M:%S")) " to "
            @match setup.ended { Some(ended) => { (ended.strftime("%H:%M:%S")) " UTC" } None => "–: the run was ended from outside" }
        }))
        @if let Some(git) = &setup.git {
            (row("Revision", html! { code { (visible(&git.commit)) } @if git.is_modified { ", with changes" } }))
        }
        (row("Variables", html! {
            @if variables.is_empty() { "no " code { "LLM_STREAM_BENCH_*" } " variable set" } @else { code { (visible(&variables.join(" "))) } }
        }))
        (row("Secrets", html! {
            @if setup.config.has_secrets { "masked in the config: they read " code { "***" } } @else { "none in the config" }
        }))
        @for file in &setup.config.data { (data_row(file)) }
    }
}

fn data_row(file: &DataFile) -> Markup {
    row(
        "File",
        html! {
            code { (visible(&file.path)) }
            @if let Some(bytes) = file.bytes { ", " (counted(usize::try_from(bytes).unwrap_or(usize::MAX), "byte")) }
            @match &file.sha256 { Some(digest) => { ", SHA-256 " code { (visible(digest)) } } None => ", which could not be read again" }
        },
    )
}

fn server_row(server: &ServerRecord) -> Markup {
    let lists: Vec<_> =
        server.lists.iter().take(8).map(|model| visible(model).into_owned()).collect();
    row(
        "Server",
        html! {
            code { (visible(&server.endpoint)) }
            @if let Some(software) = &server.software { ", " (visible(software)) }
            @if let Some(version) = &server.version { ", version " (visible(version)) }
            @if !lists.is_empty() { ", serves " (lists.join(", ")) }
        },
    )
}

fn models(page: &PageData<'_>) -> Markup {
    let mut seen: Vec<&str> = Vec::new();
    let groups: Vec<_> = page
        .groups(0)
        .filter(|group| {
            let is_new = !seen.contains(&&*group.report.model);
            seen.push(&group.report.model);
            is_new
        })
        .collect();
    html! {
        @for (index, group) in groups.iter().take(40).enumerate() {
            @if index > 0 { br; }
            (page.key(group).named()) ": " code { (visible(&group.report.model_name)) }
            @if group.report.simulated { ", simulated" } @else { " at " code { (visible(&group.report.endpoint)) } }
            ", " (group.report.protocol) ", transport " code { (group.report.transport) } ", " (group.report.connection) " connection"
        }
    }
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1}\u{202f}GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_for_a_shell() {
        assert_eq!(quoted("--config=a.yaml"), "--config=a.yaml");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("a\nb"), r"'a\nb'");
    }
}
