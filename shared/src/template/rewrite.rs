//! Rewrites a template so that it charges for each value before it is used, and escapes what it writes once.
//!
//! The engine's operators cannot be replaced, but its filters can: each operand passes an internal filter first. The
//! rewritten template has delimiters of its own, so that the text between the tags stays as it is.

mod expression;

use minijinja::machinery::ast::{Expr, Stmt};
use minijinja::machinery::{Span, ast, parse};
use minijinja::syntax::SyntaxConfig;

use super::escape::{self, Escape};
use super::json_place::JsonPlace;
use super::operands::TEXT;
use super::{Error, NAME, syntax};
use crate::nearest::nearest;

/// Brackets within brackets that the rewritten template may need for operators within operators.
const MAX_NESTED: usize = 32;

/// Of rewritten templates. NUL is refused in a template.
pub(super) fn rewritten_syntax() -> Result<SyntaxConfig, Error> {
    let mut syntax = SyntaxConfig::builder();
    syntax
        .block_delimiters("\0{", "\0}")
        .variable_delimiters("\0(", "\0)")
        .comment_delimiters("\0#", "\0!")
        .keep_trailing_newline(true);
    syntax.build().map_err(Error::Compile)
}

/// `source` has passed [`bounds`](super::bounds).
pub(super) fn rewrite(source: &str, escape: Escape) -> Result<String, Error> {
    let tree = parse(source, NAME, syntax()?).map_err(Error::Compile)?;
    let mut rewriter = Rewriter {
        out: String::with_capacity(source.len() * 2),
        escape,
        place: JsonPlace::Outside,
        captures: 0,
        nested: 0,
    };
    rewriter.statement(&tree)?;
    Ok(rewriter.out)
}

struct Rewriter {
    out: String,
    escape: Escape,
    /// Where in the JSON text the template writes next, if it writes JSON.
    place: JsonPlace,
    /// Blocks around this place that write into a variable or filter.
    captures: usize,
    nested: usize,
}

type Done = Result<(), Error>;

