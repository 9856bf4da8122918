//! From what a topology says to librdkafka's properties, and back to the topology's words where it refuses one.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::settings::{Connection, Mechanism, Producing};
use crate::model::time::MILLISECOND;
use crate::topology::Complaint;

/// Properties that are ours to set, and where a topology says what they come from.
const OURS: [(&str, &str); 24] = [
    ("bootstrap.servers", "brokers"),
    ("metadata.broker.list", "brokers"),
    ("security.protocol", "security"),
    ("sasl.mechanism", "security.sasl.mechanism"),
    ("sasl.mechanisms", "security.sasl.mechanism"),
    ("sasl.username", "security.sasl.username"),
    ("sasl.password", "security.sasl.password"),
    ("ssl.key.password", "security.tls.key_password"),
    ("transactional.id", "exactly_once"),
    ("enable.idempotence", "nothing: it is always on"),
    ("acks", "nothing: every replica in sync has to have a record"),
    ("request.required.acks", "nothing: every replica in sync has to have a record"),
    ("message.timeout.ms", "nothing: a record waits, so that none overtakes another of its key"),
    ("delivery.timeout.ms", "nothing: a record waits, so that none overtakes another of its key"),
    ("queue.buffering.max.messages", "in_flight.records"),
    ("queue.buffering.max.kbytes", "in_flight.bytes"),
    ("ssl.key.location", "security.tls.key"),
    ("ssl.certificate.location", "security.tls.certificate"),
    ("delivery.report.only.error", "nothing: every record's end has to be known"),
    ("group.id", "group"),
    ("group.instance.id", "member"),
    ("enable.auto.commit", "nothing: what is committed is durable here first"),
    ("enable.auto.offset.store", "nothing: what is committed is durable here first"),
    ("auto.offset.reset", "nothing: a group begins with what the topic still has"),
];

/// The properties of any client of `connection`.
///
/// # Errors
/// A secret cannot be read; the key it is under, and why.
pub fn client(connection: &Connection) -> Result<ClientConfig, Complaint> {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Info);
    config.set("bootstrap.servers", connection.brokers.join(","));
    config.set("client.id", "barline");
    config.set("reconnect.backoff.max.ms", "1000");
    config.set("socket.keepalive.enable", "true");
    let security = &connection.security;
    let protocol = match (&security.sasl, &security.tls) {
        (None, None) => "plaintext",
        (None, Some(_)) => "ssl",
        (Some(_), None) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(sasl) = &security.sasl {
        config.set("sasl.mechanism", sasl.mechanism.name());
        config.set("sasl.username", &sasl.username);
        config.set("sasl.password", sasl.password.read().map_err(|error| ("security.sasl.password".into(), error))?);
    }
    if let Some(tls) = &security.tls {
        let files = [
            ("ssl.ca.location", &tls.ca),
            ("ssl.certificate.location", &tls.certificate),
            ("ssl.key.location", &tls.key),
        ];
        for (name, file) in files {
            file.iter().for_each(|file| _ = config.set(name, file));
        }
        if let Some(password) = &tls.key_password {
            let password = password.read().map_err(|error| ("security.tls.key_password".into(), error))?;
            config.set("ssl.key.password", password);
        }
    }
    connection.properties.iter().for_each(|(name, value)| _ = config.set(name, value));
    Ok(config)
}

