//! The kept inputs of `cargo fuzz`: each parser of outside data reads them without a panic.

use std::{collections::BTreeSet, fs, path::Path};

#[expect(unreachable_pub, reason = "the programs of `cargo fuzz` use them too")]
#[path = "../../../fuzz/src/targets.rs"]
mod targets;

fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus"))
}

#[test]
fn kept_inputs_are_parsed_as_the_laws_of_each_parser_demand() {
    for target in targets::TARGETS {
        let folder = corpus().join(target.name);
        let inputs: Vec<_> = fs::read_dir(&folder).unwrap().collect::<Result<_, _>>().unwrap();
        assert!(!inputs.is_empty(), "{} is empty", folder.display());
        for input in inputs {
            let data = fs::read(input.path()).unwrap();
            println!("{}", input.path().display()); // names the input of a panic
            (target.parse)(&data);
        }
    }
}

#[test]
fn every_target_has_a_program_and_every_program_a_target() {
    let names: BTreeSet<_> = targets::TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let programs = fs::read_dir(corpus().join("../targets")).unwrap();
    let programs: BTreeSet<_> = programs.map(|file| stem(&file.unwrap().path())).collect();
    assert_eq!(programs, names);
    let manifest = fs::read_to_string(corpus().join("../Cargo.toml")).unwrap();
    for name in &names {
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
        // The name is known.
        targets::run(name, b"");
    }
}
