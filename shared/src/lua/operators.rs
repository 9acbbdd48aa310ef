//! Bounds on a script's operators. The interrupt fires at calls and at the ends of loops, not between operators, and
//! one of them may join, compare or parse texts of megabytes. So a script has few of each kind; what repeats them is
//! a loop or a call.

use super::Error;

/// In one script. Joining or comparing the longest texts takes 0.1 s then, reading them as numbers 3 s.
const MOST_JOINS: usize = 256;
const MOST_COMPARISONS: usize = 256;
const MOST_ARITHMETIC: usize = 128;

#[derive(Default)]
struct Counts {
    /// `..`
    joins: usize,
    /// `<`, `<=`, `>` and `>=`; `==` compares addresses.
    comparisons: usize,
    /// Those that make a number of a text.
    arithmetic: usize,
}

pub(super) fn check(source: &str) -> Result<(), Error> {
    let counts = count(source.as_bytes());
    for (count, most, kind) in [
        (counts.joins, MOST_JOINS, "`..`"),
        (
            counts.comparisons,
            MOST_COMPARISONS,
            "`<`, `<=`, `>` and `>=`",
        ),
        (counts.arithmetic, MOST_ARITHMETIC, "arithmetic operators"),
    ] {
        if count > most {
            return Err(Error::Script(format!(
                "the script has {count} {kind}, and at most {most} are allowed; use a loop or table.concat"
            )));
        }
    }
    Ok(())
}

/// Reads tokens as Luau does. Where it errs, it counts too much.
fn count(source: &[u8]) -> Counts {
    let mut counts = Counts::default();
    let mut rest = source;
    // Whether a value ends before this place, so that `-` is no sign.
    let mut after_value = false;
    while let Some(&first) = rest.first() {
        let at = |index: usize| rest.get(index).copied().unwrap_or_default();
        let length = match first {
            b'-' if at(1) == b'-' => comment(rest),
            b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c => 1,
            b'"' | b'\'' => text(rest, first),
            b'[' if long_bracket(rest).is_some() => long_bracket(rest).unwrap_or(1),
            b'.' if at(1) == b'.' && at(2) == b'.' => 3,
            b'.' if at(1) == b'.' => {
                counts.joins += 1;
                2
            }
            b'.' if at(1).is_ascii_digit() => number(rest),
            b'0'..=b'9' => number(rest),
            b'<' | b'>' => {
                counts.comparisons += 1;
                if at(1) == b'=' { 2 } else { 1 }
            }
            b'-' if !after_value && at(1).is_ascii_digit() => 1,
            b'+' | b'-' | b'*' | b'/' | b'%' | b'^' => {
                counts.arithmetic += 1;
                if first == b'/' && at(1) == b'/' { 2 } else { 1 }
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => rest
                .iter()
                .take_while(|byte| **byte == b'_' || byte.is_ascii_alphanumeric() || **byte >= 0x80)
                .count(),
            _ => 1,
        };
        let is_space = first.is_ascii_whitespace() || (first == b'-' && at(1) == b'-');
        if !is_space {
            let word = &rest[..length.min(rest.len())];
            after_value = match first {
                b'"' | b'\'' | b')' | b']' | b'}' | b'`' | b'0'..=b'9' => true,
                b'[' | b'.' => length > 2,
                b'_' | b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => !matches!(
                    word,
                    b"return"
                        | b"and"
                        | b"or"
                        | b"not"
                        | b"in"
                        | b"if"
                        | b"then"
                        | b"else"
                        | b"elseif"
                        | b"while"
                        | b"until"
                        | b"do"
                ),
                _ => false,
            };
        }
        rest = &rest[length.clamp(1, rest.len())..];
    }
    counts
}

fn comment(text: &[u8]) -> usize {
    match long_bracket(&text[2..]) {
        Some(length) => 2 + length,
        None => text.iter().take_while(|byte| **byte != b'\n').count(),
    }
}

/// The length of a text in quotes, or up to the end of its line if it is not closed.
fn text(text: &[u8], quote: u8) -> usize {
    let mut index = 1;
    while index < text.len() {
        match text[index] {
            // Skips white space, line breaks included.
            b'\\' if text.get(index + 1) == Some(&b'z') => {
                index += 2;
                index += text[index..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_whitespace())
                    .count();
            }
            b'\\' if text[index + 1..].starts_with(b"\r\n") => index += 3,
            b'\\' => index += 2,
            b'\n' => return index,
            byte if byte == quote => return index + 1,
            _ => index += 1,
        }
    }
    text.len()
}

/// The length of `[[...]]` or `[=[...]=]`.
fn long_bracket(text: &[u8]) -> Option<usize> {
    let level = text
        .get(1..)?
        .iter()
        .take_while(|byte| **byte == b'=')
        .count();
    if text.first() != Some(&b'[') || text.get(1 + level) != Some(&b'[') {
        return None;
    }
    let close = [b"]".to_vec(), vec![b'='; level], b"]".to_vec()].concat();
    let body = &text[2 + level..];
    let end = body.windows(close.len()).position(|window| window == close);
    Some(end.map_or(text.len(), |end| 2 + level + end + close.len()))
}

fn number(text: &[u8]) -> usize {
    let mut index = 0;
    while let Some(byte) = text.get(index) {
        let is_exponent_sign =
            matches!(byte, b'+' | b'-') && index > 0 && matches!(text[index - 1], b'e' | b'E');
        // `1..2` joins.
        let is_join = *byte == b'.' && text.get(index + 1) == Some(&b'.');
        if is_join
            || !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || is_exponent_sign)
        {
            break;
        }
        index += 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_counted_and_not_what_looks_like_them() {
        for (source, joins, comparisons, arithmetic) in [
            ("return a .. b .. 'c'", 2, 0, 0),
            ("a ..= b", 1, 0, 0),
            ("return 1..2", 1, 0, 0),
            ("return a<b, a <= b, a> b, a >=b, a == b, a ~= b", 0, 4, 0),
            ("return a+b-c*d/e//f%g^h", 0, 0, 7),
            ("a += 1 a -= 1", 0, 0, 2),
            ("return {-1, -2, - 3, -a}, 1 -1, a -1, f() -1, -1", 0, 0, 5),
            ("local function f(...) return ... end", 0, 0, 0),
            ("-- a .. b < c + d", 0, 0, 0),
            ("--[[ a .. b\n < c ]] return a + b", 0, 0, 1),
            ("--[==[ a .. b ]] < ]==] return a + b", 0, 0, 1),
            (
                "return 'a .. b' .. \"c < \\\" d\" .. [[e + f]] .. [=[ ]] + ]=]",
                3,
                0,
                0,
            ),
            ("return '\\\\' .. a", 1, 0, 0),
            ("return '\\\n .. ' + 1", 0, 0, 1),
            ("return '\\z \n .. ' + 1", 0, 0, 1),
            ("return 1e-5 + 0x1p4 - 1E+3", 0, 0, 2),
            ("return a[b] - 1, a[[c]] - 1", 0, 0, 2),
            ("'open .. \n a .. b", 1, 0, 0),
            ("[[open .. < +", 0, 0, 0),
        ] {
            let counts = count(source.as_bytes());
            let found = (counts.joins, counts.comparisons, counts.arithmetic);
            assert_eq!(found, (joins, comparisons, arithmetic), "{source}");
        }
    }
}
