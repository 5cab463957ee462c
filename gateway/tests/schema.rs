//! `seeway config schema` and `example`, held against a validator of somebody else's and against what the program itself refuses.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

fn seeway(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_seeway")).args(arguments).output().expect("the binary runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn schema() -> Value {
    serde_json::from_str(&seeway(&["config", "schema"])).expect("JSON")
}

/// A TOML text as the JSON that an editor's validator sees.
fn as_json(text: &str) -> Value {
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    serde_json::to_value(table).expect("a file without dates")
}

fn case(name: impl Into<String>, document: Value, valid: bool) -> Value {
    let fields = [("name", name.into().into()), ("document", document), ("valid", valid.into())];
    fields.map(|(key, value): (&str, Value)| (key.to_owned(), value)).into_iter().collect::<Map<_, _>>().into()
}

/// Has Python's jsonschema judge; panics with each case that it judges otherwise.
fn judge(cases: &[Value]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let python = std::env::var_os("SEEWAY_PYTHON").map_or_else(|| root.join("target/python/bin/python"), PathBuf::from);
    let mut validator = Command::new(&python)
        .arg(root.join("tests/python/schema_test.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; tests/run makes it", python.display()));
    let given = json!({ "schema": schema(), "cases": cases }).to_string();
    validator.stdin.take().expect("piped").write_all(given.as_bytes()).expect("it reads all");
    let output = validator.wait_with_output().expect("it ends");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains(&format!("{} cases, 0 judged wrongly", cases.len())), "{out}");
}

/// The smallest document, to put further keys into.
fn smallest() -> Value {
    as_json(&seeway(&["config", "example", "--minimal"]))
}

/// The smallest document with one more value.
fn with(table: &str, many: bool, key: &str, value: Value) -> Value {
    let mut document = smallest();
    if many {
        let rule = || json!({ "who": ["user:x"], "may": ["submit"] });
        let list = document.as_object_mut().expect("an object").entry(table).or_insert_with(|| json!([rule()]));
        list[0][key] = value;
    } else {
        // Without these, check says that they are missing and looks no further into the table.
        let begun = match table {
            "audit" => json!({ "to": "journald" }),
            "tls" | "management_tls" => json!({ "certificate": "server.pem", "key": "server.key" }),
            _ => json!({}),
        };
        document.as_object_mut().expect("an object").entry(table).or_insert(begun)[key] = value;
    }
    document
}

/// A value that a key's schema takes, and some that it does not.
fn good_and_bad(key: &Value) -> (Value, Vec<Value>) {
    if let Some(choices) = key.get("oneOf") {
        let most = choices[1]["maximum"].as_u64().expect("a bound");
        return (json!(most), vec![json!("none"), json!(0), json!(most + 1), json!(true)]);
    }
    match key["type"].as_str().expect("a type") {
        "boolean" => (json!(true), vec![json!("yes"), json!(1)]),
        "integer" => {
            let (least, most) = (key["minimum"].as_u64().expect("a bound"), key["maximum"].as_u64().expect("a bound"));
            let mut bad = vec![json!(most + 1), json!("1"), json!(1.5)];
            bad.push(least.checked_sub(1).map_or(json!(-1), Value::from));
            (json!(most), bad)
        }
        "array" => match key["items"].get("enum") {
            Some(choices) => (json!([choices[0]]), vec![json!(["nonsense"]), json!("x"), json!([1])]),
            None => (json!(["a", "b"]), vec![json!("a"), json!([1])]),
        },
        "string" => match (key.get("enum"), key.get("pattern")) {
            (Some(choices), _) => (choices[1].clone(), vec![json!("nonsense"), json!(1), json!([])]),
            (None, Some(_)) => {
                let mut bad = vec![json!("35"), json!("35 s"), json!("soon"), json!(35), json!("-1s"), json!("1.5s")];
                // Where zero means something, the reference does not say "above zero".
                let is_above_zero = key["pattern"].as_str().is_some_and(|pattern| pattern.contains("[1-9]"));
                bad.extend(is_above_zero.then(|| json!("0s")));
                (json!("35m"), bad)
            }
            (None, None) => (json!("x"), vec![json!(1), json!(["x"])]),
        },
        other => panic!("{other} is no type of this file"),
    }
}

