//! Why a cluster cannot be reached, in words.
//!
//! librdkafka says "transport failure" to nearly everything; what happened stands in its log lines. This file knows those.

/// What a line of the log means, and what to do; the first whose words all occur counts.
const CAUSES: [(&[&str], &str); 14] = [
    (&["authentication failed"], "the user name or password is wrong: check `security.sasl`"),
    (&["sasl authentication error"], "the user name or password is wrong: check `security.sasl`"),
    (
        &["cluster authorization failed"],
        "this user may write to no topic at all: grant Describe and Write on those it is to write to",
    ),
    (&["unsupported sasl mechanism"], "the broker does not take this SASL mechanism: check `security.sasl.mechanism`"),
    (
        &["sasl handshake", "not supported"],
        "the broker does not take this SASL mechanism: check `security.sasl.mechanism`",
    ),
    (&["certificate verify failed"], "the broker's certificate is not from whom we trust: check `security.tls.ca`"),
    (&["certificate required"], "the broker wants a certificate of ours: set `security.tls.certificate` and `key`"),
    (&["bad certificate"], "the broker does not accept our certificate: check `security.tls.certificate`"),
    (
        &["ssl handshake failed", "wrong version number"],
        "the port does not speak TLS: remove `security.tls`, or use its TLS port",
    ),
    (&["ssl handshake failed"], "the TLS handshake failed: check `security.tls`"),
    (&["connecting to a ssl listener"], "the port may want TLS or SASL: set `security`, or use its plaintext port"),
    (
        &["disconnected while requesting apiversion"],
        "whoever listens there does not speak Kafka, or wants TLS or SASL: check port and `security`",
    ),
    (&["connection refused"], "nobody listens there: check host and port, or start the broker"),
    (&["failed to resolve"], "the host's name is not known: check `brokers`"),
];

/// What is said where nothing is known: a TLS port hangs up on plaintext without a word.
const UNKNOWN: &str = "no broker can be reached: check `brokers`, and whether the port wants `security`";

/// Whether a line of the log may say why a cluster cannot be reached.
pub fn tells(line: &str) -> bool {
    cause(line).is_some() || line.to_lowercase().contains("failed:")
}

/// `line`, in words where it is known, always with the line itself.
pub fn explain(line: &str) -> String {
    let line = line.trim();
    match cause(line) {
        Some(cause) => format!("{cause} ({line})"),
        None if line.is_empty() => UNKNOWN.to_owned(),
        None => format!("{UNKNOWN} ({line})"),
    }
}

/// `line`, in words before it where it is known: of errors that may be about something else than the way to the cluster.
pub fn translate(line: &str) -> String {
    cause(line).map_or_else(|| line.to_owned(), |cause| format!("{cause} ({line})"))
}

fn cause(line: &str) -> Option<&'static str> {
    let line = line.to_lowercase();
    CAUSES.iter().find(|(words, _)| words.iter().all(|word| line.contains(word))).map(|(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_told_with_the_line_it_was_read_from() {
        let lines = [
            (
                "sasl_plaintext://127.0.0.1:1/bootstrap: SASL authentication error: Authentication failed: Invalid username or password",
                "user name",
            ),
            (
                "ssl://127.0.0.1:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed",
                "security.tls.ca",
            ),
            (
                "ssl://127.0.0.1:1: SSL handshake failed: SSL routines::wrong version number: connecting to a PLAINTEXT broker listener?",
                "does not speak TLS",
            ),
            ("127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused", "nobody listens"),
            (
                "nowhere:9092/bootstrap: Failed to resolve 'nowhere:9092': Name or service not known",
                "name is not known",
            ),
            ("x: something failed: new", "no broker can be reached"),
        ];
        for (line, expected) in lines {
            let told = explain(line);
            assert!(tells(line) && told.contains(expected) && told.contains(line), "{told}");
        }
        assert!(!tells("1/1 brokers are down"));
        assert_eq!(explain(""), UNKNOWN);
    }
}
