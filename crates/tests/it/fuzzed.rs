//! The kept inputs of `cargo fuzz`: each parser of outside data reads them without a panic.

use std::{collections::BTreeSet, fs, panic, path::Path};

use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_pcg::Pcg64;

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

/// Returns `data` with one to four faults.
fn mutated(data: &[u8], rng: &mut Pcg64) -> Vec<u8> {
    const TELLING: &[u8] = b"\r\n\0 :;,0159eE.+-{}[]\"'\\#&*!|>%@`\x80\xff\xef\xbb\xbf";
    let mut bytes = data.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(0..=bytes.len());
        let to = (at + rng.random_range(1..40)).min(bytes.len());
        match rng.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..to)),
            2 => {
                let part = bytes[at..to].to_vec();
                let target = rng.random_range(0..=bytes.len());
                bytes.splice(target..target, part);
            }
            3 => bytes.insert(at, rng.random()),
            _ => bytes.insert(at, *TELLING.choose(rng).expect("not empty")),
        }
    }
    bytes
}

/// Parses `count` mutations of each kept input; an input that panics is printed.
fn parse_mutated(count: u64) {
    for target in targets::TARGETS {
        let mut inputs: Vec<_> = fs::read_dir(corpus().join(target.name)).unwrap().collect();
        inputs.sort_by_key(|input| input.as_ref().unwrap().file_name());
        for (nth, input) in inputs.into_iter().enumerate() {
            let data = fs::read(input.unwrap().path()).unwrap();
            for seed in 0..count {
                let mut rng = Pcg64::seed_from_u64((nth as u64) << 32 | seed);
                let data = mutated(&data, &mut rng);
                let parsed = panic::catch_unwind(|| (target.parse)(&data));
                assert!(parsed.is_ok(), "{}: {}", target.name, data.escape_ascii());
            }
        }
    }
}

#[test]
fn mutations_of_the_kept_inputs_are_parsed() {
    parse_mutated(4);
}

#[test]
#[ignore = "takes minutes; the test above is the beginning of it"]
fn thousands_of_mutations_of_each_kept_input_are_parsed() {
    parse_mutated(2_000);
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
