//! Prints expressions: each operand passes the internal filter that charges for it.

use std::fmt::Write as _;

use minijinja::machinery::Span;
use minijinja::machinery::ast::{
    self, BinOpKind, CallArg, CallType, CompareOpKind, Expr, UnaryOpKind,
};
use minijinja::value::ValueKind;

use super::{Done, Rewriter, refused, unknown};
use crate::template::budget::Use;
use crate::template::filters::{
    Arguments, FILTERS, Filter, LOOP_METHODS, MAPPED, Numbers, RANGE, TESTS, Takes, takes,
    test_takes,
};
use crate::template::operands::{
    CHARS, COMPARED, COMPUTED, ITEMS, JOINED, KIND, NUMBER, READ, TEXT,
};

impl Rewriter {
    /// An expression in brackets, if it needs them, and an internal filter.
    pub(super) fn operand(&mut self, value: &Expr<'_>, filter: Option<&str>) -> Done {
        if matches!(form(value), Form::Operation) {
            self.nested(value, |this| this.expression(value))?;
        } else {
            self.expression(value)?;
        }
        if let Some(filter) = filter {
            self.print("|");
            self.print(filter);
        }
        Ok(())
    }

    /// An expression that something is looked up in.
    fn base(&mut self, value: &Expr<'_>, filter: Option<&str>) -> Done {
        if filter.is_none() && matches!(form(value), Form::Atom) {
            return self.expression(value);
        }
        self.nested(value, |this| this.operand(value, filter))
    }

