//! The dependency rules between the crates and between the modules of the root package, as the
//! Architecture page states them. The compiler holds the first; these tests hold the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::{
    bench::{REPOSITORY, cargo},
    wait,
};

/// The direct dependencies of each workspace member: all of them, and those of other members.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let mut cargo = cargo(Path::new(REPOSITORY));
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let output = wait::output_of_cargo(cargo.args(arguments));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let normal = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().expect("a list").iter();
        let normal = all.filter(|dependency| dependency["kind"].is_null());
        normal.map(|dependency| dependency["name"].as_str().expect("a name").to_owned()).collect()
    };
    let packages = metadata["packages"].as_array().expect("a list").iter();
    packages
        .map(|package| (package["name"].as_str().unwrap().to_owned(), normal(package)))
        .collect()
}

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    let dependencies = dependencies();
    let members = |name: &str| -> Vec<&str> {
        let of = dependencies[name].iter().map(String::as_str);
        of.filter(|name| name.starts_with("llm-stream-")).collect()
    };
    assert_eq!(members("llm-stream-socket"), [""; 0]);
    assert_eq!(members("llm-stream-core"), [""; 0]);
    assert_eq!(members("llm-stream-sim"), ["llm-stream-core", "llm-stream-socket"]);
    assert_eq!(members("llm-stream-client"), ["llm-stream-core", "llm-stream-socket"]);
    assert_eq!(
        members("llm-stream-bench"),
        ["llm-stream-client", "llm-stream-core", "llm-stream-sim"]
    );
}

#[test]
fn core_depends_on_no_network_runtime_or_command_line_crate() {
    let dependencies = dependencies();
    for foreign in ["tokio", "mio", "reqwest", "rustls", "clap", "socket2", "nix"] {
        assert!(!dependencies["llm-stream-core"].contains(foreign), "{foreign}");
    }
}

#[test]
fn cargo_bench_compiles_no_test_only_crate() {
    let mut cargo = cargo(Path::new(REPOSITORY));
    cargo.args(["tree", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"]);
    let output = wait::output_of_cargo(cargo.args(["--package", "llm-stream-bench"]));
    let tree = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(tree.contains("libtest-mimic"), "{tree}");
    let only_tests = ["wiremock", "insta", "proptest", "boon", "sse-stream", "schemars", "vt100"];
    // The feature `parquet` is off by default.
    for name in only_tests.into_iter().chain(["parquet"]) {
        let is_it = |line: &str| line.split(' ').next() == Some(name);
        assert!(!tree.lines().any(is_it), "{name}");
    }
}

/// The Rust files below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let rust = files.into_iter().filter(|path| path.extension().is_some_and(|it| it == "rs"));
    rust.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

/// The modules of the crate that each module of the root package uses.
fn module_uses() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(REPOSITORY).join("src");
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(&root) {
        let relative = path.strip_prefix(&root).unwrap().with_extension("");
        let module = relative.iter().next().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let entry = uses.entry(module).or_default();
        for piece in text.split("crate::").skip(1) {
            entry.extend(first_names(piece));
        }
    }
    for (module, used) in &mut uses {
        used.remove(module);
    }
    uses
}

/// The names with which the paths behind `crate::` begin: one, or those of a list in braces.
fn first_names(piece: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()
    };
    let Some(list) = piece.strip_prefix('{') else { return vec![name(piece)] };
    let (mut depth, mut names, mut item) = (0, Vec::new(), String::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(std::mem::take(&mut item).trim_start())),
            _ => item.push(c),
        }
    }
    names.push(name(item.trim_start()));
    names.retain(|name| !name.is_empty());
    names
}

/// `cargo package` takes only the files below the folder of a crate.
#[test]
fn no_crate_includes_a_file_outside_its_folder() {
    let root = Path::new(REPOSITORY);
    let mut included = 0;
    for package in ["", "crates/core", "crates/client", "crates/sim", "crates/socket"] {
        let folder = root.join(package);
        for path in sources(&folder.join("src")) {
            let text = fs::read_to_string(&path).unwrap();
            // Packages are built without their unit tests.
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            for piece in
                ["include_str!(", "include_bytes!("].iter().flat_map(|it| code.split(it).skip(1))
            {
                let name = piece.split('"').nth(1).expect("a path");
                let file = path.parent().expect("a folder").join(name);
                let file = fs::canonicalize(file).expect("a file or its folder");
                assert!(file.starts_with(fs::canonicalize(&folder).unwrap()), "{}", file.display());
                included += 1;
            }
        }
    }
    assert!(included >= 3, "{included}");
}

#[test]
fn names_behind_crate_are_found() {
    assert_eq!(first_names("config::{self, Config};"), ["config"]);
    assert_eq!(
        first_names("{\n    cli::Cli, plan::{self, Case},\n    row,\n};"),
        ["cli", "plan", "row"]
    );
}

#[test]
fn modules_have_no_cycles() {
    let uses = module_uses();
    let mut left: BTreeSet<&String> = uses.keys().collect();
    loop {
        let free = |module: &&String| {
            uses[*module].iter().all(|used| !left.contains(used) || !uses.contains_key(used))
        };
        let free: Vec<_> = left.iter().copied().filter(free).collect();
        if free.is_empty() {
            break;
        }
        free.iter().for_each(|module| _ = left.remove(*module));
    }
    assert!(left.is_empty(), "a cycle among {left:?}");
}

/// Each type that `text` makes visible outside its module.
fn visible_types(text: &str) -> Vec<String> {
    // Types of unit tests are below the code.
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let types = code.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_visible = words.next()?.starts_with("pub");
        let keyword = words.find(|word| !word.ends_with(')'))?;
        let is_type = matches!(keyword, "struct" | "enum" | "trait" | "type" | "union");
        words.next().filter(|_| is_visible && is_type)
    });
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    types.map(|name| name.chars().take_while(|&c| is_name(c)).collect()).collect()
}

#[test]
fn types_that_a_module_makes_visible_are_found() {
    let text = "pub struct A<T>(T);\npub(super) enum B {\n    pub(in crate::x) type C = A;\n\
                struct D;\npub fn e() {}\npub trait F: G {}\n#[cfg(test)]\nmod tests {\npub struct H;";
    assert_eq!(visible_types(text), ["A", "B", "C", "F"]);
}

/// Grep must find a type: see the rules for names in CONTRIBUTING.md.
#[test]
fn the_name_of_a_visible_type_is_unique_in_the_workspace() {
    // One type with a variant for each operating system.
    const BY_SYSTEM: [&str; 1] = ["PacketSocket"];
    let folders =
        ["src", "crates/core/src", "crates/client/src", "crates/sim/src", "crates/socket/src"];
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in folders.iter().flat_map(|folder| sources(&Path::new(REPOSITORY).join(folder))) {
        for name in visible_types(&fs::read_to_string(&path).unwrap()) {
            found.entry(name).or_default().push(path.clone());
        }
    }
    assert!(found.len() > 200, "{}", found.len());
    found.retain(|name, paths| paths.len() > 1 && !BY_SYSTEM.contains(&name.as_str()));
    assert!(found.is_empty(), "{found:#?}");
}
