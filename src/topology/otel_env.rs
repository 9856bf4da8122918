//! OpenTelemetry's own environment variables, which every tool of that world sets alike; they win over the file.

use percent_encoding::percent_decode_str;

use crate::model::time::MILLISECOND;
use crate::spec::Problem;

use super::otlp::{Compression, Otlp, Protocol, Signal, URL_ALLOWED, is_url};
use super::telemetry::TelemetryPlan;

/// What a variable changes; an error says what it allows.
type Change<T> = fn(&mut T, &str) -> Result<(), &'static str>;

/// Of a collector: `OTEL_EXPORTER_OTLP_…` for all signals, `OTEL_EXPORTER_OTLP_METRICS_…` for one.
const OF_COLLECTORS: [(&str, Change<Otlp>); 8] = [
    ("ENDPOINT", |otlp, value| {
        otlp.endpoint = Some(is_url(value).then(|| value.to_owned()).ok_or(URL_ALLOWED)?);
        Ok(())
    }),
    ("PROTOCOL", |otlp, value| {
        otlp.protocol = Some(Protocol::parse(value).ok_or("grpc, http/protobuf")?);
        Ok(())
    }),
    ("HEADERS", |otlp, value| pairs(value).map(|headers| otlp.headers = Some(headers))),
    ("TIMEOUT", |otlp, value| milliseconds(value).map(|timeout| otlp.timeout = Some(timeout))),
    ("COMPRESSION", |otlp, value| {
        otlp.compression = Some(Compression::parse(value).ok_or("none, gzip")?);
        Ok(())
    }),
    ("CERTIFICATE", |otlp, value| file(&mut otlp.tls.ca, value)),
    ("CLIENT_CERTIFICATE", |otlp, value| file(&mut otlp.tls.certificate, value)),
    ("CLIENT_KEY", |otlp, value| file(&mut otlp.tls.key, value)),
];

/// Of everything else.
const OTHERS: [(&str, Change<TelemetryPlan>); 5] = [
    ("OTEL_METRIC_EXPORT_INTERVAL", |plan, value| milliseconds(value).map(|every| plan.every = every)),
    ("OTEL_RESOURCE_ATTRIBUTES", |plan, value| pairs(value).map(|resource| plan.resource = resource)),
    ("OTEL_SERVICE_NAME", |plan, value| {
        value.clone_into(&mut plan.service);
        Ok(())
    }),
    ("OTEL_TRACES_SAMPLER_ARG", |plan, value| {
        let share = value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        plan.sample = share.ok_or("0 to 1, the share of batches that are traced")?;
        Ok(())
    }),
    ("OTEL_SDK_DISABLED", |plan, value| {
        if value.eq_ignore_ascii_case("true") {
            plan.pushed = [false; 3];
        }
        Ok(())
    }),
];

impl TelemetryPlan {
    /// Applies the variables of an environment that are OpenTelemetry's; an empty one is as if it were not set.
    ///
    /// # Errors
    /// Every variable whose value makes no sense.
    pub fn apply_env(&mut self, environment: &[(String, String)]) -> Result<(), Vec<Problem>> {
        let mut reading = Reading { environment, problems: Vec::new() };
        for (name, change) in OF_COLLECTORS {
            reading.apply(&format!("OTEL_EXPORTER_OTLP_{name}"), change, &mut self.otlp);
            for signal in Signal::ALL {
                let own = format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.name().to_uppercase());
                reading.apply(&own, change, &mut self.own[signal as usize]);
            }
        }
        for signal in Signal::ALL {
            let name = format!("OTEL_{}_EXPORTER", signal.name().to_uppercase());
            reading.apply(&name, exporters, &mut self.pushed[signal as usize]);
        }
        OTHERS.into_iter().for_each(|(name, change)| reading.apply(name, change, self));
        if reading.problems.is_empty() { Ok(()) } else { Err(reading.problems) }
    }
}

