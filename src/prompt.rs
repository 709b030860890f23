//! The prompts: ten of our own, compiled in, and the user's by text, file or folder.

/// One prompt as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Its name in trial names and results.
    pub name: String,
    /// The user message.
    pub text: String,
    /// The system message.
    pub system: Option<String>,
}

impl Prompt {
    /// The prompt with `text` at the very front of what is sent, where a prefix cache looks first.
    pub fn begun_with(&self, text: &str) -> Self {
        let begun = |old: &str| format!("{text}{old}");
        match &self.system {
            Some(system) => Self { system: Some(begun(system)), ..self.clone() },
            None => Self { text: begun(&self.text), ..self.clone() },
        }
    }
}

/// The question that warms a model up before its first trial.
pub fn warm_up() -> Prompt {
    Prompt { name: "warm-up".into(), text: "Hello, how are you?".into(), system: None }
}

/// The built-in prompts, in their order.
pub fn built_in() -> Vec<Prompt> {
    BUILT_IN
        .iter()
        .map(|(name, text)| Prompt {
            name: (*name).into(),
            text: text.trim_end_matches('\n').into(),
            system: None,
        })
        .collect()
}

macro_rules! built_in {
    ($($number:literal - $name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../fixtures/prompts/", $number, "-", $name, ".txt")))),+]
    };
}

const BUILT_IN: &[(&str, &str)] = built_in![
    "01" - "chat-en",
    "02" - "chat-zh",
    "03" - "code",
    "04" - "code-review",
    "05" - "summary",
    "06" - "summary-zh",
    "07" - "translate",
    "08" - "json",
    "09" - "reasoning",
    "10" - "write-zh",
];
