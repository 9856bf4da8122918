//! HTTP: JSON, status codes, hostile bytes.

use barline::model::time::SECOND;
use barline::runtime::InstanceState;
use serde_json::json;

use super::fixture::{Fixture, START};

#[tokio::test]
async fn bars_ticks_and_series_are_json_with_times_twice() {
    let fixture = Fixture::start().await;
    let (status, reply) = fixture.get("/api/v1/bars?spec=market&match=symbol%3DA&limit=2").await;
    assert_eq!((status, reply["bars"].as_array().unwrap().len()), (200, 2));
    assert_eq!(reply["truncated"], true);
    let bar = &reply["bars"][0];
    assert_eq!((&bar["start_ns"], &bar["start"]), (&json!(START), &json!("2023-11-14T22:13:00Z")));
    assert_eq!(bar["metrics"], json!({ "open": 11, "close": 14, "volume": 10, "ticks": 4 }));
    assert_eq!(bar["dimensions"], json!({ "symbol": "A", "venue": "X" }));
    let (_, reply) = fixture.get("/api/v1/bars?spec=market&match=symbol=A&limit=3").await;
    assert_eq!(reply["truncated"], false);
    let (_, reply) = fixture.get("/api/v1/bars?spec=market&match=symbol=A&from=-61m&to=2023-11-14T22:13:01Z").await;
    assert_eq!(reply["bars"].as_array().unwrap().len(), 1);

    let (_, reply) = fixture.get(&format!("/api/v1/ticks?spec=market&match=symbol=*&from={}", START + SECOND)).await;
    let prices: Vec<_> = reply["ticks"].as_array().unwrap().iter().map(|tick| &tick["fields"]["price"]).collect();
    assert_eq!(prices, [20, 30]);
    let (_, reply) = fixture.get("/api/v1/ticks?spec=sensor&late").await;
    assert_eq!(reply["ticks"][0]["fields"]["level"], 9.0);

    let (_, reply) = fixture.get("/api/v1/series?spec=market&match=venue=Y").await;
    assert_eq!(reply, json!({ "series": [{ "symbol": "B", "venue": "Y" }], "truncated": false }));
    let (_, reply) = fixture.get("/api/v1/series").await;
    assert_eq!(reply["specs"][0]["granularities"], json!(["1s", "1m"]));
    assert_eq!(reply["specs"][0]["series"], 3);
    let (_, reply) = fixture.get("/api/v1/ledger?spec=market").await;
    assert_eq!(reply["specs"][0]["received"], 0);
    let (_, reply) = fixture.get("/api/v1/topology").await;
    assert_eq!(reply["stages"][1]["instances"][0]["state"], "running");
}

#[tokio::test]
async fn what_cannot_be_answered_says_so_in_json() {
    let fixture = Fixture::start().await;
    let cases = [
        ("/api/v1/bars", 400, "spec is missing"),
        ("/api/v1/bars?spec=nonsense", 404, "market, sensor"),
        ("/api/v1/bars?spec=market&limit=0", 400, "1..=100000"),
        ("/api/v1/bars?spec=market&limit=100001", 413, "100000"),
        ("/api/v1/bars?spec=market&granularity=5s", 400, "1s, 1m"),
        ("/api/v1/bars?spec=market&from=tomorrow", 400, "RFC 3339"),
        ("/api/v1/bars?spec=market&from=now&to=-5m", 400, "not after its start"),
        ("/api/v1/bars?spec=market&match=A", 400, "NAME=VALUE"),
        ("/api/v1/bars?spec=market&late", 400, "granularity"),
        ("/api/v1/ledger?spec=x", 404, "market, sensor"),
        ("/api/v1/nothing", 404, "no such path"),
        ("/favicon.ico", 404, "no such path"),
    ];
    for (path, code, words) in cases {
        let (status, reply) = fixture.get(path).await;
        assert_eq!(status, code, "{path}: {reply}");
        assert!(reply["error"].as_str().unwrap().contains(words), "{path}: {reply}");
    }
    let (status, body) = fixture.raw(b"POST /api/v1/bars HTTP/1.0\r\n\r\n".to_vec()).await;
    assert_eq!(status, 405, "{body}");
    let (status, body) = fixture.raw(b"GET /api HTTP/1.0\r\n\r\n".to_vec()).await;
    assert!(status == 200 && body.contains("/api/v1/topology"), "{body}");
}

#[tokio::test]
async fn readiness_names_what_is_not_at_work() {
    let fixture = Fixture::start().await;
    let (status, reply) = fixture.get("/health").await;
    assert_eq!((status, &reply["status"], &reply["uptime_seconds"]), (200, &json!("ok"), &json!(3600)));
    assert_eq!(fixture.get("/ready").await.0, 200);
    let write = &fixture.served.meters()[1];
    write.set_state(InstanceState::Failed);
    write.set_last_error("disk full".into());
    let (status, reply) = fixture.get("/ready").await;
    assert_eq!((status, &reply["reasons"]), (503, &json!(["stage write instance 0 is failed: disk full"])));
    fixture.served.stop();
    assert_eq!(fixture.get("/ready").await.1["reasons"][0], "the topology is stopping");
    assert_eq!(fixture.get("/health").await.0, 200, "it is alive all the same");
}

#[tokio::test]
async fn hostile_bytes_break_nothing() {
    let fixture = Fixture::start().await;
    let long = "x".repeat(60_000);
    let mut requests: Vec<Vec<u8>> = vec![
        b"\0\xff\xfe not http at all\r\n\r\n".to_vec(),
        format!("GET /{long} HTTP/1.0\r\n\r\n").into_bytes(),
        format!("GET /api/v1/bars?spec={long} HTTP/1.0\r\n\r\n").into_bytes(),
        format!("GET /api/v1/bars?spec=market{} HTTP/1.0\r\n\r\n", "&match=a=b".repeat(5_000)).into_bytes(),
        b"GET /api/v1/bars?spec=%ff%00%zz&from=-9999999999999999h HTTP/1.0\r\n\r\n".to_vec(),
        b"GET /api/v1/ticks?spec=market&from=-9223372036854775808&to=9223372036854775807 HTTP/1.0\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
    ];
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..200 {
        let mut request = b"GET /api/v1/bars?spec=market&match=symbol=A&from=-5m&limit=9 HTTP/1.0\r\n\r\n".to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(4..request.len() - 13);
            request[at] = random.u8(..);
        }
        requests.push(request);
    }
    for request in requests {
        let shown = String::from_utf8_lossy(&request[..request.len().min(80)]).into_owned();
        let (status, body) = fixture.raw(request).await;
        assert_ne!(status, 500, "{shown}: {body}");
    }
    assert_eq!(fixture.get("/health").await.0, 200);
}