struct Reading<'a> {
    environment: &'a [(String, String)],
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn apply<T>(&mut self, name: &str, change: Change<T>, to: &mut T) {
        let set = self.environment.iter().find(|(key, value)| key == name && !value.is_empty());
        if let Some((_, value)) = set
            && let Err(allowed) = change(to, value)
        {
            // Headers are secrets more often than not.
            let shown = if name.ends_with("HEADERS") { String::new() } else { format!("={value:?}") };
            self.problems.push(Problem::new(format!("{name}{shown} makes no sense")).allowed(allowed));
        }
    }
}

/// `OTEL_METRICS_EXPORTER` and its like: whether OTLP is among the exporters. That of Prometheus has a port of its own.
fn exporters(pushed: &mut bool, value: &str) -> Result<(), &'static str> {
    let mut names = value.split(',').map(str::trim);
    if names.clone().any(|name| !matches!(name, "otlp" | "none" | "prometheus" | "console")) {
        return Err("otlp, none; prometheus and console are passed over");
    }
    *pushed &= names.any(|name| name == "otlp");
    Ok(())
}

fn file(into: &mut Option<std::path::PathBuf>, value: &str) -> Result<(), &'static str> {
    *into = Some(value.into());
    Ok(())
}

fn milliseconds(value: &str) -> Result<i64, &'static str> {
    let milliseconds = value.parse::<i64>().ok().filter(|milliseconds| *milliseconds > 0);
    milliseconds.and_then(|number| number.checked_mul(MILLISECOND)).ok_or("milliseconds, above 0")
}

/// `key=value` pairs with commas between them, in which `%2C` stands for a comma.
fn pairs(value: &str) -> Result<Vec<(String, String)>, &'static str> {
    const FORM: &str = "key=value pairs with commas between them";
    let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8().map(String::from).map_err(|_| FORM);
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').ok_or(FORM)?;
        Ok((decoded(key)?, decoded(value)?))
    };
    value.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::SECOND;

    fn applied(variables: &[(&str, &str)]) -> Result<TelemetryPlan, Vec<Problem>> {
        let environment: Vec<_> = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut plan = TelemetryPlan::default();
        plan.apply_env(&environment).map(|()| plan)
    }

    #[test]
    fn the_standard_variables_are_understood() {
        let plan = applied(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a, y=b=c%2Cd"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "15000"),
            ("OTEL_SERVICE_NAME", ""),
        ]);
        let plan = plan.unwrap();
        let metrics = plan.collector(Signal::Metrics).unwrap();
        assert_eq!((metrics.url.as_str(), metrics.protocol), ("https://collector:4317", Protocol::Grpc));
        assert_eq!((plan.every, plan.service.as_str()), (15 * SECOND, "barline"));
        assert_eq!(metrics.headers, [("x-tenant".into(), "a".into()), ("y".into(), "b=c,d".into())]);
        assert_eq!((metrics.compression, metrics.tls.ca), (Compression::Gzip, Some("ca.pem".into())));
        let off = [("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")];
        let off = applied(&off).unwrap();
        assert!(Signal::ALL.into_iter().all(|signal| off.collector(signal).is_none()));
    }

    #[test]
    fn a_signal_may_go_elsewhere_or_nowhere() {
        let plan = applied(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:4318"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=b"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"),
            ("OTEL_LOGS_EXPORTER", "none"),
            ("OTEL_METRICS_EXPORTER", "otlp,prometheus"),
        ]);
        let [metrics, traces, logs] = Signal::ALL.map(|signal| plan.as_ref().unwrap().collector(signal));
        let (metrics, traces) = (metrics.unwrap(), traces.unwrap());
        assert_eq!((metrics.url.as_str(), metrics.timeout), ("http://general:4318/v1/metrics", SECOND));
        assert_eq!((traces.url.as_str(), traces.timeout), ("http://traces:4317", 2 * SECOND));
        assert_eq!((metrics.headers.len(), traces.headers.len(), logs), (0, 1, None));
    }

    #[test]
    fn every_value_that_makes_no_sense_is_told_and_no_header_is_shown() {
        let wrong = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "hunter2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
            ("OTEL_LOGS_EXPORTER", "oltp"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a"),
        ];
        let problems = applied(&wrong).unwrap_err();
        assert_eq!(problems.len(), wrong.len());
        assert!(problems.iter().all(|problem| !problem.message.contains("hunter2")), "{problems:?}");
    }
}
