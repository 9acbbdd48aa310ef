//! What scripts can and cannot do.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Call, Error, Limits, Sandbox, Verdict, compile};

const LIMITS: Limits = Limits {
    time: Duration::from_millis(50),
    memory: 16 << 20,
};

fn sandbox() -> Sandbox {
    Sandbox::new(LIMITS).expect("a VM")
}

fn call_in(sandbox: &Sandbox, source: &str) -> Result<Verdict, Error> {
    let data = json!({"entity": {"username": "Lois Lane", "tags": ["a", "b"], "custom_id": null},
        "operation": "create"});
    let call = Call {
        data: data.as_object().expect("an object"),
        event: "consumers",
        source: "crud",
        pid: 42,
    };
    sandbox.call(&compile(source)?, call)
}

fn call(source: &str) -> Result<Verdict, Error> {
    call_in(&sandbox(), source)
}

fn body(body: &str) -> Result<Verdict, Error> {
    call(&format!(
        "return function (data, event, source, pid) {body} end"
    ))
}

#[test]
fn the_documents_script_raises_its_text_with_the_line() {
    let source = "return function (data, event, source, pid)\n  local user = data.entity.username\n\
                  \x20 error(\"Event hook on consumer \" .. user .. \"\")\nend\n";
    assert_eq!(
        call(source),
        Err(Error::Script(
            "[string \"return function (data, event, source, pid)...\"]:3: Event hook on consumer Lois Lane"
                .into()
        ))
    );
}

#[test]
fn only_false_asks_for_another_call() {
    assert_eq!(body(""), Ok(Verdict::Done));
    assert_eq!(body("return true"), Ok(Verdict::Done));
    assert_eq!(body("return nil"), Ok(Verdict::Done));
    assert_eq!(body("return false"), Ok(Verdict::Again));
}

#[test]
fn the_arguments_are_kongs() {
    let source = "assert(event == 'consumers' and source == 'crud' and pid == 42) \
        assert(data.entity.tags[2] == 'b' and #data.entity.tags == 2) \
        assert(data.entity.custom_id == nil and data.operation == 'create')";
    assert_eq!(body(source), Ok(Verdict::Done));
}

#[test]
fn a_chunk_must_return_a_function() {
    assert_eq!(call("return 42"), Err(Error::NotAFunction("number")));
    assert_eq!(call("local x = 1"), Err(Error::NotAFunction("nil")));
    assert!(matches!(call("dontexist()"), Err(Error::Script(_))));
    assert!(matches!(
        compile("return function ("),
        Err(Error::Script(_))
    ));
}

#[test]
fn unsafe_functions_are_missing() {
    for name in [
        "require",
        "load",
        "loadstring",
        "loadfile",
        "dofile",
        "setmetatable",
        "getmetatable",
        "rawget",
        "rawset",
        "rawequal",
        "collectgarbage",
        "io",
        "os.execute",
        "os.getenv",
        "debug",
        "package",
        "string.dump",
        "math.randomseed",
        "setfenv",
        "getfenv",
        "newproxy",
        "table.move",
        "table.create",
        "buffer",
        "print",
        "gcinfo",
        "string.pack",
    ] {
        assert_eq!(
            body(&format!("assert({name} == nil)")),
            Ok(Verdict::Done),
            "{name}"
        );
    }
    assert_eq!(
        body("assert(('x').pack == nil and ('x').dump == nil)"),
        Ok(Verdict::Done)
    );
}

#[test]
fn safe_functions_exist() {
    for name in [
        "string.rep",
        "string.upper",
        "table.sort",
        "table.concat",
        "math.max",
        "os.time",
        "coroutine.wrap",
        "pcall",
        "tonumber",
        "bit32.band",
        "utf8.char",
    ] {
        assert_eq!(
            body(&format!("assert({name} ~= nil)")),
            Ok(Verdict::Done),
            "{name}"
        );
    }
}

