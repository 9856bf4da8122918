//! A broker that is there and does not take what it is sent: every cause is told in words, and only what it concerns waits.

use rdkafka::types::RDKafkaRespErr;

use super::bars::{added_up, once, stored};
use super::batches::{batches, send};
use super::broker::{self, Broker, Mock, RealKafka};
use super::consumer::consume;
use super::flow::{self, MARKET, NETWORK, NO_NEW_TOPICS};
use crate::crash::load;
use crate::harness::{Server, barline};

const ONLY_MARKET: &str = "publish.specs=[\"market_ticks\"]";

fn symbols(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("S{number}")).collect()
}

/// Who comes in by password.
fn sasl(user: &str, password: &str) -> String {
    format!("publish.security={{sasl: {{mechanism: PLAIN, username: {user}, password: {password}}}}}")
}

#[test]
fn a_missing_topic_is_told_again_and_again_and_only_its_bars_wait_until_it_is_there() {
    broker::both().for_each(|broker| missing(&broker));
}

fn missing(broker: &Broker) {
    broker.create_topic(NETWORK, 1);
    broker.lack_topic(MARKET, 1);
    let (dir, bootstrap) = (tempfile::tempdir().unwrap(), broker.bootstrap());
    let mut server = flow::start(&bootstrap, &dir.path().join("data"), &[NO_NEW_TOPICS]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut loads = load::start(server.grpc, dir.path(), 1, &runtime);
    flow::until_told(&mut server, &format!("topic \"{MARKET}\" is missing: create it"));
    server.until("bars of the other topic are sent", |server| flow::count(server, "network_flows", "delivered") > 20);
    let lines = |server: &Server| server.output().matches("is missing: create it").count();
    server.until("it is told again", |server| lines(server) > 1);
    assert_eq!(flow::count(&server, "market_ticks", "delivered"), 0);
    broker.create_topic(MARKET, 1);
    loads.iter_mut().for_each(|load| load.end(&runtime));
    flow::until_sent(&mut server);
    let records = consume(&bootstrap, MARKET, true);
    assert_eq!(added_up(once(&records).0), stored(&server, "market_ticks"));
    flow::stop(server);
}

#[test]
fn after_a_topic_was_deleted_its_bars_wait_until_it_is_made_anew() {
    let Some(kafka) = broker::real(&[]) else { return };
    kafka.create_topic(MARKET, 1);
    let dir = tempfile::tempdir().unwrap();
    let sink = [ONLY_MARKET, NO_NEW_TOPICS];
    let mut server = flow::start(kafka.bootstrap(), &dir.path().join("data"), &sink);
    send(&server, batches(&symbols(10), 5));
    flow::until_sent(&mut server);
    let before = stored(&server, "market_ticks");
    kafka.delete_topic(MARKET);
    let later = symbols(20).split_off(10);
    send(&server, batches(&later, 5));
    flow::until_told(&mut server, "is missing: create it");
    assert!(flow::count(&server, "market_ticks", "outstanding") > 0);
    kafka.create_topic(MARKET, 1);
    flow::until_sent(&mut server);
    let mut after = stored(&server, "market_ticks");
    after.retain(|id, _| !before.contains_key(id));
    assert_eq!(added_up(once(&consume(kafka.bootstrap(), MARKET, true)).0), after);
    flow::stop(server);
}

#[test]
fn bars_of_one_who_may_not_write_wait_until_he_may() {
    let Some(kafka) = broker::real(&["--sasl", "--acl"]) else { return };
    kafka.create_topic(MARKET, 1);
    let grant = ["--add", "--allow-principal", "User:bob", "--operation", "Write", "--operation", "Describe"];
    let permit = || kafka.acl(&[&grant[..], &["--topic", MARKET]].concat());
    forbidden(kafka.fact("sasl"), kafka.bootstrap(), &[&sasl("bob", "bob-secret")], permit);
}

#[test]
fn bars_for_a_topic_that_nobody_may_write_to_wait_until_one_may() {
    let mock = Mock::start();
    mock.create_topic(MARKET, 1);
    mock.fail_topic(MARKET, RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    let bootstrap = mock.bootstrap();
    forbidden(&bootstrap, &bootstrap, &[], || mock.create_topic(MARKET, 1));
}

/// Sends by `address` what may be sent once `permit` has been called, and reads it by `bootstrap`.
fn forbidden(address: &str, bootstrap: &str, sink: &[&str], permit: impl Fn()) {
    let dir = tempfile::tempdir().unwrap();
    let sink = [&[ONLY_MARKET, NO_NEW_TOPICS], sink].concat();
    let mut server = flow::start(address, &dir.path().join("data"), &sink);
    send(&server, batches(&symbols(10), 5));
    flow::until_told(&mut server, "grant Describe and Write");
    assert_eq!(flow::count(&server, "market_ticks", "delivered"), 0);
    permit();
    flow::until_sent(&mut server);
    let records = consume(bootstrap, MARKET, true);
    assert_eq!(added_up(once(&records).0), stored(&server, "market_ticks"));
    flow::stop(server);
}

#[test]
fn a_wrong_password_is_told_as_one_and_never_shown() {
    let Some(kafka) = broker::real(&["--sasl"]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "not-alices-secret\n").unwrap();
    let data = dir.path().join("data");
    let from_file = sasl("alice", &format!("{{file: {}}}", password.display()));
    let mut server = flow::start(kafka.fact("sasl"), &data, &[ONLY_MARKET, &from_file]);
    send(&server, batches(&symbols(10), 5));
    let told = flow::until_told(&mut server, "the user name or password is wrong: check `security.sasl`");
    let shown = format!("{told}{}{}", server.output(), flow::sinks(&server));
    assert!(!shown.contains("not-alices-secret"), "{shown}");
    flow::stop(server);
    std::fs::write(&password, "alice-secret").unwrap();
    let mut server = flow::start(kafka.fact("sasl"), &data, &[ONLY_MARKET, &from_file]);
    flow::until_sent(&mut server);
    assert_eq!(consume(kafka.bootstrap(), MARKET, true).len(), 50);
    flow::stop(server);
}

/// A topic that takes 2 000 bytes at most, and one series among twenty whose records have more.
fn too_large(kafka: &RealKafka, sink: &[&str]) {
    kafka.create_topic_with(MARKET, 1, &[("max.message.bytes", "2000")]);
    let dir = tempfile::tempdir().unwrap();
    let sink = [&[ONLY_MARKET, NO_NEW_TOPICS, "publish.compression=none"], sink].concat();
    let mut server = flow::start(kafka.bootstrap(), &dir.path().join("data"), &sink);
    let large = "L".repeat(400);
    let mut all = symbols(20);
    all.insert(7, large.clone());
    send(&server, batches(&all, 5));
    let sink = flow::until_sent(&mut server);
    assert_eq!((&sink["specs"][0]["quarantined"], &sink["specs"][0]["delivered"]), (&5.into(), &100.into()), "{sink}");
    let mut expected = stored(&server, "market_ticks");
    expected.retain(|id, _| !id.contains(&large));
    assert_eq!(added_up(once(&consume(kafka.bootstrap(), MARKET, true)).0), expected);
    let refused = |server: &Server| flow::sinks(server)["refused"].as_array().cloned().unwrap_or_default();
    server.until("what is put aside can be seen", |server| refused(server).len() == 5);
    let refused = refused(&server);
    assert!(refused.iter().all(|row| row["key"].as_str().unwrap().contains(&large) && row["topic"] == MARKET));
    assert!(server.output().contains("a bar is refused for good and put aside"), "{}", server.output());
    flow::stop(server);
}

#[test]
fn a_record_too_large_is_put_aside_with_its_reason_and_its_neighbours_arrive() {
    let Some(kafka) = broker::real(&[]) else { return };
    too_large(&kafka, &[]);
}

#[test]
fn a_record_too_large_is_put_aside_with_exactly_once_too() {
    let Some(kafka) = broker::real(&[]) else { return };
    too_large(&kafka, &["publish.exactly_once=true"]);
}

#[test]
fn more_specs_than_a_transaction_can_tell_the_positions_of_are_refused_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let one = std::fs::read_to_string("specs/market_ticks.yaml").unwrap();
    for number in 0..70 {
        let text = one.replace("series: market_ticks", &format!("series: market_ticks_{number}"));
        std::fs::write(dir.path().join(format!("{number}.yaml")), text).unwrap();
    }
    let specs = format!("specs={}", dir.path().display());
    let check = |exactly_once: &str| {
        let sink = format!("publish.exactly_once={exactly_once}");
        barline(&["check", "topologies/edge-kafka.yaml", "--set", &specs, "--set", &sink]).output().unwrap()
    };
    assert!(check("false").status.success());
    let refused = check("true");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("sink `publish`: the positions of 70 specs take"), "{said}");
    assert!(said.contains("= remedy: divide the specs among several sinks with `specs`"), "{said}");
}