    /// A list or tuple, which is charged with all that it holds.
    fn items(&mut self, open: &str, items: &[Expr<'_>], close: &str) -> Done {
        self.print(open);
        for item in items {
            self.operand(item, None)?;
            self.print(",");
        }
        self.print(close);
        self.print("|");
        self.print(READ);
        Ok(())
    }

    pub(super) fn expression(&mut self, value: &Expr<'_>) -> Done {
        match value {
            Expr::Var(var) => self.print(var.id),
            Expr::Const(constant) => self.constant(constant)?,
            Expr::GetAttr(get) => {
                self.base(&get.expr, None)?;
                self.print(".");
                self.print(get.name);
            }
            Expr::GetItem(get) => {
                self.base(&get.expr, Some(TEXT))?;
                self.print("[");
                self.operand(&get.subscript_expr, None)?;
                self.print("]");
            }
            Expr::Slice(slice) => {
                self.base(&slice.expr, Some(TEXT))?;
                self.print("[");
                for (index, bound) in [&slice.start, &slice.stop, &slice.step]
                    .into_iter()
                    .enumerate()
                {
                    self.print(if index == 0 { "" } else { ":" });
                    if let Some(bound) = bound {
                        self.operand(bound, None)?;
                    }
                }
                self.print("]|");
                self.print(READ);
            }
            Expr::List(list) => self.items("[", &list.items, "]")?,
            Expr::Tuple(tuple) => self.items("(", &tuple.items, ")")?,
            Expr::Map(map) => {
                self.print("{");
                for (key, value) in map.keys.iter().zip(&map.values) {
                    self.operand(key, None)?;
                    self.print(":");
                    self.operand(value, None)?;
                    self.print(",");
                }
                self.print("}|");
                self.print(READ);
            }
            Expr::UnaryOp(unary) => {
                self.print(match unary.op {
                    UnaryOpKind::Not => "not ",
                    UnaryOpKind::Neg => "-",
                });
                let filter = matches!(unary.op, UnaryOpKind::Neg).then_some(NUMBER);
                self.base(&unary.expr, filter)?;
            }
            Expr::BinOp(binary) => self.binary(binary)?,
            Expr::Compare(compare) => {
                self.operand(&compare.expr, Some(COMPARED))?;
                for operation in &compare.ops {
                    self.print(comparison(operation.op));
                    self.operand(&operation.expr, Some(COMPARED))?;
                }
            }
            Expr::IfExpr(choice) => {
                self.operand(&choice.true_expr, None)?;
                self.print(" if ");
                self.operand(&choice.test_expr, None)?;
                if let Some(other) = &choice.false_expr {
                    self.print(" else ");
                    self.operand(other, None)?;
                }
            }
            Expr::Filter(filter) => self.filter(filter)?,
            Expr::Test(test) => self.test(test)?,
            Expr::Call(call) => self.call(call)?,
        }
        Ok(())
    }

    fn constant(&mut self, constant: &ast::Spanned<ast::Const>) -> Done {
        let value = &constant.value;
        let printed = match (value.kind(), value.as_str()) {
            (_, Some(text)) => serde_json::Value::from(text).to_string(),
            (ValueKind::None, _) => "none".to_owned(),
            (ValueKind::Number, _) if !value.is_integer() => {
                let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
                if !number.is_finite() {
                    return Err(refused(constant.span(), "the number is too large"));
                }
                // Without an exponent, as the engine reads numbers.
                let digits = number.to_string();
                if digits.contains('.') {
                    digits
                } else {
                    digits + ".0"
                }
            }
            _ => value.to_string(),
        };
        self.print(&printed);
        Ok(())
    }

    /// Chains of one precedence stay flat: only their first operand may be of the same kind.
    fn binary(&mut self, binary: &ast::BinOp<'_>) -> Done {
        let (operator, precedence, filter) = operator(binary.op);
        match &binary.left {
            Expr::BinOp(left)
                if precedence.is_some() && self::operator(left.op).1 == precedence =>
            {
                self.binary(left)?;
            }
            left => self.operand(left, filter)?,
        }
        self.print(operator);
        self.operand(&binary.right, filter)
    }

    fn filter(&mut self, applied: &ast::Spanned<ast::Filter<'_>>) -> Done {
        let Some(filter) = FILTERS.iter().find(|filter| filter.name == applied.name) else {
            let names: Vec<_> = FILTERS.iter().map(|filter| filter.name).collect();
            return Err(unknown(applied.span(), "filter", applied.name, &names));
        };
        let known = Known("filter", filter.name, filter.takes);
        check_count(applied.span(), known, &applied.args)?;
        check_arguments(filter, applied)?;
        let charge = match (filter.used, filter.numbers) {
            (Use::Read, Numbers::Computed) => COMPARED,
            (Use::Read, Numbers::Texts) => CHARS,
            (Use::Items, Numbers::Computed) => COMPUTED,
            (Use::Items, Numbers::Texts) => ITEMS,
            (Use::Text, Numbers::Computed) => KIND,
            (Use::Text, Numbers::Texts) => TEXT,
        };
        match &applied.expr {
            Some(value) => self.operand(value, Some(charge))?,
            // The text of a block.
            None => self.print(charge),
        }
        self.print("|");
        self.print(filter.name);
        let charge = if filter.used == Use::Text {
            TEXT
        } else {
            COMPARED
        };
        self.arguments(&applied.args, Some(charge))?;
        if filter.returns_items {
            self.print("|");
            self.print(READ);
        }
        Ok(())
    }

    fn test(&mut self, test: &ast::Spanned<ast::Test<'_>>) -> Done {
        let Some((name, by_kind)) = TESTS.iter().find(|(name, _)| *name == test.name) else {
            let names: Vec<_> = TESTS.iter().map(|(name, _)| *name).collect();
            return Err(unknown(test.span(), "test", test.name, &names));
        };
        let count = test_takes(name);
        let known = Known("test", name, takes(count, count));
        check_count(test.span(), known, &test.args)?;
        self.operand(&test.expr, Some(if *by_kind { KIND } else { COMPARED }))?;
        self.print(" is ");
        self.print(name);
        self.arguments(&test.args, Some(COMPARED))
    }

    fn call(&mut self, call: &ast::Spanned<ast::Call<'_>>) -> Done {
        match call.identify_call() {
            CallType::Function(RANGE) => {
                let range = Known("function", RANGE, takes(1, 3));
                check_count(call.span(), range, &call.args)?;
                self.print(RANGE);
            }
            CallType::Method(Expr::Var(object), method)
                if object.id == "loop" && LOOP_METHODS.contains(&method) =>
            {
                self.print("loop.");
                self.print(method);
            }
            CallType::Function(name) => {
                return Err(unknown(call.span(), "function", name, &[RANGE]));
            }
            _ => return Err(refused(call.span(), "values have no methods; use a filter")),
        }
        self.print("(");
        self.argument_list(&call.args, Some(COMPARED))?;
        self.print(")");
        Ok(())
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>], charge: Option<&str>) -> Done {
        if arguments.is_empty() {
            return Ok(());
        }
        self.print("(");
        self.argument_list(arguments, charge)?;
        self.print(")");
        Ok(())
    }

