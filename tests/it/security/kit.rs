//! Tokens, certificates, and what the tests of this directory ask.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use crate::harness::{barline, block_on};

pub const INGEST: &str = "ingest-0123456789";
pub const QUERY: &str = "query-0123456789";
pub const BOTH: &str = "both-0123456789ab";
pub const ADMIN: &str = "admin-0123456789";

/// Writes a file in `dir`.
pub fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// An override with a token for every role, each in a file named after it.
pub fn tokens(dir: &Path) -> String {
    let roles = [
        ("ingest", INGEST, "ingest"),
        ("query", QUERY, "query"),
        ("both", BOTH, "ingest, query"),
        ("admin", ADMIN, "admin"),
    ];
    let tokens = roles.map(|(name, token, roles)| {
        let file = write(dir, name, &format!("{token}\n"));
        format!("{{roles: [{roles}], token: {{file: {file:?}}}}}")
    });
    format!("security.tokens=[{}]", tokens.join(", "))
}

/// Makes certificates in `dir`: `ca`, what it signed (`server`, `client`, and `old`, which has expired), and `stranger`,
/// signed by nobody it knows.
pub fn certificates(dir: &Path) {
    let key = || KeyPair::generate().unwrap();
    let params = || CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, key()).unwrap();
    write(dir, "ca.pem", &authority.as_ref().pem());
    let mut old = params();
    (old.not_before, old.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    for (name, params) in [("server", params()), ("client", params()), ("old", old)] {
        let key = key();
        write(dir, &format!("{name}.pem"), &params.signed_by(&key, &authority).unwrap().pem());
        write(dir, &format!("{name}.key"), &key.serialize_pem());
    }
    let key = key();
    write(dir, "stranger.pem", &params().self_signed(&key).unwrap().pem());
    write(dir, "stranger.key", &key.serialize_pem());
}

/// Status and the whole reply of a GET over plain HTTP.
pub fn get(address: SocketAddr, path: &str, authorization: Option<&str>) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let authorization = authorization.map_or(String::new(), |value| format!("authorization: {value}\r\n"));
    write!(stream, "GET {path} HTTP/1.1\r\nhost: barline\r\n{authorization}connection: close\r\n\r\n").ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    Some((reply.split(' ').nth(1)?.parse().ok()?, reply))
}

/// How much was refused for `reason`, as a scrape tells it.
pub fn refused(scrape: &str, reason: &str) -> u64 {
    let is_it = |line: &&str| {
        line.starts_with("barline_server_refused_total{") && line.contains(&format!("reason=\"{reason}\""))
    };
    let line = scrape.lines().find(is_it).unwrap_or_else(|| panic!("no {reason} in {scrape}"));
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

/// Runs `barline`; what it printed to both, and its exit code.
pub fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

/// `barline ARGUMENTS`, split at spaces.
pub fn ask(arguments: &str) -> Command {
    barline(&arguments.split(' ').collect::<Vec<_>>())
}

/// `loadgen run` of a few thousand ticks, with these arguments beside: whether every bar was right, or why it failed.
pub fn load(arguments: &str) -> Result<bool, String> {
    use clap::Parser;
    let command = format!("loadgen run --profile market --ticks 2000 --series 10 --reconnect-for 0s {arguments}");
    let cli = loadgen::cli::Cli::try_parse_from(command.split(' ')).unwrap();
    let loadgen::cli::Command::Run(run) = cli.command else { panic!("{command}") };
    let (profile, options) = run.resolve()?;
    let report = block_on(loadgen::run::run(profile, &options)).map_err(|failure| format!("{failure:?}"))?;
    Ok(report.verify.is_none_or(|verdict| verdict.ok))
}
