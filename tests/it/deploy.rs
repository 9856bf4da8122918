//! What is in `deploy/` fits what it deploys: paths are there, ports are barline's, and the topologies check.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::harness::{barline, root};

fn deploy() -> PathBuf {
    root().join("deploy")
}

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&std::fs::read_to_string(deploy().join(path)).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap()).collect()
}

/// `ENV NAME=VALUE` of the image.
fn image() -> (BTreeMap<String, String>, String) {
    let text = std::fs::read_to_string(deploy().join("Dockerfile")).unwrap();
    let words = text.lines().flat_map(|line| line.split_whitespace());
    let pairs = words.filter_map(|word| word.split_once('=')).filter(|(name, _)| name.starts_with("BARLINE_"));
    (pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), text)
}

/// The addresses a topology listens on, as `barline check` resolves it with these variables.
fn check(topology: &str, environment: &BTreeMap<String, String>) -> String {
    let output = barline(&["check", topology]).envs(environment).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn the_containers_topology_checks_with_the_composes_environment_and_listens_on_its_ports() {
    let (mut environment, dockerfile) = image();
    let compose = yaml("docker-compose.yml");
    let service = &compose["services"]["barline"];
    for (name, value) in service["environment"].as_object().unwrap() {
        environment.insert(name.clone(), value.as_str().unwrap().to_owned());
    }
    let command = dockerfile.lines().find(|line| line.starts_with("CMD [\"run\"")).unwrap();
    let topology = command.split('"').find(|word| word.ends_with(".yaml")).unwrap();
    let plan = check(topology, &environment);
    let exposed = dockerfile.lines().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
    for port in exposed.split(' ') {
        assert!(texts(&service["ports"]).contains(&format!("127.0.0.1:{port}:{port}").as_str()), "{service}");
        assert!(environment.values().any(|value| *value == format!("0.0.0.0:{port}")), "{environment:?}\n{plan}");
    }
    let scraped = &yaml("prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"][0];
    assert_eq!(scraped, "barline:9878");
    let brokers: Vec<String> = serde_json::from_str(&environment["BARLINE_PUBLISH__BROKERS"]).unwrap();
    let advertised = compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap();
    assert!(advertised.contains(&format!("INTERNAL://{}", brokers[0])), "{advertised}");
}

#[test]
fn whatever_is_mounted_or_copied_is_there_and_nothing_else_reaches_the_image() {
    let compose = yaml("docker-compose.yml");
    for (name, service) in compose["services"].as_object().unwrap() {
        for volume in texts(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            let is_there = match source.starts_with('.') {
                true => deploy().join(source).exists(),
                false => compose["volumes"].as_object().unwrap().contains_key(source),
            };
            assert!(is_there, "{name} mounts {volume}");
        }
    }
    let (_, dockerfile) = image();
    let ignore = std::fs::read_to_string(deploy().join("Dockerfile.dockerignore")).unwrap();
    let kept: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let copied =
        dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--"));
    let copied: Vec<&str> = copied.flat_map(|line| line.split(' ').rev().skip(1)).collect();
    assert!(copied.iter().all(|path| root().join(path).exists()), "{copied:?}");
    let (mut kept, mut copied) = (kept, copied);
    kept.sort_unstable();
    copied.sort_unstable();
    assert_eq!(kept, copied);
    assert!(dockerfile.contains("\nUSER barline\n"));
}

#[test]
fn the_unit_runs_a_shipped_topology_and_waits_longer_than_its_drain() {
    let unit = std::fs::read_to_string(deploy().join("barline.service")).unwrap();
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    let topology = value("ExecStart=").split(' ').find(|word| word.ends_with(".yaml")).unwrap();
    let plan = check(&format!("topologies/{topology}"), &BTreeMap::new());
    assert!(plan.contains("drain 30s") && value("TimeoutStopSec=") == "45s", "{plan}");
    let dir = Path::new("/var/lib/barline");
    assert!(value("ExecStart=").contains(dir.to_str().unwrap()) && value("StateDirectory=") == "barline");
}
