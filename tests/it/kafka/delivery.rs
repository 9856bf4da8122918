//! Bars of the built binary in the topics of a broker, with nothing going wrong.

use super::bars::{added_up, check_order, once, stored};
use super::broker::{self, Broker};
use super::consumer::consume;
use super::flow::{self, MARKET};
use super::producer::sarama;

fn number(name: &str, otherwise: i64) -> i64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Whether a broker keeps so many bars: the mock one drops what is more than 5 MB in a partition.
fn keeps(broker: &Broker, bars: i64) -> bool {
    matches!(broker, Broker::Real(_)) || bars <= 5_000
}

/// `BARLINE_KAFKA_SERIES` and `BARLINE_KAFKA_SECONDS` say how much.
#[test]
fn every_stored_bar_is_in_its_topic_once_with_key_partition_and_headers() {
    let (series, seconds) = (number("BARLINE_KAFKA_SERIES", 200), number("BARLINE_KAFKA_SECONDS", 4));
    let (series_of, rate) = (format!("series={series}"), format!("rate={}", 20 * series));
    for broker in broker::both().filter(|broker| keeps(broker, series * seconds)) {
        broker.create_topic(MARKET, 3);
        let dir = tempfile::tempdir().unwrap();
        let sink = ["publish.specs=[\"market_ticks\"]", flow::NO_NEW_TOPICS];
        let mut server = flow::start(&broker.bootstrap(), &dir.path().join("data"), &sink);
        flow::load(server.grpc, &[&series_of, "connections=2", &rate], seconds * 1000);
        let sink = flow::until_sent(&mut server);
        assert_eq!((&sink["link"], &sink["specs"][0]["dropped"]), (&"up".into(), &serde_json::json!({})), "{sink}");
        let records = consume(&broker.bootstrap(), MARKET, true);
        let (firsts, again) = once(&records);
        assert_eq!(again, 0);
        check_order(&firsts);
        let stored = stored(&server, "market_ticks");
        assert!(stored.len() as i64 >= series * (seconds - 1), "{} bars are too few to say anything", stored.len());
        let sent = added_up(&records);
        let wrong = stored.iter().find(|(id, sums)| sent.get(*id) != Some(*sums));
        let of = |id: &str| records.iter().filter(|record| record.header("barline.bar_id") == id).collect::<Vec<_>>();
        assert_eq!(wrong.map(|(id, sums)| (id, sums, sent.get(id), of(id))), None, "{sink}");
        assert_eq!(sent.len(), stored.len());
        for record in &records {
            let key = record.key.clone().unwrap();
            assert_eq!(record.partition, sarama(&key, 3));
            let (start, key) = (record.header("barline.window_start_ns"), String::from_utf8(key).unwrap());
            assert_eq!(record.header("barline.bar_id"), format!("market_ticks/1s/{start}/{key}"));
            assert_eq!((record.header("barline.series"), record.header("barline.granularity")), ("market_ticks", "1s"));
        }
        println!("{} bars, latencies {}", records.len(), sink["latencies"]);
        flow::stop(server);
    }
}