    fn argument_list(&mut self, arguments: &[CallArg<'_>], charge: Option<&str>) -> Done {
        for argument in arguments {
            let value = match argument {
                CallArg::Pos(value) => value,
                CallArg::Kwarg(name, value) => {
                    let _ = write!(self.out, "{name}=");
                    value
                }
                CallArg::PosSplat(value) | CallArg::KwargSplat(value) => {
                    return Err(refused(
                        value.span(),
                        "arguments cannot be unpacked with * or **",
                    ));
                }
            };
            let is_constant = matches!(value, Expr::Const(_));
            self.operand(value, charge.filter(|_| !is_constant))?;
            self.print(",");
        }
        Ok(())
    }
}

enum Form {
    /// Something can be looked up in it.
    Atom,
    /// A filter can be applied to it.
    Filtered,
    Operation,
}

fn form(value: &Expr<'_>) -> Form {
    match value {
        Expr::Var(_) | Expr::Const(_) | Expr::GetAttr(_) | Expr::GetItem(_) | Expr::Call(_) => {
            Form::Atom
        }
        Expr::Slice(_) | Expr::List(_) | Expr::Tuple(_) | Expr::Map(_) | Expr::Filter(_) => {
            Form::Filtered
        }
        Expr::UnaryOp(_) | Expr::BinOp(_) | Expr::Compare(_) | Expr::IfExpr(_) | Expr::Test(_) => {
            Form::Operation
        }
    }
}

/// How an operator is printed, its precedence if chains of it are left to right, and what its operands pass first.
fn operator(kind: BinOpKind) -> (&'static str, Option<u8>, Option<&'static str>) {
    match kind {
        BinOpKind::ScOr => (" or ", Some(1), None),
        BinOpKind::ScAnd => (" and ", Some(2), None),
        BinOpKind::Eq => (" == ", None, Some(COMPARED)),
        BinOpKind::Ne => (" != ", None, Some(COMPARED)),
        BinOpKind::Lt => (" < ", None, Some(COMPARED)),
        BinOpKind::Lte => (" <= ", None, Some(COMPARED)),
        BinOpKind::Gt => (" > ", None, Some(COMPARED)),
        BinOpKind::Gte => (" >= ", None, Some(COMPARED)),
        BinOpKind::In => (" in ", None, Some(COMPARED)),
        BinOpKind::Add => (" + ", Some(3), Some(NUMBER)),
        BinOpKind::Sub => (" - ", Some(3), Some(NUMBER)),
        BinOpKind::Concat => (" ~ ", Some(4), Some(JOINED)),
        BinOpKind::Mul => (" * ", Some(5), Some(NUMBER)),
        BinOpKind::Div => (" / ", Some(5), Some(NUMBER)),
        BinOpKind::FloorDiv => (" // ", Some(5), Some(NUMBER)),
        BinOpKind::Rem => (" % ", Some(5), Some(NUMBER)),
        BinOpKind::Pow => (" ** ", Some(6), Some(NUMBER)),
    }
}

fn comparison(kind: CompareOpKind) -> &'static str {
    match kind {
        CompareOpKind::Eq => " == ",
        CompareOpKind::Ne => " != ",
        CompareOpKind::Lt => " < ",
        CompareOpKind::Lte => " <= ",
        CompareOpKind::Gt => " > ",
        CompareOpKind::Gte => " >= ",
        CompareOpKind::In => " in ",
        CompareOpKind::NotIn => " not in ",
    }
}

/// What a filter, test or function is, its name, and what it takes.
struct Known<'a>(&'static str, &'a str, Takes);

/// How many arguments there are, and their names.
fn check_count(span: Span, known: Known<'_>, arguments: &[CallArg<'_>]) -> Done {
    let Known(what, name, takes) = known;
    let mut positional = 0;
    for argument in arguments {
        match argument {
            // Of `format` they are what is formatted.
            CallArg::Kwarg(given, _) if name != "format" && !takes.named.contains(given) => {
                return Err(unknown(span, "argument", given, takes.named));
            }
            CallArg::Pos(_) => positional += 1,
            _ => {}
        }
    }
    let wanted = match (takes.least, takes.most) {
        (least, most) if least == most => least.to_string(),
        (least, most) => format!("{least} to {most}"),
    };
    if positional > takes.most || arguments.len() < takes.least {
        let count = arguments.len();
        return Err(refused(
            span,
            &format!("{what} '{name}' takes {wanted} arguments, not {count}"),
        ));
    }
    Ok(())
}

/// A name of a test or filter in an argument must be a constant: the engine would look up any other one.
fn check_arguments(filter: &Filter, applied: &ast::Spanned<ast::Filter<'_>>) -> Done {
    let named = |index: usize| {
        let positional = applied
            .args
            .iter()
            .filter(|arg| matches!(arg, CallArg::Pos(_)));
        let Some(CallArg::Pos(value)) = positional.clone().nth(index) else {
            return Ok(None);
        };
        match value {
            Expr::Const(constant) if constant.value.as_str().is_some() => {
                Ok(constant.value.as_str())
            }
            other => Err(refused(other.span(), "this name must be a text in quotes")),
        }
    };
    match filter.arguments {
        Arguments::Any => Ok(()),
        Arguments::Test(index) => match named(index)? {
            Some(name) if !TESTS.iter().any(|(known, _)| *known == name) => {
                let names: Vec<_> = TESTS.iter().map(|(name, _)| *name).collect();
                Err(unknown(applied.span(), "test", name, &names))
            }
            Some(name) => {
                let count = test_takes(name);
                let known = Known("test", name, takes(count, count));
                let arguments = applied.args.get(index + 1..).unwrap_or_default();
                check_count(applied.span(), known, arguments)
            }
            None => Ok(()),
        },
        Arguments::Filter => match named(0)? {
            Some(name) if !MAPPED.contains(&name) => {
                Err(unknown(applied.span(), "filter of `map`", name, MAPPED))
            }
            Some(_) if applied.args.len() > 1 => Err(refused(
                applied.span(),
                "a filter of `map` cannot have arguments here",
            )),
            _ => Ok(()),
        },
    }
}
