//! Bounds on a template's syntax. The parser, the code generator and the drop of a syntax tree recurse, so the tokens
//! are counted before any of them sees the template.

use minijinja::machinery::{Token, Tokenizer};

use super::{Error, syntax};

pub const MAX_SOURCE_BYTES: usize = 60_000;
/// Expressions and statements.
const MAX_TAGS: usize = 1_000;
/// Tokens of one tag, which bound the length of chains such as `a + b + c`.
const MAX_TOKENS: usize = 256;
/// Brackets within brackets.
const MAX_BRACKETS: usize = 16;
/// Blocks within blocks. An `elif` counts as a quarter, since it is a block within its `if`.
const MAX_BLOCKS: usize = 16;
const PER_BLOCK: usize = 4;

/// Refuses a template whose syntax tree could be too large or too deep.
pub(super) fn check(source: &str) -> Result<(), Error> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(Error::TooLong);
    }
    if source.contains('\0') {
        return Err(Error::refused(
            1,
            "a template cannot hold the character NUL",
        ));
    }
    let mut tokens = Tokenizer::new(source, super::NAME, false, syntax()?);
    let mut tag = Tag::default();
    let (mut tags, mut open) = (0, Vec::new());
    while let Some((token, span)) = tokens.next_token().map_err(Error::Compile)? {
        let refused = |what: String| Err(Error::refused(span.start_line, &what));
        match &token {
            Token::TemplateData(_) => continue,
            Token::VariableStart | Token::BlockStart => {
                tags += 1;
                tag = Tag {
                    is_block: matches!(token, Token::BlockStart),
                    ..Tag::default()
                };
                if tags > MAX_TAGS {
                    return refused(format!("more than {MAX_TAGS} expressions and statements"));
                }
                continue;
            }
            Token::BlockEnd => tag.end(&mut open),
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => tag.brackets += 1,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                tag.brackets = tag.brackets.saturating_sub(1);
            }
            Token::Ident(name) if tag.tokens == 0 && tag.is_block => {
                tag.statement = Statement::of(name);
            }
            Token::Assign if tag.brackets == 0 => tag.assigns = true,
            _ => {}
        }
        tag.tokens += 1;
        if tag.tokens > MAX_TOKENS {
            return refused(format!(
                "an expression or statement is longer than {MAX_TOKENS} names, values and operators"
            ));
        }
        if tag.brackets > MAX_BRACKETS {
            return refused(format!("brackets are nested deeper than {MAX_BRACKETS}"));
        }
        if open.iter().sum::<usize>() > MAX_BLOCKS * PER_BLOCK {
            return refused(format!(
                "blocks are nested deeper than {MAX_BLOCKS}; each `elif` counts as a quarter of one"
            ));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Tag {
    is_block: bool,
    statement: Statement,
    tokens: usize,
    brackets: usize,
    /// Whether it has an `=` outside brackets: a `set` without one opens a block.
    assigns: bool,
}

#[derive(Default, Clone, Copy)]
enum Statement {
    Opens,
    Set,
    Elif,
    Ends,
    #[default]
    Other,
}

impl Statement {
    fn of(name: &str) -> Self {
        match name {
            "set" => Self::Set,
            "elif" => Self::Elif,
            "else" => Self::Other,
            name if name.starts_with("end") => Self::Ends,
            // One that the engine does not know is refused by it.
            _ => Self::Opens,
        }
    }
}

impl Tag {
    /// `open`: the weights of the open blocks, each with its `elif`s.
    fn end(&self, open: &mut Vec<usize>) {
        match self.statement {
            Statement::Set if self.assigns => {}
            Statement::Set | Statement::Opens => open.push(PER_BLOCK),
            Statement::Elif => {
                if let Some(block) = open.last_mut() {
                    *block += 1;
                }
            }
            Statement::Ends => drop(open.pop()),
            Statement::Other => {}
        }
    }
}
