//! Imports point down only: the layers of the design, held by reading every `use crate::` line.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the lowest layer up. A module may import from lower layers and from itself; the pure layer 1 may also
/// share what stands before it in its own row.
const LAYERS: &[&[&str]] = &[
    &["model"],
    &["spec"],
    &["topology", "window", "routing", "codec"],
    &["times"],
    &["catalog", "store", "broker"],
    &["tools"],
    &["runtime"],
    &["telemetry"],
    &["stages", "serve"],
    &["console", "app"],
    &["cli"],
];

/// Layers 0 and 1.
const PURE: &[&str] = &["model", "spec", "topology", "window", "routing", "codec"];

fn layer_of(module: &str) -> usize {
    let found = LAYERS.iter().position(|layer| layer.contains(&module));
    found.unwrap_or_else(|| panic!("module {module:?} stands in no layer; add it to LAYERS in tests/it/layers.rs"))
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The modules named by `crate::…` in the code of a file, its tests left out.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    for (line, text) in code.lines().enumerate().filter(|(_, text)| !text.trim_start().starts_with("//")) {
        for after in text.split("crate::").skip(1) {
            let module: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !module.is_empty() {
                found.push((line + 1, module));
            }
        }
    }
    found
}

#[test]
fn imports_point_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut wrong = Vec::new();
    for path in files {
        let inside = path.strip_prefix(&src).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
        let module = first.trim_end_matches(".rs");
        if module == "lib" || module == "main" {
            continue;
        }
        for (line, target) in imports(&fs::read_to_string(&path).unwrap()) {
            if target != module && layer_of(&target) >= layer_of(module) {
                wrong.push(format!("{}:{line}: {module} imports {target}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn the_pure_layers_know_no_runtime_no_clock_and_no_io() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let forbidden = ["tokio", "actix", "TcpListener", "TcpStream", "SystemTime", "Instant::now", "std::thread"];
    for module in PURE {
        let mut files = Vec::new();
        let dir = src.join(module);
        if dir.is_dir() {
            rust_files(&dir, &mut files);
        } else {
            files.push(src.join(format!("{module}.rs")));
        }
        for path in files {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("\n#[cfg(test)]").next().unwrap_or_default();
            for (line, text) in code.lines().enumerate().filter(|(_, text)| !text.trim_start().starts_with("//")) {
                let found = forbidden.iter().find(|word| text.contains(**word));
                assert!(found.is_none(), "{}:{}: {found:?} in a pure layer", path.display(), line + 1);
            }
        }
    }
}
