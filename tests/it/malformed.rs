//! Every malformed spec and topology gives its snapshotted problems, all of them at once, and nothing panics.
//!
//! `tests/it/malformed/{spec,topology}/*.yaml` are the inputs, the `.txt` beside each is what a person is shown.
//! After a change of wording run with `BARLINE_BLESS=1` and read the difference.

use std::path::{Path, PathBuf};

use barline::spec::problem::render;
use barline::spec::{Problem, load_texts};
use barline::stages::ROWS;
use barline::telemetry::kafka;
use barline::topology::{Machine, compile};
use proptest::prelude::*;

/// Large enough for every case but those about it.
const MACHINE: Machine = Machine { memory_bytes: 8 << 30 };

#[test]
fn every_malformed_spec_gives_its_problems() {
    compare("spec", |name, text| load_texts([(name.to_owned(), text.to_owned())]).err());
}

#[test]
fn every_malformed_topology_gives_its_problems() {
    compare("topology", |name, text| {
        compile(name, text, ROWS.iter().map(|row| &row.kind), kafka::parse, &[], MACHINE).err()
    });
}

/// Runs `problems_of` over the folder's inputs and compares what it gives with the snapshots.
fn compare(folder: &str, problems_of: impl Fn(&str, &str) -> Option<Vec<Problem>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/malformed").join(folder);
    let bless = std::env::var_os("BARLINE_BLESS").is_some();
    let inputs = inputs(&folder);
    assert!(inputs.len() >= 35, "{} inputs in {}", inputs.len(), folder.display());
    let mut differing = Vec::new();
    for input in inputs {
        let name = input.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&input).unwrap();
        let problems = problems_of(&name, &text).unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(problems.iter().all(|problem| problem.file == name), "{name}: a problem without its file");
        let shown = render(&problems);
        let snapshot = input.with_extension("txt");
        if bless {
            std::fs::write(&snapshot, &shown).unwrap();
        } else if std::fs::read_to_string(&snapshot).ok().as_deref() != Some(&shown) {
            differing.push(format!("--- {}\n{shown}", snapshot.display()));
        }
    }
    assert!(differing.is_empty(), "differ from their snapshots, now:\n{}", differing.join("\n"));
}

fn inputs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    inputs.sort();
    inputs
}

/// A shipped file with some of it cut out, doubled or overwritten.
fn mutated(folder: &'static str) -> impl Strategy<Value = String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let texts: Vec<String> = inputs(&folder).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let edit = (any::<prop::sample::Index>(), 0..40_usize, "[-a-z0-9:{}\\[\\],&*!#'\"|>%@ \n\t~.é\u{0}]{0,6}");
    (prop::sample::select(texts), prop::collection::vec(edit, 1..4)).prop_map(|(text, edits)| {
        edits.into_iter().fold(text, |text, (at, len, inserted)| {
            let at = at.index(text.len() + 1);
            let begin = (0..=at).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            let end =
                (begin..=text.len()).find(|i| *i >= begin + len && text.is_char_boundary(*i)).unwrap_or(text.len());
            format!("{}{inserted}{}", &text[..begin], &text[end..])
        })
    })
}

proptest! {
    #[test]
    fn no_mutilated_spec_panics(text in mutated("specs")) {
        if let Err(problems) = load_texts([("x.yaml".to_owned(), text)]) {
            prop_assert!(!render(&problems).is_empty());
        }
    }

    #[test]
    fn no_mutilated_topology_panics(text in mutated("topologies")) {
        match compile("x.yaml", &text, ROWS.iter().map(|row| &row.kind), kafka::parse, &[], MACHINE) {
            Ok(plan) => prop_assert!(!plan.to_string().is_empty()),
            Err(problems) => prop_assert!(!render(&problems).is_empty()),
        }
    }
}