#[test]
fn bounded_functions_work_as_usual() {
    let checks = "local from, to, capture = ('hello world'):find('(o) w') \
        assert(from == 5 and to == 7 and capture == 'o') \
        assert(('a.b'):find('.', 1, true) == 2 and string.find(123, '2') == 2) \
        assert(#('a,b,c'):split(',') == 3 and #('a b'):split(' ') == 2 and #('a,b'):split() == 2) \
        local first, second = ('k=v'):match('(%w)=(%w)') assert(first == 'k' and second == 'v') \
        assert(('abcabc'):match('b', 3) == 'b' and ('abc'):find('b', -2) == 2) \
        local words = {} for word in ('a b c'):gmatch('%a') do words[#words + 1] = word end assert(#words == 3) \
        local text, count = ('aXbX'):gsub('X', {X = 'y'}) assert(text == 'ayby' and count == 2) \
        assert(('aa'):gsub('a', function() return 'b' end, 1) == 'ba') \
        assert(os.date('%Y', 0) == '1970' and type(os.date()) == 'string' and os.date('!*t', 0).year == 1970) \
        local list = {3, 1, 2} table.sort(list) assert(table.concat(list) == '123') \
        table.sort(list, function(a, b) return a > b end) assert(table.concat(list) == '321')";
    assert_eq!(body(checks), Ok(Verdict::Done));
}

#[test]
fn libraries_cannot_be_changed() {
    for source in [
        "string.foo = 1",
        "string.char = 1",
        "math.huge = 1",
        "table.insert(string, 1)",
    ] {
        assert!(matches!(body(source), Err(Error::Script(_))), "{source}");
    }
}

#[test]
fn no_state_passes_from_one_call_to_the_next() {
    let sandbox = sandbox();
    let write = "leak = (leak or 0) + 1 _G.other = 1 error = nil \
                 return function () kept = 1 assert(leak == 1) end";
    assert_eq!(call_in(&sandbox, write), Ok(Verdict::Done));
    assert_eq!(call_in(&sandbox, write), Ok(Verdict::Done));
    let read = "return function () assert(leak == nil and other == nil and kept == nil) \
                assert(error ~= nil) end";
    assert_eq!(call_in(&sandbox, read), Ok(Verdict::Done));
}

#[test]
fn hostile_scripts_end_within_their_limits() {
    let scripts = [
        "while true do end",
        "repeat until false",
        "while true do pcall(function() while true do end end) end",
        "local function f() while true do pcall(f) end end f()",
        "local function f() return f() end f()",
        "local function f() return 1 + f() end f()",
        "while true do xpcall(function() error('x') end, function() while true do end end) end",
        "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end",
        "local function f() coroutine.wrap(f)() end f()",
        "while true do coroutine.create(function() end) end",
        "local t = {} while true do t[#t + 1] = t end",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end",
        "return ('x'):rep(1e9)",
        "while true do pcall(string.rep, 'x', 1e8) end",
        "return ('a'):rep(100):find(('a?'):rep(100) .. ('a'):rep(100))",
        "return (('a'):rep(30000)):find('.-.-.-.-.-.-.-.-b')",
        "return (('a'):rep(100000)):gsub('.', ('x'):rep(10000))",
        "local t = {} for i = 1, 100000 do t[i] = i end while true do table.sort(t, function(a, b) return a > b end) end",
        "local t = {} for i = 1, 1e5 do t[i] = i end table.sort(t, function() return true end) while true do end",
        "return table.concat({'a', 'b'}, ('x'):rep(1e9))",
        "return unpack({}, 1, 1e8)",
        "return select('#', unpack({}, 1, 7000))",
        "for s in ('x'):rep(1e6):gmatch('.-') do end while true do end",
        "while true do tostring({}) end",
        "return string.format('%99d' .. ('%s'):rep(1000), 1)",
        "while true do local t = table.clone({1, 2, 3}) end",
        "for i = 1, math.huge do end",
        "local t = {} t[1] = t while true do for k, v in pairs(t) do end end",
        "local s = ('x'):rep(1e6) while true do s:upper() s:reverse() end",
        "local s = ('x'):rep(4e6) while true do s:split('') end",
        "local t = {} for i = 1, 3e5 do table.insert(t, 1, i) end",
        "local s = ('x'):rep(1e6) return utf8.len(s .. s)",
        "local s, p = ('a'):rep(4e6), ('a'):rep(2e6) .. 'b' while true do s:find(p, 1, true) end",
        "local s, p = ('a'):rep(4e6), ('a'):rep(2e6) .. 'b' while true do string.find(s, p) end",
        "local s, p = ('a'):rep(4e6), ('a'):rep(2e6) .. 'b' while true do s:split(p) end",
        "local a, b = ('a'):rep(3e6) .. 1, ('a'):rep(3e6) .. 2 local t = {} for i = 1, 1e5 do t[i] = i % 2 == 0 and a or b end while true do table.sort(t) end",
    ];
    for script in scripts {
        let started = Instant::now();
        let result = body(script);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(2), "{script} took {took:?}");
        let spare = ["utf8", "select", "format"]
            .iter()
            .any(|name| script.contains(name));
        assert!(result.is_err() || spare, "{script}: {result:?}");
    }
}