/// The properties of a producer; `transactional` is its id, where it has transactions.
///
/// # Errors
/// As [`client`].
pub fn producer(
    connection: &Connection,
    producing: &Producing,
    transactional: Option<&str>,
) -> Result<ClientConfig, Complaint> {
    let mut config = client(connection)?;
    let milliseconds = |ns: i64| (ns.max(0) / MILLISECOND).to_string();
    let transaction_timeout = connection.transaction_timeout().as_millis().to_string();
    config.set("enable.idempotence", "true");
    config.set("acks", "all");
    config.set("compression.type", producing.compression.name());
    config.set("linger.ms", milliseconds(producing.linger.0));
    config.set("batch.size", producing.batch.0.to_string());
    config.set("partitioner", producing.partitioner.name());
    config.set("queue.buffering.max.messages", producing.in_flight.records.to_string());
    config.set("queue.buffering.max.kbytes", (producing.in_flight.bytes.0 >> 10).max(1).to_string());
    // A topic that is missing is told soon, and found soon after it was made.
    config.set("topic.metadata.propagation.max.ms", "2000");
    match transactional {
        // The outbox is the truth: a record waits for as long as it takes, so that none overtakes another of its key.
        None => config.set("message.timeout.ms", "0"),
        Some(id) => config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", &transaction_timeout)
            .set("message.timeout.ms", &transaction_timeout),
    };
    connection.properties.iter().for_each(|(name, value)| _ = config.set(name, value));
    Ok(config)
}

/// The properties of a member of the consumer group `group`; `member` is its name there, where it keeps its partitions
/// over a restart.
///
/// # Errors
/// As [`client`].
pub fn consumer(connection: &Connection, group: &str, member: Option<&str>) -> Result<ClientConfig, Complaint> {
    let mut config = client(connection)?;
    config.set("group.id", group);
    member.iter().for_each(|member| _ = config.set("group.instance.id", *member));
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    config.set("auto.offset.reset", "earliest");
    config.set("partition.assignment.strategy", "cooperative-sticky");
    config.set("isolation.level", "read_committed");
    config.set("session.timeout.ms", "10000");
    config.set("heartbeat.interval.ms", "1000");
    config.set("queued.max.messages.kbytes", "16384");
    // New topics and partitions are found within seconds.
    config.set("topic.metadata.refresh.interval.ms", "10000");
    connection.properties.iter().for_each(|(name, value)| _ = config.set(name, value));
    Ok(config)
}

/// What is wrong with `connection`, and with a producer's or consumer's `config` made of it. Needs no network.
pub fn check(connection: &Connection, config: Result<ClientConfig, Complaint>) -> Vec<Complaint> {
    let mut complaints = check_brokers(&connection.brokers);
    complaints.extend(check_security(connection));
    complaints.extend(connection.properties.keys().filter_map(|name| ours(name)));
    if !complaints.is_empty() {
        return complaints;
    }
    match config {
        Err(complaint) => complaints.push(complaint),
        Ok(config) => complaints.extend(refused(connection, &config)),
    }
    complaints
}

fn check_brokers(brokers: &[String]) -> Vec<Complaint> {
    const FORM: &str = "host:port, as in 127.0.0.1:9092";
    if brokers.is_empty() {
        return vec![("brokers".into(), format!("no broker is named\na list of {FORM}\nname at least one"))];
    }
    let is_fine = |broker: &str| {
        broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0))
    };
    let wrong = brokers.iter().filter(|broker| !is_fine(broker));
    wrong.map(|broker| ("brokers".into(), format!("`{broker}` is no broker\n{FORM}"))).collect()
}

/// What the build cannot do, and what does not go together.
fn check_security(connection: &Connection) -> Vec<Complaint> {
    const REMEDY: &str = "build with `--features kafka-tls`";
    let (sasl, tls) = (&connection.security.sasl, &connection.security.tls);
    let mut complaints = Vec::new();
    if !cfg!(feature = "kafka-tls") {
        if tls.is_some() {
            complaints.push(("security.tls".into(), format!("this build has no TLS towards Kafka\n\n{REMEDY}")));
        }
        if let Some(sasl) = sasl.as_ref().filter(|sasl| sasl.mechanism != Mechanism::Plain) {
            let name = sasl.mechanism.name();
            complaints.push(("security.sasl.mechanism".into(), format!("this build has no {name}\nPLAIN\n{REMEDY}")));
        }
    }
    let halves = tls.as_ref().filter(|tls| tls.certificate.is_some() != tls.key.is_some());
    if halves.is_some() {
        let message = "a certificate needs its key, and a key its certificate\n\ngive both or neither";
        complaints.push(("security.tls".into(), message.to_owned()));
    }
    complaints
}

