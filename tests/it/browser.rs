//! The page in a real browser: the graph is there, colours follow backpressure by themselves, a series is found, nothing is
//! complained about and nothing is asked of another host.
//!
//! Needs Chromium and its driver (`chromium` and `chromedriver` on `PATH`); without them the test says on stderr that it was
//! skipped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::free_port;
use crate::held_up;

/// A browser window, driven over WebDriver.
struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// Opens one; why not, where there is none.
    fn open() -> Result<Self, String> {
        for program in ["chromium", "chromedriver"] {
            let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            found.map_err(|error| format!("no {program} on PATH: {error}"))?;
        }
        let address = free_port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={}", address.port())).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = command.spawn().unwrap();
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("started successfully")), "chromedriver does not start");
        std::thread::spawn(move || said.for_each(drop));
        let mut browser = Self { driver, address, session: String::new() };
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1440,900"];
        let capabilities = json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let made = browser.post("", &json!({ "capabilities": { "alwaysMatch": capabilities } }));
        browser.session = format!("/{}", made["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {made}")));
        Ok(browser)
    }

    fn go(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// What a script of the page gives.
    fn ask(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The messages of a log since it was last read.
    fn log(&self, which: &str) -> Vec<Value> {
        self.post("/se/log", &json!({ "type": which })).as_array().cloned().unwrap_or_default()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.address).unwrap();
        let head = format!("POST /session{}{path} HTTP/1.1\r\nhost: {}\r\n", self.session, self.address);
        let head = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut reply = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while reply.read_line(&mut line).unwrap() > 2 {
            let (name, value) = line.split_once(':').unwrap_or_default();
            length = if name.eq_ignore_ascii_case("content-length") { value.trim().parse().unwrap() } else { length };
            line.clear();
        }
        let mut body = vec![0; length];
        reply.read_exact(&mut body).unwrap();
        serde_json::from_slice::<Value>(&body).unwrap()["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver takes its browser with it when it is asked to stop.
        let _ = Command::new("kill").arg(self.driver.id().to_string()).status();
        let _ = self.driver.wait();
    }
}

/// Class and name of every stage in the drawing.
const STAGES: &str = "return [...document.querySelectorAll('svg.right g.stage')].map(stage => \
    [stage.querySelector('.name').textContent.split(' ')[0], stage.getAttribute('class')])";

#[test]
fn the_page_shows_the_topology_live_and_colours_what_is_held_up() {
    let browser = match Browser::open() {
        Ok(browser) => browser,
        Err(reason) => {
            let _ = writeln!(std::io::stderr(), "skipped: the page in a browser: {reason}");
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let mut server = held_up::without_a_broker(&dir.path().join("data"));
    let host = format!("http://{}", server.http);
    browser.go(&format!("{host}/"));
    server.until("the figures are live", |_| {
        browser.ask("return document.querySelector('[data-connection]').textContent") == "live"
    });
    let stages = browser.ask(STAGES);
    let names: Vec<_> = stages.as_array().unwrap().iter().map(|stage| stage[0].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["ingest", "journal", "route", "aggregate", "write", "publish", "reap"], "{stages}");
    assert!(stages.as_array().unwrap().iter().all(|stage| stage[1] == "stage free"), "{stages}");

    let sending = held_up::load(server.grpc);
    server.until(
        "the sink is coloured as what limits, and who is held up by it, from the writer on, is coloured too",
        |_| {
            let stages = browser.ask(STAGES);
            let class = |index: usize| stages[index][1].clone();
            class(5) == "stage limiting" && (0..=4).all(|index| class(index) != "stage free")
        },
    );
    let verdict = browser.ask("return document.querySelector('.verdict').textContent");
    assert!(verdict.as_str().is_some_and(|said| said.contains("publish is the bottleneck")), "{verdict}");

    browser.go(&format!("{host}/windows?spec=market_ticks"));
    let listed = browser.ask("return document.querySelector('main a[href*=\"series=\"]').textContent");
    let listed = listed.as_str().unwrap_or_else(|| panic!("no series is listed: {listed}"));
    browser.go(&format!("{host}/windows?spec=market_ticks&series={}", listed.replace('=', "%3D")));
    assert_eq!(browser.ask("return document.querySelector('h2').textContent"), listed);
    for path in ["/ledger", "/series", "/specs", "/stages/write"] {
        browser.go(&format!("{host}{path}"));
        assert_eq!(browser.ask("return document.querySelectorAll('h1').length"), 1, "{path}");
    }
    sending.shutdown_background();

    let complaints: Vec<_> = browser.log("browser").into_iter().filter(|entry| entry["level"] != "INFO").collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    let mut asked = 0;
    for entry in browser.log("performance") {
        let event: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
        let Some(url) = event["message"]["params"]["request"]["url"].as_str() else { continue };
        assert!(url.starts_with(&host) || url.starts_with("data:"), "it asks for {url}");
        asked += 1;
    }
    assert!(asked > 5, "{asked} requests: the log is not read");
}
