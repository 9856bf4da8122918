//! What `barline check` says of who may come in.

use super::kit::{ask, certificates, run, tokens, write};
use crate::harness::{barline, root};

fn check(overrides: &[&str]) -> (Option<i32>, String) {
    let mut arguments = vec!["check", "topologies/edge.yaml"];
    arguments.extend(overrides.iter().flat_map(|change| ["--set", change]));
    run(&mut barline(&arguments))
}

#[test]
fn a_listener_for_everybody_needs_tls_or_tokens_or_a_word() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let tls = format!("security.tls={{certificate: {:?}, key: {:?}}}", file("server.pem"), file("server.key"));
    let tokens = tokens(dir.path());
    for open in ["ingest.listen=0.0.0.0:9876", "http.listen=0.0.0.0:9877", "metrics.listen='[::]:9878'"] {
        let (code, said) = check(&[open]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("for everybody on the network") && said.contains("insecure: true"), "{said}");
        for guarded in ["security.insecure=true", &tokens, &tls] {
            let (code, said) = check(&[open, guarded]);
            assert_eq!(code, Some(0), "{said}");
            assert!(said.contains("\nsecurity "), "{said}");
        }
    }
    assert!(!check(&[]).1.contains("\nsecurity "));
    let (code, said) = check(&["ingest.listen=0.0.0.0:9876", "security.insecure=false"]);
    assert!(code == Some(2), "{said}");
}

#[test]
fn tokens_over_the_network_without_tls_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let tls = format!("security.tls={{certificate: {:?}, key: {:?}}}", file("server.pem"), file("server.key"));
    let (tokens, insecure) = (tokens(dir.path()), "security.insecure=true".to_owned());
    let open = [("ingest", "ingest.listen=0.0.0.0:9876"), ("metrics", "metrics.listen='[::]:9878'")];
    for (name, open) in open {
        let warned = |others: &[&String]| {
            let changes: Vec<&str> = others.iter().map(|change| change.as_str()).chain([open]).collect();
            let (code, said) = check(&changes);
            assert_eq!(code, Some(0), "{said}");
            said.matches(&format!("warning: {name}: listens at ")).count()
        };
        assert_eq!([warned(&[&tokens]), warned(&[&tokens, &tls]), warned(&[&tokens, &insecure])], [1, 0, 0], "{name}");
    }
    assert!(!check(&[&tokens]).1.contains("warning: "));
}

#[test]
fn secrets_that_cannot_be_used_are_told_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let written =
        "topology: t\nsecurity: { tokens: [ { roles: [query], token: hunter2-hunter2-hunter2 } ] }\nstages: {}\n";
    let file = write(dir.path(), "written.yaml", written);
    let (code, said) = run(&mut ask(&format!("check {}", file.display())));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("written.yaml:2:") && said.contains("{file: PATH}") && !said.contains("hunter2"), "{said}");
    let short = write(dir.path(), "short", "hunter2").display().to_string();
    for (token, told) in [
        (format!("{{file: {short:?}}}"), "7 bytes, 16 or more are allowed"),
        ("{file: /no/such/file}".to_owned(), "name a readable file"),
        ("{env: NO_SUCH_VARIABLE}".to_owned(), "NO_SUCH_VARIABLE"),
        ("12345678901234567890".to_owned(), "a token written into the topology"),
    ] {
        let (code, said) = check(&[&format!("security.tokens=[{{roles: [query], token: {token}}}]")]);
        assert!(code == Some(2) && said.contains(told), "{token}: {said}");
        assert!(!said.contains("hunter2") && !said.contains("12345678901234567890"), "{said}");
    }
    for (change, told) in [
        ("security.tokens=[{roles: [], token: {env: X}}]", "opens nothing"),
        ("security.tokens=[{roles: [root], token: {env: X}}]", "ingest"),
        ("security.tls={certificate: no.pem, key: no.key}", "security.tls.certificate"),
        ("security.limits.connections=0", "security.limits"),
        ("security.limits.handshake=0s", "longer than 0s"),
        ("security.tsl={}", "did you mean `tls`?"),
    ] {
        let (code, said) = check(&[change]);
        assert!(code == Some(2) && said.contains(told), "{change}: {said}");
    }
}

#[test]
fn the_example_of_the_document_checks() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    tokens(dir.path());
    for (from, to) in [("ca.pem", "clients.pem"), ("query", "query.token")] {
        std::fs::copy(dir.path().join(from), dir.path().join(to)).unwrap();
    }
    let document = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let block = document.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let edge = std::fs::read_to_string(root().join("topologies/edge.yaml")).unwrap();
    write(dir.path(), "secure.yaml", &format!("{edge}\n{block}"));
    let specs = format!("specs={}", root().join("specs").display());
    let mut command = barline(&["check", "secure.yaml", "--set", &specs, "--set", "ingest.listen=0.0.0.0:9876"]);
    command.current_dir(dir.path()).env("INGEST_TOKEN", "ingest-0123456789");
    let (code, said) = run(&mut command);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("security TLS with client certificates · tokens for ingest, query"), "{said}");
}
