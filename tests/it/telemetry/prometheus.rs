//! A real Prometheus, as Debian packages it: its tool checks what it is to be given, and itself scrapes the built binary.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use barline::telemetry::web;
use http::Request;
use http::uri::PathAndQuery;
use serde_json::Value;

use super::exposition::parse;
use crate::harness::{Server, block_on, free_port, root, skip};

/// Set by `.ci/run`: then a Prometheus that is missing is a failure.
const REQUIRED: &str = "BARLINE_REQUIRE_PROMETHEUS";
/// Those of `quickstart.yaml`.
const INSTANCES: f64 = 7.0;

/// Runs a program of the package; `None` where it is not on the path, which is told on stderr.
fn start(program: &str, arguments: &[&str]) -> Option<Child> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match command.spawn() {
        Ok(child) => Some(child),
        Err(error) => {
            skip(REQUIRED, &format!("{program} cannot be run ({error}); Debian has it in the package prometheus"));
            None
        }
    }
}

/// Runs `promtool` with `input`; what it said.
fn promtool(arguments: &[&str], input: &str) -> Option<Output> {
    let mut tool = start("promtool", arguments)?;
    tool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(tool.wait_with_output().unwrap())
}

#[test]
fn promtool_finds_nothing_to_complain_about_in_a_scrape() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start("quickstart.yaml", &dir.path().join("data"), &[]);
    let mut text = String::new();
    server.until("bars are stored", |server| {
        text = Server::get_from(server.metrics, "/metrics", "*/*").map_or_else(String::new, |(_, text)| text);
        parse(&text).iter().any(|s| s.name == "barline_bar_stored_delay_seconds_count" && s.value > 0.0)
    });
    let Some(output) = promtool(&["check", "metrics"], &text) else { return };
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_alert_rules_are_sound_and_fire_when_they_should() {
    let path = |file: &str| root().join(file).display().to_string();
    let Some(checked) = promtool(&["check", "rules", &path("dashboards/alerts.yaml")], "") else { return };
    assert!(checked.status.success(), "{checked:?}");
    let tested = promtool(&["test", "rules", &path("tests/it/telemetry/alerts.test.yaml")], "").unwrap();
    assert!(tested.status.success(), "{tested:?}");
}

/// A running Prometheus, killed when dropped.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Either is fine: it may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Starts one that scrapes these targets every second, each as a job of this name, and evaluates the alert rules.
    fn start(dir: &Path, targets: &[(&str, SocketAddr)]) -> Option<Self> {
        let rules = root().join("dashboards/alerts.yaml");
        let mut config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{rules:?}]\nscrape_configs:\n"
        );
        for (job, address) in targets {
            config += &format!("  - {{ job_name: {job}, static_configs: [{{ targets: [\"{address}\"] }}] }}\n");
        }
        let (file, address) = (dir.join("prometheus.yml"), free_port());
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(dir.join("prometheus.log")).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()));
        command.arg(format!("--web.listen-address={address}"));
        match command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn() {
            Ok(child) => Some(Self { child, address }),
            Err(error) => {
                skip(REQUIRED, &format!("prometheus cannot be run ({error}); Debian has it in the package prometheus"));
                None
            }
        }
    }

    /// What its API answers; nothing where it does not answer yet.
    fn ask(&self, path: &str) -> Option<Value> {
        let path = PathAndQuery::try_from(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let request = Request::get(format!("http://{}{path}", self.address)).body(http_body_util::Full::default());
        let (_, body) = block_on(web::send(request.unwrap(), &web::Access::default())).ok()?;
        serde_json::from_slice(&body).ok()
    }

    /// The result of an instant query, or why there is none.
    fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let encoded = percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
        let answer = self.ask(&format!("/api/v1/query?query={encoded}")).unwrap_or_default();
        match answer["data"]["result"].as_array() {
            Some(result) => Ok(result.clone()),
            None => Err(answer.to_string()),
        }
    }

    /// The only number of a query's result.
    fn number(&self, query: &str) -> Option<f64> {
        match self.query(query).as_deref() {
            Ok([one]) => one["value"][1].as_str()?.parse().ok(),
            _ => None,
        }
    }
}

/// Serves the figures of `metrics` in Prometheus' own format to one who would rather have OpenMetrics.
fn as_text(metrics: SocketAddr) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let text = move || async move { Server::get_from(metrics, "/metrics", "text/plain").unwrap().1 };
        let routes = axum::Router::new().route("/metrics", axum::routing::get(text));
        block_on(async { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), routes).await.unwrap() });
    });
    address
}

#[test]
fn a_real_prometheus_scrapes_every_family_in_both_formats_and_understands_rules_and_panels() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start("quickstart.yaml", &dir.path().join("data"), &[]);
    let targets = [("openmetrics", server.metrics), ("text", as_text(server.metrics))];
    let Some(prometheus) = Prometheus::start(dir.path(), &targets) else { return };
    for (job, _) in targets {
        server.until("it is scraped", |_| prometheus.number(&format!("up{{job=\"{job}\"}}")) == Some(1.0));
        let instances = format!("count(barline_stage_lag_seconds{{job=\"{job}\"}})");
        server.until("the lag of every instance is known", |_| prometheus.number(&instances) == Some(INSTANCES));
        let families: BTreeSet<String> = {
            let text = Server::get_from(server.metrics, "/metrics", "*/*").unwrap().1;
            parse(&text).into_iter().map(|sample| sample.name).collect()
        };
        let names = format!("count by (__name__) ({{job=\"{job}\",__name__=~\"barline_.+\"}})");
        server.until("every family is known", |_| {
            let found = prometheus.query(&names).unwrap_or_default();
            let name = |row: &Value| row["metric"]["__name__"].as_str().map(str::to_owned);
            found.iter().filter_map(name).collect::<BTreeSet<_>>().is_superset(&families)
        });
    }
    let seconds = "barline_stage_time_seconds_total{job=\"openmetrics\"}";
    server.until("rates are known", |_| {
        prometheus.query(&format!("rate({seconds}[10s])")).is_ok_and(|rates| rates.len() == 3 * INSTANCES as usize)
    });
    rules_are_evaluated(&mut server, &prometheus);
    panels_are_understood(&prometheus);
}

/// Every rule has been evaluated without an error.
fn rules_are_evaluated(server: &mut Server, prometheus: &Prometheus) {
    let written = std::fs::read_to_string(root().join("dashboards/alerts.yaml")).unwrap();
    let mut rules = Vec::new();
    server.until("the rules are evaluated", |_| {
        let answer = prometheus.ask("/api/v1/rules").unwrap_or_default();
        rules = answer["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown")
    });
    assert_eq!(rules.len(), written.matches("- alert:").count());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}

/// Every query of the dashboard is one to Prometheus.
fn panels_are_understood(prometheus: &Prometheus) {
    let dashboard = std::fs::read_to_string(root().join("dashboards/barline.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let mut asked = 0;
    for target in panels.filter_map(|panel| panel["targets"].as_array()).flatten() {
        let expression = target["expr"].as_str().unwrap();
        let expression = expression.replace("$topology", ".*").replace("$__rate_interval", "1m");
        prometheus.query(&expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        asked += 1;
    }
    assert!(asked > 30, "{asked} queries");
}
