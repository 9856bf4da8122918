//! A real Apache Kafka of a test's own, by `scripts/kafka`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};

use crate::harness::skip;

/// Set by `.ci/run`: then a broker that cannot be started is a failure.
const REQUIRED: &str = "BARLINE_REQUIRE_KAFKA";

/// A broker of a test's own; it ends with the guard, and with the process if that is killed.
pub struct RealKafka {
    guard: Child,
    dir: tempfile::TempDir,
    facts: HashMap<String, String>,
    options: Vec<String>,
}

/// Starts a real broker; `None` where this machine has no Java or Maven, which is told on stderr.
pub fn real(options: &[&str]) -> Option<RealKafka> {
    let dir = tempfile::tempdir().unwrap();
    let options: Vec<_> = options.iter().map(ToString::to_string).collect();
    match guarded(dir.path(), &options) {
        Ok((guard, facts)) => Some(RealKafka { guard, dir, facts, options }),
        Err(reason) => {
            skip(REQUIRED, &reason);
            None
        }
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka")
}

/// One installation at a time; the script has a lock of its own, but its waiting would look like a hang.
static STARTING: Mutex<()> = Mutex::new(());

fn guarded(dir: &Path, options: &[String]) -> Result<(Child, HashMap<String, String>), String> {
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(script());
    command.arg("guard").arg(dir.join("kafka")).args(options);
    let mut guard = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut facts = HashMap::new();
    for line in BufReader::new(guard.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "ready" {
            return Ok((guard, facts));
        }
        facts.extend(line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
    let output = guard.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.code() == Some(3) { Err(said) } else { panic!("scripts/kafka: {said}") }
}

impl RealKafka {
    /// Where a client without any security goes.
    pub fn bootstrap(&self) -> &str {
        self.fact("bootstrap")
    }

    /// What the script tells of the broker: `sasl`, `tls`, `mtls`, `ca`, `certificate`, `key`.
    pub fn fact(&self, name: &str) -> &str {
        &self.facts[name]
    }

    /// Makes a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]);
    }

    /// Makes a topic with settings of its own.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for result in runtime.block_on(self.admin().create_topics([&topic], &options())).unwrap() {
            result.unwrap();
        }
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for result in runtime.block_on(self.admin().delete_topics(&[name], &options())).unwrap() {
            result.unwrap();
        }
    }

    fn admin(&self) -> AdminClient<rdkafka::client::DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap()
    }

    /// Kafka's own tool for access rules.
    pub fn acl(&self, arguments: &[&str]) {
        let status = Command::new(script()).arg("acl").arg(self.bootstrap()).args(arguments).output().unwrap();
        assert!(status.status.success(), "{status:?}");
    }

    /// Sends the broker's process a signal, `-STOP` for instance.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, self.fact("pid")]).status().unwrap();
        assert!(status.success());
    }

    /// Kills the broker at once.
    pub fn kill(&mut self) {
        drop(self.guard.stdin.take());
        self.guard.wait().unwrap();
    }

    /// Starts it again where it was.
    pub fn restart(&mut self) {
        let (guard, facts) = guarded(self.dir.path(), &self.options).unwrap();
        (self.guard, self.facts) = (guard, facts);
    }
}

impl Drop for RealKafka {
    fn drop(&mut self) {
        self.kill();
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)))
}