/// The complaint about a property that is not for a topology to set.
fn ours(name: &str) -> Option<Complaint> {
    let (_, instead) = OURS.iter().find(|(ours, _)| *ours == name)?;
    let remedy = match instead.strip_prefix("nothing: ") {
        Some(why) => format!("remove it: {why}"),
        None => format!("set {instead} instead"),
    };
    Some((format!("properties.{name}").into(), format!("`{name}` is set by barline\n\n{remedy}")))
}

/// Whatever librdkafka refuses: every property by itself, then all of them together.
fn refused(connection: &Connection, config: &ClientConfig) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (name, value) in &connection.properties {
        let single: ClientConfig = [(name.clone(), value.clone())].into_iter().collect();
        if let Err(KafkaError::ClientConfig(_, reason, ..)) = single.create_native_config() {
            let reason = reason.trim_end_matches('.');
            let remedy = "see librdkafka's CONFIGURATION.md";
            complaints.push((format!("properties.{name}").into(), format!("{reason}\n\n{remedy}")));
        }
    }
    if complaints.is_empty()
        && let Err(error) = config.create::<rdkafka::producer::BaseProducer>()
    {
        complaints.push(("properties".into(), format!("{error}\n\nchange or remove the property it names")));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(brokers: &[&str], properties: &[(&str, &str)]) -> Vec<Complaint> {
        let brokers = brokers.iter().map(ToString::to_string).collect();
        let properties = properties.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let connection = Connection { brokers, properties, ..Connection::default() };
        check(&connection, producer(&connection, &Producing::default(), None))
    }

    #[test]
    fn properties_that_break_a_promise_are_refused_at_their_place_with_the_remedy() {
        for (name, _) in OURS {
            let complaints = complaints(&["127.0.0.1:9092"], &[(name, "1")]);
            let [(key, why)] = complaints.as_slice() else { panic!("{name}: {complaints:?}") };
            assert_eq!(key, &format!("properties.{name}"));
            assert!(why.contains("remove it: ") || why.contains("instead"), "{why}");
        }
    }

    #[test]
    fn properties_librdkafka_refuses_are_refused_with_its_reason() {
        let complaints = complaints(&["127.0.0.1:9092"], &[("linger.mz", "1"), ("socket.timeout.ms", "soon")]);
        let [(unknown, why), (invalid, _)] = complaints.as_slice() else { panic!("{complaints:?}") };
        assert_eq!((unknown.as_ref(), invalid.as_ref()), ("properties.linger.mz", "properties.socket.timeout.ms"));
        assert!(why.contains("No such configuration property"), "{why}");
    }

    #[test]
    fn a_record_waits_for_ever_or_as_long_as_its_transaction_may_last() {
        let timeout = |properties: &[(&str, &str)], transactional| {
            let properties = properties.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            let connection = Connection { properties, ..Connection::default() };
            let config = producer(&connection, &Producing::default(), transactional).unwrap();
            config.get("message.timeout.ms").map(str::to_owned)
        };
        assert_eq!(timeout(&[("transaction.timeout.ms", "2000")], None).as_deref(), Some("0"));
        assert_eq!(timeout(&[], Some("id")).as_deref(), Some("60000"));
        assert_eq!(timeout(&[("transaction.timeout.ms", "2000")], Some("id")).as_deref(), Some("2000"));
    }

    #[test]
    fn brokers_are_hosts_with_ports_and_fine_settings_are_let_through() {
        for wrong in ["kafka", ":9092", "kafka:0", "kafka:99999"] {
            assert!(complaints(&[wrong], &[])[0].1.contains("host:port"), "{wrong}");
        }
        assert!(complaints(&[], &[])[0].1.contains("no broker"));
        assert_eq!(complaints(&["kafka:9092"], &[("socket.timeout.ms", "9000")]), []);
    }
}
