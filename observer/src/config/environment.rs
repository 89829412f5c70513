//! Files of secrets, named by the environment: where secrets are mounted differs from node to node, or is only known when
//! the agent starts (systemd's `$CREDENTIALS_DIRECTORY`), while one configuration serves all.
//!
//! Only paths: a secret in an environment is readable in /proc, and inherited. A variable for which there is no place is an
//! error, because a misspelt one would silently mean the path in the file, or none.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    ConfigError, SinkConfig,
    sinks::{OURS, Secrets},
};

const PREFIX: &str = "OBSERVER_SINK_";
const SUFFIX: &str = "_FILE";
const HEADER: &str = "HEADER_";
const EXPECTED: &str =
    "OBSERVER_SINK_<NAME>_TLS_CA_FILE, _TLS_CERT_FILE, _TLS_KEY_FILE or _HEADER_<HEADER>_FILE";

/// Puts the paths that `variables` name into their places.
pub(super) fn apply(
    sinks: &mut [SinkConfig],
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    let mut ours: Vec<(String, OsString)> = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with(PREFIX) && !is_service_link(name))
        .collect();
    // The first mistake by name is told, whatever order the environment has.
    ours.sort();
    for (name, value) in ours {
        let wrong = |what: String| ConfigError::Environment { name: name.clone(), what };
        *place(sinks, &name).map_err(wrong)? = path(&value).map_err(wrong)?;
    }
    Ok(())
}

/// Kubernetes tells each pod of the Services of its namespace by variables, and one of those may be named like this.
fn is_service_link(name: &str) -> bool {
    !name.ends_with(SUFFIX)
        && (name.contains("_SERVICE_") || name.ends_with("_PORT") || name.contains("_PORT_"))
}

/// The value is never quoted: somebody may have put the secret itself there.
fn path(value: &OsString) -> Result<PathBuf, String> {
    let path = Path::new(value);
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err("its value is no absolute path, expected that of the file with the secret".to_owned())
    }
}

fn place<'a>(sinks: &'a mut [SinkConfig], name: &str) -> Result<&'a mut PathBuf, String> {
    let rest = name.strip_prefix(PREFIX).and_then(|it| it.strip_suffix(SUFFIX)).unwrap_or_default();
    // What names a sink: `my-siem` is MY_SIEM.
    let called = |sink: &SinkConfig| sink.name().to_uppercase().replace('-', "_");
    let key = |sink: &SinkConfig| Some(rest.strip_prefix(&called(sink))?.strip_prefix('_')?.to_owned());
    let fits = |sink: &SinkConfig| key(sink).is_some_and(|key| is_key(&key));
    let names: Vec<String> = sinks.iter().map(|it| format!("`{}`", it.name())).collect();
    let mut fitting = (0..sinks.len()).filter(|n| fits(&sinks[*n]));
    let found = match (fitting.next(), fitting.next()) {
        (Some(found), None) => found,
        (Some(one), Some(other)) => {
            return Err(format!(
                "may mean sink {} as well as {}, expected sinks with other names",
                names[one], names[other]
            ));
        }
        (None, _) if sinks.is_empty() => {
            return Err(format!("there are no sinks, expected {EXPECTED} of one"));
        }
        (None, _) => {
            return Err(format!("unknown, expected {EXPECTED} of one of the sinks {}", names.join(", ")));
        }
    };
    let key = key(&sinks[found]).unwrap_or_default();
    let Secrets { tls, header_files } = sinks[found].secrets();
    let nothing = |what: &str| format!("sink {} has no {what}", names[found]);
    if let Some(header) = key.strip_prefix(HEADER) {
        let headers = header_files.ok_or_else(|| nothing("headers"))?;
        let header = header.replace('_', "-");
        // As the file writes it, if it is there.
        let same = |it: &&String| it.replace('_', "-").eq_ignore_ascii_case(&header);
        let header = headers.keys().find(same).cloned().unwrap_or(header);
        return Ok(headers.entry(header).or_default());
    }
    let tls = tls.ok_or_else(|| nothing("TLS"))?;
    let place = match key.as_str() {
        "TLS_CA" => &mut tls.ca,
        "TLS_CERT" => &mut tls.cert,
        _ => &mut tls.key,
    };
    Ok(place.get_or_insert_default())
}

