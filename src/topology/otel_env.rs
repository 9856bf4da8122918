//! OpenTelemetry's own environment variables, which every tool of that world sets alike; they win over the file.

use crate::model::time::MILLISECOND;
use crate::spec::Problem;

use super::telemetry::{Protocol, TelemetryPlan};

/// A variable and what it changes; an error says what it allows.
type Rule = (&'static str, fn(&mut TelemetryPlan, &str) -> Result<(), &'static str>);

/// In this order: a later one wins.
const RULES: [Rule; 9] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", |plan, value| url(value).map(|url| plan.endpoint = Some(url))),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", |plan, value| {
        plan.protocol = Protocol::parse(value).ok_or("grpc, http/protobuf")?;
        Ok(())
    }),
    ("OTEL_EXPORTER_OTLP_HEADERS", |plan, value| pairs(value).map(|headers| plan.headers = headers)),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", |plan, value| milliseconds(value).map(|timeout| plan.timeout = timeout)),
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
            plan.endpoint = None;
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
        let mut problems = Vec::new();
        for (name, apply) in RULES {
            let set = environment.iter().find(|(key, value)| key == name && !value.is_empty());
            if let Some((_, value)) = set
                && let Err(allowed) = apply(self, value)
            {
                problems.push(Problem::new(format!("{name}={value:?} makes no sense")).allowed(allowed));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

fn url(value: &str) -> Result<String, &'static str> {
    let known = value.starts_with("http://");
    known.then(|| value.to_owned()).ok_or("http://HOST:PORT, as in http://127.0.0.1:4318")
}

fn milliseconds(value: &str) -> Result<i64, &'static str> {
    let milliseconds = value.parse::<i64>().ok().filter(|milliseconds| *milliseconds > 0);
    milliseconds.and_then(|number| number.checked_mul(MILLISECOND)).ok_or("milliseconds, above 0")
}

/// `key=value` pairs with commas between them.
fn pairs(value: &str) -> Result<Vec<(String, String)>, &'static str> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').ok_or("key=value pairs with commas between them")?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
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
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a, y=b=c"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "15000"),
            ("OTEL_SERVICE_NAME", ""),
        ]);
        let plan = plan.unwrap();
        assert_eq!((plan.endpoint.as_deref(), plan.protocol), (Some("http://collector:4317"), Protocol::Grpc));
        assert_eq!((plan.every, plan.service.as_str()), (15 * SECOND, "barline"));
        assert_eq!(plan.headers, [("x-tenant".into(), "a".into()), ("y".into(), "b=c".into())]);
        let off = [("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")];
        assert_eq!(applied(&off).unwrap().endpoint, None);
    }

    #[test]
    fn every_value_that_makes_no_sense_is_told() {
        let wrong = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a"),
        ];
        assert_eq!(applied(&wrong).unwrap_err().len(), wrong.len());
    }
}