#[test]
fn a_scripts_garbage_does_not_make_the_next_one_fail() {
    // Only memory matters here, so a busy machine must not run into the time limit.
    let limits = Limits {
        time: Duration::from_secs(10),
        ..LIMITS
    };
    let sandbox = Sandbox::new(limits).expect("a VM");
    let hog =
        "return function () local t = {} while true do t[#t + 1] = ('x'):rep(1e4) .. #t end end";
    let modest = "return function () local s = ('x'):rep(2e6) end";
    for _ in 0..5 {
        assert_eq!(call_in(&sandbox, hog), Err(Error::Memory(LIMITS.memory)));
        assert_eq!(call_in(&sandbox, modest), Ok(Verdict::Done));
    }
}

#[test]
fn a_vm_survives_scripts_that_exceed_its_limits() {
    let sandbox = sandbox();
    let hog =
        "return function () local t = {} while true do t[#t + 1] = ('x'):rep(1e5) .. #t end end";
    assert!(matches!(
        call_in(&sandbox, hog),
        Err(Error::Memory(_) | Error::Time(_))
    ));
    let spin = "return function () while true do end end";
    assert_eq!(call_in(&sandbox, spin), Err(Error::Time(LIMITS.time)));
    assert_eq!(
        call_in(&sandbox, "return function () return true end"),
        Ok(Verdict::Done)
    );
}

#[test]
fn deep_nesting_does_not_break_the_compiler() {
    let deep = format!("return {}1{}", "(".repeat(20_000), ")".repeat(20_000));
    assert!(compile(&deep).is_err());
    let tables = format!("return {}{}", "{".repeat(20_000), "}".repeat(20_000));
    assert!(compile(&tables).is_err());
}

#[test]
fn no_function_or_operator_works_longer_than_an_interrupt_reaches() {
    let set = "'[^' .. ('b'):rep(60000) .. '%z]*x'";
    let mut scripts = Vec::new();
    for call in [
        "s:match(p)",
        "s:find(p)",
        "s:gsub(p, '')",
        "s:gmatch(p)()",
        "string.match(s, p, 1)",
        "pcall(string.match, s, p)",
        "string.find(s, p, 1, false)",
        "string.gsub(s, p, '', 1)",
    ] {
        scripts.push(format!(
            "local s, p = ('a'):rep(6e6), {set} while true do local _ = {call} end"
        ));
        scripts.push(format!(
            "local s, p = ('1'):rep(6e6), ('%d'):rep(30000) while true do local _ = {call} end"
        ));
        scripts.push(format!(
            "local s, p = 1, {set} local t = {{}} while true do t[#t + 1] = {call} end"
        ));
    }
    scripts.push("while true do os.date(('%c'):rep(1e6)) end".to_owned());
    scripts.push("while true do os.date(('x'):rep(1e6)) end".to_owned());
    for (operator, times) in [
        ("a .. a", 256),
        ("a < b", 256),
        ("a >= b", 256),
        ("d + 1", 128),
        ("d * d", 128),
        ("-d", 128),
        ("d // 2", 128),
        ("d % 7", 128),
        ("d ^ 2", 128),
    ] {
        let line = format!("_ = {operator} ").repeat(times);
        let texts = "local a, b, d = ('a'):rep(2e6), ('a'):rep(2e6), ('1'):rep(3e6)";
        scripts.push(format!("{texts} {line} while true do end"));
        let script = format!("return function() {line} _ = {operator} end");
        let error = compile(&script).expect_err(operator).to_string();
        assert!(error.contains(&format!("at most {times}")), "{error}");
    }
    for script in scripts {
        let started = Instant::now();
        let result = body(&script);
        let took = started.elapsed();
        assert!(result.is_err(), "{script}: {result:?}");
        assert!(took < Duration::from_secs(5), "{script} took {took:?}");
    }
}