fn is_key(key: &str) -> bool {
    let is_header = |header: &str| {
        http::HeaderName::try_from(header.replace('_', "-")).is_ok_and(|it| !OURS.contains(&it.as_str()))
    };
    matches!(key, "TLS_CA" | "TLS_CERT" | "TLS_KEY") || key.strip_prefix(HEADER).is_some_and(is_header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const SINKS: &str = "sinks:\n\
        - {type: webhook, name: my-siem, url: \"https://a/\", header_files: {Authorization: /file, X_Odd: /odd}, tls: {ca: /ca}}\n\
        - {type: syslog, name: log, address: \"tls://a:1\"}\n\
        - {type: file, name: archive, path: /a}\n\
        - {type: syslog, name: log_header_x, address: \"tls://b:1\"}\n";

    fn with(text: &str, variables: &[(&str, &str)]) -> Result<Vec<SinkConfig>, String> {
        let mut sinks = Config::parse("t".as_ref(), text).expect("valid").sinks;
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        apply(&mut sinks, variables).map_err(|error| error.to_string())?;
        Ok(sinks)
    }

    #[test]
    fn paths_take_the_places_of_those_in_the_file() {
        let sinks = with(
            SINKS,
            &[
                ("OBSERVER_SINK_MY_SIEM_HEADER_AUTHORIZATION_FILE", "/run/credentials/token"),
                ("OBSERVER_SINK_MY_SIEM_HEADER_X_ODD_FILE", "/run/odd"),
                ("OBSERVER_SINK_MY_SIEM_HEADER_X_API_KEY_FILE", "/run/key"),
                ("OBSERVER_SINK_MY_SIEM_TLS_CA_FILE", "/run/ca"),
                ("OBSERVER_SINK_LOG_TLS_CERT_FILE", "/run/cert"),
                ("OBSERVER_SINK_LOG_TLS_KEY_FILE", "/run/key"),
                ("OBSERVER_SINK_LOG_HEADER_X_TLS_CA_FILE", "/run/other"),
                ("PATH", "relative"),
                ("OBSERVER_VERIFIER_LOG", "1"),
                ("OBSERVER_SINK_COLLECTOR_SERVICE_HOST", "10.0.0.1"),
                ("OBSERVER_SINK_COLLECTOR_PORT", "tcp://10.0.0.1:1"),
                ("OBSERVER_SINK_COLLECTOR_PORT_1_TCP_ADDR", "10.0.0.1"),
            ],
        );
        // The last of the names above fits two sinks, by their names alone.
        assert_eq!(
            sinks,
            Err("environment variable OBSERVER_SINK_LOG_HEADER_X_TLS_CA_FILE: may mean sink `log` as well as \
                 `log_header_x`, expected sinks with other names"
                .to_owned())
        );
        let sinks = with(
            &SINKS[..SINKS.rfind("- {").expect("the last sink")],
            &[
                ("OBSERVER_SINK_MY_SIEM_HEADER_AUTHORIZATION_FILE", "/run/credentials/token"),
                ("OBSERVER_SINK_MY_SIEM_HEADER_X_ODD_FILE", "/run/odd"),
                ("OBSERVER_SINK_MY_SIEM_HEADER_X_API_KEY_FILE", "/run/api"),
                ("OBSERVER_SINK_MY_SIEM_TLS_CA_FILE", "/run/ca"),
                ("OBSERVER_SINK_LOG_TLS_CERT_FILE", "/run/cert"),
                ("OBSERVER_SINK_LOG_TLS_KEY_FILE", "/run/key"),
                ("PATH", "relative"),
                ("OBSERVER_VERIFIER_LOG", "1"),
                ("OBSERVER_SINK_COLLECTOR_SERVICE_HOST", "10.0.0.1"),
                ("OBSERVER_SINK_COLLECTOR_PORT", "tcp://10.0.0.1:1"),
                ("OBSERVER_SINK_COLLECTOR_PORT_1_TCP_ADDR", "10.0.0.1"),
            ],
        )
        .expect("places for all");
        let SinkConfig::Webhook(webhook) = &sinks[0] else { panic!("{sinks:?}") };
        let headers: Vec<(&str, &str)> = webhook
            .header_files
            .iter()
            .map(|(name, path)| (name.as_str(), path.to_str().expect("UTF-8")))
            .collect();
        assert_eq!(
            headers,
            [("Authorization", "/run/credentials/token"), ("X-API-KEY", "/run/api"), ("X_Odd", "/run/odd")]
        );
        assert_eq!(webhook.tls.ca.as_deref(), Some(Path::new("/run/ca")));
        let SinkConfig::Syslog(syslog) = &sinks[1] else { panic!("{sinks:?}") };
        assert_eq!(syslog.tls.cert.as_deref(), Some(Path::new("/run/cert")));
        assert_eq!(syslog.tls.key.as_deref(), Some(Path::new("/run/key")));
        assert_eq!(syslog.tls.ca, None);
    }

    #[test]
    fn what_has_no_place_is_told_in_one_line() {
        let of = format!(
            "unknown, expected {EXPECTED} of one of the sinks `my-siem`, `log`, `archive`, `log_header_x`"
        );
        for (text, name, value, expected) in [
            (SINKS, "OBSERVER_SINK_SIEM_TLS_KEY_FILE", "/a", of.as_str()),
            (SINKS, "OBSERVER_SINK_LOG_TLS_KYE_FILE", "/a", &of),
            (SINKS, "OBSERVER_SINK_LOG_TLS_KEY", "/a", &of),
            (SINKS, "OBSERVER_SINK_LOG_URL_FILE", "/a", &of),
            (SINKS, "OBSERVER_SINK_MY_SIEM_HEADER_HOST_FILE", "/a", &of),
            (SINKS, "OBSERVER_SINK_MY_SIEM_HEADER__FILE", "/a", &of),
            (SINKS, "OBSERVER_SINK_", "/a", &of),
            (SINKS, "OBSERVER_SINK_ARCHIVE_TLS_KEY_FILE", "/a", "sink `archive` has no TLS"),
            (SINKS, "OBSERVER_SINK_LOG_HEADER_AUTHORIZATION_FILE", "/a", "sink `log` has no headers"),
            (
                SINKS,
                "OBSERVER_SINK_LOG_TLS_KEY_FILE",
                "s3cret",
                "its value is no absolute path, expected that of the file with the secret",
            ),
            (
                SINKS,
                "OBSERVER_SINK_LOG_TLS_KEY_FILE",
                "",
                "its value is no absolute path, expected that of the file with the secret",
            ),
            (
                "",
                "OBSERVER_SINK_LOG_TLS_KEY_FILE",
                "/a",
                &format!("there are no sinks, expected {EXPECTED} of one"),
            ),
        ] {
            let told = with(text, &[(name, value)]).expect_err(name);
            assert_eq!(told, format!("environment variable {name}: {expected}"));
        }
    }
}
