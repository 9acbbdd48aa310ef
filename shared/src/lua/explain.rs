//! Names the missing value in an error of the VM, which knows only that there is none.

/// Words that are followed by a bracket without being called.
const KEYWORDS: [&str; 12] = [
    "and", "elseif", "for", "function", "if", "in", "not", "or", "return", "until", "while",
    "local",
];

/// A longer line is not searched.
const MAX_LINE: usize = 1_000;

/// The message, with the name of what is nil, if the line of the script shows it.
pub(super) fn named(message: String, source: &str) -> String {
    let line = line_of(&message).and_then(|number| source.lines().nth(number - 1));
    let Some(line) = line.filter(|line| line.len() <= MAX_LINE) else {
        return message;
    };
    let names = if let Some(key) = between(&message, "attempt to index nil with '", "'") {
        before_key(line, key)
    } else if message.ends_with("attempt to call a nil value") {
        called(line)
    } else {
        return message;
    };
    match &names[..] {
        [name] => format!("{message} ({name} is nil)"),
        _ => message,
    }
}

/// In `[string "..."]:3: ...`.
fn line_of(message: &str) -> Option<usize> {
    let (_, rest) = message.split_once("]:")?;
    let (number, _) = rest.split_once(':')?;
    number.parse().ok().filter(|number| *number > 0)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(inside, _)| inside)
}

/// Names that a field is looked up in.
fn before_key<'a>(line: &'a str, key: &str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for access in [
        format!(".{key}"),
        format!(":{key}"),
        format!("[\"{key}\"]"),
        format!("['{key}']"),
    ] {
        for (at, _) in line.match_indices(&access) {
            let rest = &line[at + access.len()..];
            let is_whole = access.ends_with(']') || !rest.starts_with(is_word);
            let name = name_before(&line[..at]);
            if is_whole && !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// Names before a bracket that are fields: what is global or local and called by its name is seldom nil.
fn called(line: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, _) in line.match_indices('(') {
        let name = name_before(line[..at].trim_end());
        if !name.is_empty() && !KEYWORDS.contains(&name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn name_before(text: &str) -> &str {
    let is_part = |char: char| is_word(char) || matches!(char, '.' | ':');
    let start = text.rfind(|char| !is_part(char));
    let start = start.map_or(0, |at| {
        at + text[at..].chars().next().map_or(1, char::len_utf8)
    });
    text[start..].trim_start_matches(['.', ':'])
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_value_is_named_if_there_is_one_candidate() {
        let source = "return function (data)\n  local a = data.entity.owner.name .. data.x\n\
                      \x20 return a['k'].b + c['k'].b\nend";
        for (line, message, want) in [
            (
                2,
                "attempt to index nil with 'name'",
                Some("data.entity.owner is nil"),
            ),
            (
                2,
                "attempt to index nil with 'owner'",
                Some("data.entity is nil"),
            ),
            (2, "attempt to index nil with 'nam'", None),
            (3, "attempt to index nil with 'k'", None),
            (9, "attempt to index nil with 'name'", None),
            (2, "something else", None),
        ] {
            let message = format!("[string \"return function (data)...\"]:{line}: {message}");
            let want = want.map_or(message.clone(), |want| format!("{message} ({want})"));
            assert_eq!(named(message, source), want);
        }
        let message = |call: &str| {
            named(
                "[string \"x\"]:1: attempt to call a nil value".to_owned(),
                call,
            )
        };
        assert!(message("kong.cache.get(1)").ends_with("(kong.cache.get is nil)"));
        assert!(message("if a(b(1)) then").ends_with("nil value"));
        assert!(message("if (x) then foo (1) end").ends_with("(foo is nil)"));
    }
}