impl Rewriter {
    fn print(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn body(&mut self, body: &[Stmt<'_>]) -> Done {
        body.iter()
            .try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Done {
        match statement {
            Stmt::Template(template) => self.body(&template.children),
            Stmt::EmitRaw(text) => {
                if self.captures == 0 && self.escape == Escape::Json {
                    self.place = self.place.after(text.raw);
                }
                self.print(text.raw);
                Ok(())
            }
            Stmt::EmitExpr(emit) => self.emit(&emit.expr),
            Stmt::IfCond(block) => self.if_block(block),
            Stmt::ForLoop(block) => self.for_block(block),
            Stmt::WithBlock(block) => {
                self.print("\0{with ");
                for (index, (target, value)) in block.assignments.iter().enumerate() {
                    self.print(if index == 0 { "" } else { ", " });
                    self.target(target)?;
                    self.print(" = ");
                    self.operand(value, None)?;
                }
                self.print("\0}");
                self.body(&block.body)?;
                self.print("\0{endwith\0}");
                Ok(())
            }
            Stmt::Set(set) => {
                self.print("\0{set ");
                self.target(&set.target)?;
                self.print(" = ");
                self.operand(&set.expr, None)?;
                self.print("\0}");
                Ok(())
            }
            Stmt::SetBlock(block) => {
                self.print("\0{set ");
                self.target(&block.target)?;
                if let Some(filter) = &block.filter {
                    self.print("|");
                    self.expression(filter)?;
                }
                self.print("\0}");
                self.capture(&block.body)?;
                self.print("\0{endset\0}");
                Ok(())
            }
            Stmt::FilterBlock(block) => {
                let ending = self.ending(block.filter.span().start_line)?;
                self.print("\0{filter ");
                self.expression(&block.filter)?;
                self.print("|");
                self.print(ending);
                self.print("\0}");
                self.capture(&block.body)?;
                self.print("\0{endfilter\0}");
                Ok(())
            }
            Stmt::AutoEscape(block) => Err(refused(
                block.span(),
                "autoescape is not offered: values are always escaped",
            )),
            Stmt::Do(block) => Err(refused(
                block.span(),
                "do is not offered: there is nothing to do",
            )),
        }
    }

    /// Writes into a variable or filter, where nothing is escaped yet.
    fn capture(&mut self, body: &[Stmt<'_>]) -> Done {
        self.captures += 1;
        self.body(body)?;
        self.captures -= 1;
        Ok(())
    }

    fn if_block(&mut self, block: &ast::Spanned<ast::IfCond<'_>>) -> Done {
        self.print("\0{if ");
        self.operand(&block.expr, None)?;
        self.print("\0}");
        let before = self.place;
        self.body(&block.true_body)?;
        let after = std::mem::replace(&mut self.place, before);
        if !block.false_body.is_empty() {
            self.print("\0{else\0}");
            self.body(&block.false_body)?;
        }
        self.print("\0{endif\0}");
        if self.place == after {
            return Ok(());
        }
        let what = "a JSON string begins or ends in one branch of this `if` and not in the other";
        Err(refused(block.span(), what))
    }

    fn for_block(&mut self, block: &ast::Spanned<ast::ForLoop<'_>>) -> Done {
        if block.recursive {
            return Err(refused(block.span(), "recursive loops are not offered"));
        }
        self.print("\0{for ");
        self.target(&block.target)?;
        self.print(" in ");
        self.operand(&block.iter, Some(TEXT))?;
        if let Some(condition) = &block.filter_expr {
            self.print(" if ");
            self.operand(condition, None)?;
        }
        self.print("\0}");
        let before = self.place;
        self.body(&block.body)?;
        let after = std::mem::replace(&mut self.place, before);
        if !block.else_body.is_empty() {
            self.print("\0{else\0}");
            self.body(&block.else_body)?;
        }
        self.print("\0{endfor\0}");
        if self.place == before && after == before {
            return Ok(());
        }
        let what =
            "a JSON string begins or ends in this loop: the next round would be on its other side";
        Err(refused(block.span(), what))
    }

    fn target(&mut self, target: &Expr<'_>) -> Done {
        match target {
            Expr::Var(var) => {
                self.print(var.id);
                Ok(())
            }
            Expr::List(list) => {
                self.print("(");
                for item in &list.items {
                    self.target(item)?;
                    self.print(",");
                }
                self.print(")");
                Ok(())
            }
            other => Err(refused(
                other.span(),
                "only variables can be set, not their attributes",
            )),
        }
    }

    /// Writes a value where the template stands.
    fn emit(&mut self, value: &Expr<'_>) -> Done {
        let ending = self.ending(value.span().start_line)?;
        self.print("\0(");
        if ending == escape::JSON_VALUE {
            self.json_value(value)?;
            if let Some(text) = author_text(value) {
                self.place = self.place.after(text);
            }
        } else {
            self.operand(value, Some(ending))?;
        }
        self.print("\0)");
        Ok(())
    }

    /// The internal filter that escapes for this place.
    fn ending(&self, line: u16) -> Result<&'static str, Error> {
        Ok(match (self.escape, self.place) {
            _ if self.captures > 0 => escape::PLAIN,
            (Escape::None, _) => escape::PLAIN,
            (Escape::Form, _) => escape::FORM,
            (Escape::Xml, _) => escape::XML,
            (Escape::Json, JsonPlace::Outside) => escape::JSON_VALUE,
            (Escape::Json, JsonPlace::InString) => escape::JSON_STRING,
            (Escape::Json, JsonPlace::Escape | JsonPlace::Digits(_)) => {
                return Err(Error::refused(
                    line,
                    "a value cannot stand within an escape of a JSON string",
                ));
            }
        })
    }

    /// Outside a JSON string, the author's own text stays as it is, such as the comma in
    /// `{{ "," if not loop.last }}`.
    fn json_value(&mut self, value: &Expr<'_>) -> Done {
        match value {
            _ if author_text(value).is_some() => self.operand(value, Some(escape::RAW)),
            Expr::IfExpr(choice) => self.nested(value, |this| {
                let texts = [Some(&choice.true_expr), choice.false_expr.as_ref()];
                let texts = texts.into_iter().flatten().filter_map(author_text);
                if texts
                    .map(|text| this.place.after(text))
                    .any(|place| place != this.place)
                {
                    return Err(refused(
                        value.span(),
                        "a JSON string begins or ends in this choice",
                    ));
                }
                this.json_value(&choice.true_expr)?;
                this.print(" if ");
                this.operand(&choice.test_expr, None)?;
                this.print(" else ");
                match &choice.false_expr {
                    Some(other) => this.json_value(other),
                    None => {
                        this.print("\"\"");
                        Ok(())
                    }
                }
            }),
            _ => self.operand(value, Some(escape::JSON_VALUE)),
        }
    }

    fn nested(&mut self, what: &Expr<'_>, print: impl FnOnce(&mut Self) -> Done) -> Done {
        if self.nested == MAX_NESTED {
            let reason = format!("operators are nested deeper than {MAX_NESTED}");
            return Err(refused(what.span(), &reason));
        }
        self.nested += 1;
        self.print("(");
        print(self)?;
        self.print(")");
        self.nested -= 1;
        Ok(())
    }
}

/// A text constant of the template's author.
fn author_text<'a>(value: &'a Expr<'_>) -> Option<&'a str> {
    match value {
        Expr::Const(constant) => constant.value.as_str(),
        _ => None,
    }
}

fn refused(span: Span, what: &str) -> Error {
    Error::refused(span.start_line, what)
}

fn unknown(span: Span, kind: &str, name: &str, known: &[&str]) -> Error {
    let meant = nearest(name, known.iter().copied());
    let meant = meant.map_or_else(String::new, |meant| format!(", did you mean `{meant}`?"));
    let all = known.join(", ");
    refused(
        span,
        &format!("there is no {kind} `{name}`{meant}; there are {all}"),
    )
}
