//! Every seed, and inputs at random, through its target on the stable compiler.

#![allow(clippy::unwrap_used, reason = "a test reports a failure by panicking")]

use std::{fs, path::PathBuf};

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use sekisho_fuzz::TARGETS;

fn here(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = here("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has no seeds");
    files
        .iter()
        .map(|file| {
            eprintln!("{}", file.display());
            fs::read(file).unwrap()
        })
        .collect()
}

#[test]
fn every_seed_is_handled() {
    for target in TARGETS {
        for seed in seeds(target.name) {
            (target.run)(&seed);
        }
    }
}

#[test]
fn every_corpus_and_every_program_has_its_target() {
    let names: Vec<_> = TARGETS
        .iter()
        .map(|target| target.name.to_owned())
        .collect();
    let listed = |folder: &str| {
        let mut found: Vec<_> = fs::read_dir(here(folder))
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                path.file_stem().unwrap().to_string_lossy().into_owned()
            })
            .collect();
        found.sort();
        found
    };
    assert_eq!(listed("corpus"), names);
    assert_eq!(listed("libfuzzer/fuzz_targets"), names);
}

#[test]
fn inputs_at_random_are_handled() {
    let config = ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    for target in TARGETS {
        let seeds = seeds(target.name);
        // A seed with some bytes changed and cut or grown, or nothing but noise.
        let changed = (
            prop::sample::select(seeds),
            vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            vec(any::<u8>(), 0..40),
            any::<prop::sample::Index>(),
        )
            .prop_map(|(mut seed, changes, tail, cut)| {
                for (index, value) in changes {
                    if !seed.is_empty() {
                        let index = index.index(seed.len());
                        seed[index] = value;
                    }
                }
                seed.truncate(cut.index(seed.len() * 4 + 1).max(1));
                seed.extend(tail);
                seed
            });
        let input = prop_oneof![3 => changed, 1 => vec(any::<u8>(), 0..600)];
        TestRunner::new(config.clone())
            .run(&input, |bytes| {
                (target.run)(&bytes);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{}: {error}", target.name));
    }
}
