//! Decides by the name of a header or query parameter whether its value is a secret.

/// Whether the header or query parameter `name` holds a secret, as `x-api-key-2`, `sessionToken` and
/// `clientsecret` do.
pub fn is_secret_header(name: &str) -> bool {
    /// First or last words of names that describe a secret and hold none: `max-token`,
    /// `signature-version`.
    const ABOUT: &[&str] =
        &["algorithm", "budget", "count", "limit", "max", "min", "type", "usage", "version"];
    let words = words_of_name(name);
    let is_about = |word: Option<&String>| word.is_some_and(|word| ABOUT.contains(&word.as_str()));
    // Azure Functions call a key `code`.
    let is_code = words.len() == 1 && words[0] == "code";
    is_code
        || !(is_about(words.first()) || is_about(words.last()))
            && words.iter().any(|word| is_secret_word(word))
}

/// Whether a word in a name marks the value as a secret.
pub(crate) fn is_secret_word(word: &str) -> bool {
    const WORDS: &[&str] = &[
        "assertion",
        "creds",
        "hmac",
        "key",
        "keys",
        "otp",
        "pass",
        "passcode",
        "passphrase",
        "pat",
        "sas",
        "sig",
    ];
    /// Endings of compound words: `sessiontoken`, `basicauth`.
    const ENDS: &[&str] = &[
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "cookies",
        "jwt",
        "passwd",
        "password",
        "pwd",
        "signature",
        "token",
    ];
    const PARTS: &[&str] = &["accesskey", "apikey", "credential", "privatekey", "secret"];
    /// Words that end with `key` and mean something else.
    const NO_KEYS: &[&str] =
        &["donkey", "hockey", "hotkey", "jockey", "monkey", "turkey", "turnkey", "whiskey"];
    let word = word.trim_end_matches(|ch: char| ch.is_ascii_digit());
    let is_key = (word.ends_with("key") || word.ends_with("keys")) && !NO_KEYS.contains(&word);
    is_key
        || WORDS.contains(&word)
        || ENDS.iter().any(|end| word.ends_with(end))
        || PARTS.iter().any(|part| word.contains(part))
}

/// Splits a name at punctuation and camel-case humps; returns the words in lower case.
pub(crate) fn words_of_name(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.chars().collect();
    let mut words = vec![String::new()];
    for (at, &letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| letters[before]);
        let is_next_lower = letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
        let is_hump = letter.is_ascii_uppercase()
            && before.is_some_and(|it| !it.is_ascii_uppercase() || is_next_lower);
        if !letter.is_ascii_alphanumeric() || is_hump {
            words.push(String::new());
        }
        if let (true, Some(word)) = (letter.is_ascii_alphanumeric(), words.last_mut()) {
            word.push(letter.to_ascii_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
