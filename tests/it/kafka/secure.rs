//! TLS, mutual TLS and SCRAM towards a real broker: in builds with the feature `kafka-tls`, which `.ci/run` tests too.

use barline::broker::settings::{Connection, Mechanism, Sasl, Security, Tls};
use barline::broker::{Event, Secret, Settings};

use super::broker::{self, RealKafka};
use super::consumer::consume;
use super::told::{Told, record};

fn sasl(mechanism: Mechanism, password: &str) -> Option<Sasl> {
    Some(Sasl { mechanism, username: "alice".into(), password: Secret::Plain(password.into()) })
}

fn tls(kafka: &RealKafka) -> Tls {
    Tls { ca: Some(kafka.fact("ca").into()), ..Tls::default() }
}

/// Connects to `address`, and sends a record; why it cannot, where that is so.
fn try_it(address: &str, security: Security) -> Result<(), String> {
    let connection = Connection { brokers: vec![address.to_owned()], security, ..Connection::default() };
    let mut told = Told::new(&Settings { connection, topics: vec!["bars".into()], ..Settings::default() }, None);
    match told.until(|event| matches!(event, Event::Down(_) | Event::Ready { .. })).pop() {
        Some(Event::Down(why)) => return Err(why),
        _ => told.send(1, &record("bars", "k", address)),
    }
    told.delivered(vec![1]);
    Ok(())
}

#[test]
fn every_way_in_works_and_every_wrong_one_is_told_in_words() {
    let Some(kafka) = broker::real(&["--sasl", "--tls"]) else { return };
    kafka.create_topic("bars", 1);
    let mutual =
        Tls { certificate: Some(kafka.fact("certificate").into()), key: Some(kafka.fact("key").into()), ..tls(&kafka) };
    let of_sasl = |mechanism, password| Security { sasl: sasl(mechanism, password), ..Security::default() };
    let of_tls = |tls| Security { tls: Some(tls), ..Security::default() };
    let good = [
        ("sasl", of_sasl(Mechanism::ScramSha256, "alice-secret")),
        ("sasl", of_sasl(Mechanism::ScramSha512, "alice-secret")),
        ("tls", of_tls(tls(&kafka))),
        ("mtls", of_tls(mutual)),
    ];
    for (port, security) in good {
        try_it(kafka.fact(port), security).unwrap();
    }
    assert_eq!(consume(kafka.bootstrap(), "bars", true).len(), 4);
    let wrong = [
        ("sasl", of_sasl(Mechanism::ScramSha256, "wrong"), "password is wrong"),
        ("tls", of_tls(Tls::default()), "security.tls.ca"),
        ("mtls", of_tls(tls(&kafka)), "security.tls"),
        ("tls", Security::default(), "security"),
        ("bootstrap", of_tls(tls(&kafka)), "security.tls"),
    ];
    for (port, security, expected) in wrong {
        let why = try_it(kafka.fact(port), security).unwrap_err();
        assert!(why.contains(expected), "{port}: {why}");
    }
}
