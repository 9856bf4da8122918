//! Collectors: where each signal is pushed to, and how. A signal has settings of its own, and what these leave out is as
//! for all signals, which is how OpenTelemetry's variables work too.

use std::path::PathBuf;

use crate::model::DurationNs;
use crate::model::time::SECOND;

/// How long a push may take: OpenTelemetry's own default.
const TIMEOUT: DurationNs = 10 * SECOND;

/// What is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The figures.
    Metrics,
    /// Spans of sampled batches.
    Traces,
    /// Lines of the log.
    Logs,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Traces, Self::Logs];
    /// Their names.
    pub const NAMES: [&str; 3] = ["metrics", "traces", "logs"];

    /// Its name, as OpenTelemetry has it.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The signal of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP as protobuf over HTTP.
    Http,
}

impl Protocol {
    /// The names, as OpenTelemetry has them.
    pub const NAMES: [&str; 2] = ["grpc", "http/protobuf"];

    /// The protocol of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "grpc" => Some(Self::Grpc),
            "http/protobuf" => Some(Self::Http),
            _ => None,
        }
    }
}

/// How what is pushed is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// With gzip.
    Gzip,
}

impl Compression {
    /// The names, as OpenTelemetry has them.
    pub const NAMES: [&str; 2] = ["none", "gzip"];

    /// The compression of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "gzip" => Some(Self::Gzip),
            _ => None,
        }
    }
}

/// Whom to trust, and who we are, towards an `https://` collector. All files are PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectorTls {
    /// Who signed the collector's certificate; whom this machine trusts where it is absent.
    pub ca: Option<PathBuf>,
    /// Our own certificate, where the collector wants one.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// What is said of collectors: of one signal's or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Otlp {
    /// The URL. Where it is said of all signals and HTTP is spoken, the signal's path is appended.
    pub endpoint: Option<String>,
    /// How it is spoken to.
    pub protocol: Option<Protocol>,
    /// Headers of every push.
    pub headers: Option<Vec<(String, String)>>,
    /// How long a push may take.
    pub timeout: Option<DurationNs>,
    /// How pushes are compressed.
    pub compression: Option<Compression>,
    /// Whom to trust, and who we are.
    pub tls: CollectorTls,
}

/// The collector of one signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorPlan {
    /// Its URL; over HTTP with the path.
    pub url: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Headers of every push.
    pub headers: Vec<(String, String)>,
    /// How long a push may take.
    pub timeout: DurationNs,
    /// How pushes are compressed.
    pub compression: Compression,
    /// Whom to trust, and who we are, where the URL is `https://`.
    pub tls: CollectorTls,
}

impl CollectorPlan {
    /// The collector of `signal`, if one is named: what is said of it alone wins over what is said of all.
    pub fn of(signal: Signal, own: &Otlp, all: &Otlp) -> Option<Self> {
        let protocol = own.protocol.or(all.protocol).unwrap_or(Protocol::Http);
        let appended = |base: &String| match protocol {
            Protocol::Grpc => base.clone(),
            Protocol::Http => format!("{}/v1/{}", base.trim_end_matches('/'), signal.name()),
        };
        let file = |pick: fn(&CollectorTls) -> &Option<PathBuf>| pick(&own.tls).clone().or(pick(&all.tls).clone());
        Some(Self {
            url: own.endpoint.clone().or_else(|| all.endpoint.as_ref().map(appended))?,
            protocol,
            headers: own.headers.clone().or_else(|| all.headers.clone()).unwrap_or_default(),
            timeout: own.timeout.or(all.timeout).unwrap_or(TIMEOUT),
            compression: own.compression.or(all.compression).unwrap_or(Compression::None),
            tls: CollectorTls {
                ca: file(|tls| &tls.ca),
                certificate: file(|tls| &tls.certificate),
                key: file(|tls| &tls.key),
            },
        })
    }
}

/// Whether `url` is one that can be pushed to.
pub fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace))
}

/// What is allowed for an endpoint.
pub const URL_ALLOWED: &str = "http://HOST:PORT or https://HOST:PORT, as in http://127.0.0.1:4318";

#[cfg(test)]
mod tests {
    use super::*;

    fn all(endpoint: &str) -> Otlp {
        Otlp { endpoint: Some(endpoint.into()), ..Otlp::default() }
    }

    #[test]
    fn a_general_url_gets_the_path_of_the_signal_and_one_of_its_own_is_taken_as_it_is() {
        let url = |own: &Otlp, all: &Otlp| CollectorPlan::of(Signal::Traces, own, all).map(|plan| plan.url);
        assert_eq!(url(&Otlp::default(), &all("http://c:4318/")).as_deref(), Some("http://c:4318/v1/traces"));
        assert_eq!(url(&Otlp::default(), &all("http://c/otlp")).as_deref(), Some("http://c/otlp/v1/traces"));
        assert_eq!(url(&all("http://own/x"), &all("http://c:4318")).as_deref(), Some("http://own/x"));
        let grpc = Otlp { protocol: Some(Protocol::Grpc), ..Otlp::default() };
        assert_eq!(url(&grpc, &all("http://c:4317")).as_deref(), Some("http://c:4317"));
        assert_eq!(url(&grpc, &Otlp::default()), None);
    }

    #[test]
    fn what_a_signal_does_not_say_of_itself_is_as_for_all() {
        let headers = vec![("a".to_owned(), "b".to_owned())];
        let general = Otlp { headers: Some(headers.clone()), timeout: Some(1), ..all("http://c") };
        let own = Otlp {
            timeout: Some(2),
            tls: CollectorTls { ca: Some("x".into()), ..CollectorTls::default() },
            ..Otlp::default()
        };
        let plan = CollectorPlan::of(Signal::Logs, &own, &general).unwrap();
        assert_eq!((plan.headers, plan.timeout, plan.tls.ca), (headers, 2, Some("x".into())));
    }

    #[test]
    fn urls_have_a_scheme_that_is_spoken_and_a_host() {
        for url in ["http://c:4318", "https://c", "https://[::1]:4317/path"] {
            assert!(is_url(url), "{url}");
        }
        for url in ["c:4318", "ftp://c", "http://", "https:///v1", "http://a b"] {
            assert!(!is_url(url), "{url}");
        }
    }
}
