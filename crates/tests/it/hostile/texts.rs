//! Hostile texts.

/// The index of the plain text.
pub(super) const PLAIN: usize = 0;

/// The texts: parts of commands, escapes and markup behind what may put them at a line's start.
pub(super) fn texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "plain",
        "##[error]owned",
        "a ##[stop-commands]token",
        "a ###[add-mask]e",
        "::error::owned",
        "\n::stop-commands::token",
        "a\r\n \t::set-env name=PATH::x",
        "a\r::add-mask::e",
        "a\u{85}::error::b\u{2028}::error::c\u{2029}::error::d\u{b}::error::e\u{c}::error::f",
        "%0A::error::x%0D%0A::add-mask::e",
        "#\u{200b}#[error]x #\u{200d}#\u{fe0f}[error]y \u{feff}::error::z",
        "\u{3000}\u{a0}::error::owned",
        "\u{ad}::error::x :\u{200b}:error:\u{2060}:x",
        "##vso[task.complete result=Succeeded;]done ##VSO[task.setvariable variable=a]b",
        "##teamcity[buildStatus status='SUCCESS']",
        "section_start:1:a\r\u{1b}[0Khidden section_end:1:a\r\u{1b}[0K",
        "\u{1b}[31mred\u{1b}[0m\u{1b}[2J\u{1b}]8;;http://x.example\u{7}link\u{1b}]8;;\u{7}",
        "\u{9b}31mred\u{90}x\u{9c}",
        "a\0b\u{7f}\u{8}\u{8}c",
        "\u{202e}txet\u{202c} \u{2066}x\u{2069} \u{200f}\u{61c}",
        "](http://x.example) ![i](http://x.example) <img src=http://x.example> <script>x</script>",
        "@someone #1 https://x.example | a | b \\| c \\\\| d |\n| --- |\n# head",
        "`` ` ``` </code></pre> &lt;b&gt; ]]> <![CDATA[ &#27; <x a='\">",
        "=cmd|' /C calc'!A0",
        "+1+1\n=2+2",
        "\",\"x\":1,\"success\":true,'",
        "'; true; $(true) `true` ${PATH} %PATH%",
    ]
    .map(str::to_owned)
    .into();
    // A wrap or a cell of a table may put a command at the start of a line.
    texts.extend(
        [40, 60, 70, 75].map(|width| format!("{}::error::wrapped", "word ".repeat(width / 5))),
    );
    texts.push("y".repeat(60_000));
    texts.push(format!("{}##[error]z", "z ".repeat(30_000)));
    texts
}