/// Each table with its name, whether it may stand many times, and the schemas of its keys.
fn tables(schema: &Value) -> Vec<(String, bool, Map<String, Value>)> {
    let properties = schema["properties"].as_object().expect("tables");
    let of = |(name, table): (&String, &Value)| {
        let many = table["type"] == "array";
        let keys = if many { &table["items"]["properties"] } else { &table["properties"] };
        (name.clone(), many, keys.as_object().expect("keys").clone())
    };
    properties.iter().map(of).collect()
}

/// What `seeway check` says of a document's keys.
fn problems(document: &Value) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let text = toml::to_string(document).unwrap_or_else(|error| panic!("{error}: {document}"));
    match seeway::config::Config::read(&text, &folder.path().join("seeway.toml"), Vec::new()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.list.iter().map(|problem| problem.key.clone()).collect(),
    }
}

#[test]
fn the_examples_are_valid_and_the_full_one_is_the_packages() {
    let example = seeway(&["config", "example"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    assert_eq!(example, std::fs::read_to_string(root.join("deploy/seeway.toml")).expect("there"));
    // With each key that is commented out, too.
    let uncommented: Vec<&str> = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| is_key(key)) => rest,
            _ => line,
        })
        .collect();
    judge(&[
        case("the example", as_json(&example), true),
        case("the smallest", smallest(), true),
        case("the example with every default", as_json(&uncommented.join("\n")), true),
    ]);
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[test]
fn every_key_takes_a_good_value_and_refuses_bad_ones_as_check_does() {
    let schema = schema();
    let mut cases = Vec::new();
    let mut count = 0;
    for (table, many, keys) in tables(&schema) {
        for (key, of_key) in &keys {
            count += 1;
            assert!(of_key["description"].as_str().is_some_and(|text| text.len() > 10), "{table}.{key}");
            let (good, bad) = good_and_bad(of_key);
            cases.push(case(format!("{table}.{key} = {good}"), with(&table, many, key, good), true));
            if let Some(default) = of_key.get("default") {
                cases.push(case(format!("{table}.{key}'s default"), with(&table, many, key, default.clone()), true));
            }
            for bad in bad {
                let document = with(&table, many, key, bad.clone());
                let named = problems(&document);
                let is_named = named.iter().any(|path| path.starts_with(&table) && path.ends_with(&format!(".{key}")));
                assert!(is_named, "check takes {table}.{key} = {bad}: {named:?}");
                cases.push(case(format!("{table}.{key} = {bad}"), document, false));
            }
        }
        cases.push(case(format!("{table}.nonsense"), with(&table, many, "nonsense", json!(1)), false));
    }
    // No key of the reference is missing here.
    let reference = seeway(&["check", "--reference"]);
    assert_eq!(count, reference.lines().filter(|line| line.starts_with("| `")).count());
    judge(&cases);
}

#[test]
fn what_is_unknown_or_missing_is_refused() {
    let mut cases = vec![case("an unknown table", with("nonsense", false, "x", json!(1)), false)];
    for table in ["machine", "world"] {
        let mut document = smallest();
        document.as_object_mut().expect("an object").remove(table);
        cases.push(case(format!("no {table}"), document.clone(), false));
        document[table] = json!([]);
        cases.push(case(format!("an empty {table}"), document, false));
        for key in tables(&schema()).into_iter().find(|(name, ..)| name == table).expect("there").2.keys() {
            let required =
                schema()["properties"][table]["items"]["required"].to_string().contains(&format!("\"{key}\""));
            let mut document = smallest();
            if document[table][0].as_object_mut().expect("an object").remove(key).is_some() && required {
                cases.push(case(format!("{table} without {key}"), document, false));
            }
        }
    }
    assert!(cases.len() >= 5 + 5, "required keys were found: {}", cases.len());
    judge(&cases);
}
