//! Reads a MongoDB URI by [its specification](https://github.com/mongodb/specifications/blob/master/source/uri-options/uri-options.md):
//! an option that is unknown, unsupported or has an invalid value is ignored with a warning, and options that contradict each
//! other are errors. The driver is stricter.

use std::collections::HashSet;

use percent_encoding::percent_decode_str;

use crate::store::url;

/// A URI that the driver accepts, with warnings about the ignored options.
#[derive(Debug)]
pub struct Prepared {
    pub uri: String,
    pub warnings: Vec<String>,
}

/// The values that an option may have.
#[derive(Clone, Copy)]
enum Values {
    Any,
    Boolean,
    /// A boolean that affects the security of the connection: an invalid value is an error.
    Safety,
    /// A whole number of at least this value.
    AtLeast(i64),
    OneOf(&'static [&'static str]),
    /// Pairs of a name and a value, in a list.
    Pairs,
    /// A valid option that has no effect here, with the reason.
    Ignored(&'static str),
}

use Values::{Any, AtLeast, Boolean, Ignored, OneOf, Pairs, Safety};

const NO_COMPRESSION: &str = "this build talks to MongoDB without compression";
const TIMEOUT: &str = "--store-timeout bounds every call";
const NO_PROXY: &str = "this build uses no SOCKS5 proxy";
const PROXY: [&str; 4] = ["proxyHost", "proxyPort", "proxyUsername", "proxyPassword"];

/// The options of the specification.
const OPTIONS: &[(&str, Values)] = &[
    ("appName", Any),
    ("authMechanism", Any),
    ("authMechanismProperties", Pairs),
    ("authSource", Any),
    ("compressors", Ignored(NO_COMPRESSION)),
    ("connectTimeoutMS", AtLeast(0)),
    ("directConnection", Boolean),
    ("enableOverloadRetargeting", Boolean),
    ("heartbeatFrequencyMS", AtLeast(1)),
    ("journal", Boolean),
    ("loadBalanced", Boolean),
    ("localThresholdMS", AtLeast(0)),
    ("maxAdaptiveRetries", AtLeast(0)),
    ("maxConnecting", AtLeast(1)),
    ("maxIdleTimeMS", AtLeast(0)),
    ("maxPoolSize", AtLeast(1)),
    ("maxStalenessSeconds", AtLeast(-1)),
    ("minPoolSize", AtLeast(0)),
    ("proxyHost", Ignored(NO_PROXY)),
    ("proxyPassword", Ignored(NO_PROXY)),
    ("proxyPort", Ignored(NO_PROXY)),
    ("proxyUsername", Ignored(NO_PROXY)),
    ("readConcernLevel", Any),
    ("readPreference", OneOf(&["primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest"])),
    ("readPreferenceTags", Pairs),
    ("replicaSet", Any),
    ("retryReads", Boolean),
    ("retryWrites", Boolean),
    ("serverMonitoringMode", OneOf(&["auto", "poll", "stream"])),
    ("serverSelectionTimeoutMS", AtLeast(0)),
    ("serverSelectionTryOnce", Ignored("the driver selects servers for serverSelectionTimeoutMS")),
    ("socketTimeoutMS", Ignored(TIMEOUT)),
    ("srvMaxHosts", AtLeast(0)),
    ("srvServiceName", Any),
    ("ssl", Safety),
    ("timeoutMS", Ignored(TIMEOUT)),
    ("tls", Safety),
    ("tlsAllowInvalidCertificates", Boolean),
    ("tlsAllowInvalidHostnames", Ignored("the names in certificates are always checked")),
    ("tlsCAFile", Any),
    ("tlsCertificateKeyFile", Any),
    ("tlsCertificateKeyFilePassword", Ignored("this build reads no encrypted key: decrypt the file")),
    ("tlsDisableCertificateRevocationCheck", Ignored("revocation is not checked")),
    ("tlsDisableOCSPEndpointCheck", Ignored("revocation is not checked")),
    ("tlsInsecure", Boolean),
    ("uuidRepresentation", OneOf(&["csharpLegacy", "javaLegacy", "pythonLegacy"])),
    ("w", Any),
    ("waitQueueTimeoutMS", AtLeast(0)),
    ("wTimeoutMS", AtLeast(0)),
    ("zlibCompressionLevel", Ignored(NO_COMPRESSION)),
];

/// Old names of options, and the current ones.
const OLD_NAMES: &[(&str, &str)] =
    &[("wtimeout", "wTimeoutMS"), ("j", "journal"), ("sslcertificateauthorityfile", "tlsCAFile")];

/// The mechanisms of authentication that the build has.
const MECHANISMS: [&str; 4] = ["SCRAM-SHA-256", "SCRAM-SHA-1", "MONGODB-X509", "PLAIN"];

/// Groups of options that exclude each other, whatever their values.
const EXCLUSIVE: &[(&str, &[&str])] = &[
    (
        "tlsInsecure",
        &[
            "tlsAllowInvalidCertificates",
            "tlsAllowInvalidHostnames",
            "tlsDisableCertificateRevocationCheck",
            "tlsDisableOCSPEndpointCheck",
        ],
    ),
    ("tlsAllowInvalidCertificates", &["tlsDisableCertificateRevocationCheck", "tlsDisableOCSPEndpointCheck"]),
    ("tlsDisableCertificateRevocationCheck", &["tlsDisableOCSPEndpointCheck"]),
];

/// Removes the ignored options from `uri`.
///
/// # Errors
///
/// When two parts of the URI contradict each other, or a required option is not supported. The text repeats no value of the URI.
pub fn prepare(uri: &str) -> Result<Prepared, String> {
    let Some((before, options)) = uri.split_once('?') else {
        return Ok(Prepared { uri: uri.to_owned(), warnings: Vec::new() });
    };
    let mut warnings = Vec::new();
    // The names are spelled as in the specification.
    let mut pairs: Vec<(&'static str, &str)> = Vec::new();
    for (index, option) in options.split('&').enumerate() {
        if option.is_empty() {
            continue;
        }
        let Some((name, value)) = option.split_once('=') else {
            return Err(format!("option {} has no value: write NAME=VALUE", index + 1));
        };
        let lower = name.to_ascii_lowercase();
        let known = OPTIONS.iter().map(|(known, _)| *known).find(|known| known.eq_ignore_ascii_case(&lower));
        let old = OLD_NAMES.iter().find(|(old, _)| *old == lower).map(|(_, known)| *known);
        match known.or(old) {
            Some(known) => {
                if old.is_some() {
                    warnings.push(format!("{lower} is an old name of {known}"));
                }
                pairs.push((known, value));
            }
            None if is_name(name) => {
                warnings.push(format!("{name} is ignored: there is no such option{}", similar(&lower)))
            }
            // The text may be part of a password, so it is not repeated.
            None => {
                return Err("an option has a name that no option has: escape `?` in user and password as %3F".into());
            }
        }
    }
    let decode =
        |(name, value): &(&'static str, &'_ str)| (*name, percent_decode_str(value).decode_utf8_lossy().into_owned());
    let decoded: Vec<(&'static str, String)> = pairs.iter().map(decode).collect();
    contradictions(before, &decoded)?;
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for ((name, value), (_, decoded)) in pairs.into_iter().zip(&decoded) {
        let kind = OPTIONS.iter().find(|(known, _)| *known == name).map_or(Any, |(_, kind)| *kind);
        // The same option under both names was compared before.
        let unique = if name == "ssl" { "tls" } else { name };
        if !seen.insert(unique) && name != "readPreferenceTags" {
            warnings.push(format!("{name} stands there several times: the first one counts"));
            continue;
        }
        match ignored(name, decoded, kind)? {
            Some(why) => warnings.push(format!("{name} is ignored: {why}")),
            None => kept.push(match kind {
                // The driver expects it in this case.
                OneOf(_) => format!("{unique}={}", decoded.to_lowercase()),
                _ => format!("{unique}={value}"),
            }),
        }
    }
    let sign = if kept.is_empty() { "" } else { "?" };
    Ok(Prepared { uri: format!("{before}{sign}{}", kept.join("&")), warnings })
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn similar(name: &str) -> String {
    let closest =
        OPTIONS.iter().map(|(known, _)| (strsim::damerau_levenshtein(&known.to_lowercase(), name), *known)).min();
    match closest {
        Some((distance, known)) if distance <= 1 + name.len() / 4 => format!(" (is it {known}?)"),
        _ => String::new(),
    }
}

/// Returns the reason to ignore an option; `None` to keep it.
fn ignored(name: &str, value: &str, kind: Values) -> Result<Option<String>, String> {
    let wrong = |right: &str| Ok(Some(format!("its value must be {right}")));
    match kind {
        Ignored(why) => Ok(Some(why.to_owned())),
        // The empty set of tags is that of any server.
        Pairs if value.is_empty() && name == "readPreferenceTags" => Ok(None),
        _ if value.is_empty() => Ok(Some("it has no value".to_owned())),
        Any if name == "authMechanism" && !MECHANISMS.contains(&value) => Err(format!(
            "the mechanism in authMechanism is not supported: use one of {}, or leave it out",
            MECHANISMS.join(", ")
        )),
        Any => Ok(None),
        Boolean if !matches!(value, "true" | "false") => wrong("true or false"),
        Safety if !matches!(value, "true" | "false") => Err(format!("{name} must be true or false")),
        Boolean | Safety => Ok(None),
        AtLeast(least) => match value.parse::<i64>() {
            Ok(number) if number >= least && number <= i64::from(u32::MAX) => Ok(None),
            _ => wrong(&format!("a whole number, at least {least}")),
        },
        OneOf(values) => match values.iter().any(|known| known.eq_ignore_ascii_case(value)) {
            true => Ok(None),
            // Ignoring a read preference could return old data from another server.
            false if name == "readPreference" => Err(format!("{name} must be one of {}", values.join(", "))),
            false => wrong(&format!("one of {}", values.join(", "))),
        },
        Pairs => match value.split(',').all(|pair| pair.contains(':')) {
            true => Ok(None),
            false => wrong("pairs as in NAME:VALUE,NAME:VALUE"),
        },
    }
}

fn contradictions(before: &str, pairs: &[(&'static str, String)]) -> Result<(), String> {
    let values =
        |name: &str| pairs.iter().filter(|(found, _)| *found == name).map(|(_, value)| &**value).collect::<Vec<_>>();
    let has = |name: &str| !values(name).is_empty();
    let is_true = |name: &str| values(name).first() == Some(&"true");
    let both = |one: &str, other: &str| Err(format!("{one} and {other} contradict each other: leave one out"));
    let tls: HashSet<_> = values("tls").into_iter().chain(values("ssl")).collect();
    if tls.len() > 1 {
        return both("tls (or ssl) as true", "as false");
    }
    for (one, others) in EXCLUSIVE {
        if let Some(other) = others.iter().find(|other| has(one) && has(other)) {
            return both(one, other);
        }
    }
    let is_srv = before.starts_with("mongodb+srv:");
    let hosts = before.rsplit_once('@').map_or(before, |(_, hosts)| hosts);
    if !is_srv && hosts.contains(',') {
        for option in ["directConnection", "loadBalanced"] {
            if is_true(option) {
                return Err(format!("{option}=true is for one host, and the URI names several"));
            }
        }
    }
    if is_true("loadBalanced") {
        if has("replicaSet") {
            return both("loadBalanced=true", "replicaSet");
        }
        if is_true("directConnection") {
            return both("loadBalanced=true", "directConnection=true");
        }
    }
    if is_srv && is_true("directConnection") {
        return both("mongodb+srv://", "directConnection=true");
    }
    for option in ["srvServiceName", "srvMaxHosts"] {
        if !is_srv && has(option) {
            return Err(format!("{option} is for mongodb+srv:// alone"));
        }
    }
    if values("srvMaxHosts").first().and_then(|count| count.parse().ok()).is_some_and(|count: u32| count > 0) {
        if has("replicaSet") {
            return both("srvMaxHosts", "replicaSet");
        }
        if is_true("loadBalanced") {
            return both("srvMaxHosts", "loadBalanced=true");
        }
    }
    for option in PROXY {
        if values(option).len() > 1 {
            return Err(format!("{option} stands there several times"));
        }
        if has(option) && !has("proxyHost") {
            return Err(format!("{option} needs proxyHost"));
        }
    }
    if has("proxyUsername") != has("proxyPassword") {
        return Err("proxyUsername and proxyPassword need each other".into());
    }
    Ok(())
}

/// Returns the words of `uri` that a message must not repeat: those of user and password, and of secret options. If a password
/// has an unescaped `/` or `@`, the driver may report a part of it as a host.
pub fn secrets(uri: &str) -> impl Iterator<Item = &str> {
    let (_, rest) = uri.split_once("://").unwrap_or(("", uri));
    let (user_info, rest) = rest.split_at(url::user_info_len(rest));
    let options =
        rest.split_once('?').map_or("", |(_, options)| options).split('&').filter_map(|option| option.split_once('='));
    let secret = options.filter(|(name, _)| {
        let name = name.to_ascii_lowercase();
        name.contains("password") || name == "authmechanismproperties"
    });
    let words = std::iter::once(user_info).chain(secret.map(|(_, value)| value));
    // Shorter words occur in any text, and reveal nothing.
    words.flat_map(|text| text.split(|c: char| !c.is_alphanumeric())).filter(|word| word.len() > 2)
}

#[cfg(test)]
mod tests {
    use super::{prepare, secrets};

    fn warnings(options: &str) -> String {
        prepare(&format!("mongodb://127.0.0.1/x?{options}")).expect("a URI").warnings.join("; ")
    }

    #[test]
    fn an_option_without_use_is_ignored_with_its_reason() {
        for (options, kept, why) in [
            (
                "compressors=zstd,snappy&w=1",
                "?w=1",
                "compressors is ignored: this build talks to MongoDB without compression",
            ),
            ("socketTimeoutMS=5000", "", "socketTimeoutMS is ignored: --store-timeout bounds every call"),
            (
                "tls=true&tlsAllowInvalidHostnames=true",
                "?tls=true",
                "tlsAllowInvalidHostnames is ignored: the names in certificates are always checked",
            ),
            ("connectTimeoutMS=soon", "", "connectTimeoutMS is ignored: its value must be a whole number, at least 0"),
            ("maxIdleTimeMS=", "", "maxIdleTimeMS is ignored: it has no value"),
            (
                "replicaset=a&replicaSet=b",
                "?replicaSet=a",
                "replicaSet stands there several times: the first one counts",
            ),
            ("wtimeout=5", "?wTimeoutMS=5", "wtimeout is an old name of wTimeoutMS"),
            ("autSource=admin", "", "autSource is ignored: there is no such option (is it authSource?)"),
            ("colour=red", "", "colour is ignored: there is no such option"),
            // A name of another driver.
            ("ssl_cert_reqs=CERT_NONE", "", "ssl_cert_reqs is ignored: there is no such option"),
            (
                "readPreference=secondary&readPreferenceTags=dc:a&readPreferenceTags=dc:b&readPreferenceTags=",
                "?readPreference=secondary&readPreferenceTags=dc:a&readPreferenceTags=dc:b&readPreferenceTags=",
                "",
            ),
            ("readPreferenceTags=dc%3Aa&maxPoolSize=%31%30", "?readPreferenceTags=dc%3Aa&maxPoolSize=%31%30", ""),
            ("readPreference=Second%61ry&tls=%74rue", "?readPreference=secondary&tls=%74rue", ""),
            ("readConcernLevel=AsTheServerKnows", "?readConcernLevel=AsTheServerKnows", ""),
            ("authMechanismProperties=", "", "authMechanismProperties is ignored: it has no value"),
        ] {
            assert_eq!(warnings(options), why);
            let uri = prepare(&format!("mongodb://127.0.0.1/x?{options}")).expect("a URI").uri;
            assert_eq!(uri, format!("mongodb://127.0.0.1/x{kept}"));
        }
    }

    #[test]
    fn a_contradiction_is_named_without_a_value() {
        for (uri, why) in [
            (
                "mongodb://a,b/x?directConnection=true",
                "directConnection=true is for one host, and the URI names several",
            ),
            (
                "mongodb://a/x?loadBalanced=true&replicaSet=rs0",
                "loadBalanced=true and replicaSet contradict each other: leave one out",
            ),
            (
                "mongodb://a/?tls=true&ssl=false",
                "tls (or ssl) as true and as false contradict each other: leave one out",
            ),
            (
                "mongodb://u:p@a/?authMechanism=MONGODB-AWS",
                "the mechanism in authMechanism is not supported: use one of SCRAM-SHA-256, SCRAM-SHA-1, MONGODB-X509, PLAIN, or leave it out",
            ),
            (
                "mongodb://a/?tls=true&ssl=%66alse",
                "tls (or ssl) as true and as false contradict each other: leave one out",
            ),
            ("mongodb://a/?tls=yes", "tls must be true or false"),
            ("mongodb://u:p?w@a/x", "option 1 has no value: write NAME=VALUE"),
            (
                "mongodb://u:p?s!3=cret@a/x",
                "an option has a name that no option has: escape `?` in user and password as %3F",
            ),
        ] {
            assert_eq!(prepare(uri).expect_err("a contradiction"), why);
        }
    }

    #[test]
    fn the_secrets_of_a_uri_are_its_user_and_password_and_those_of_options() {
        let of = |uri| secrets(uri).collect::<Vec<_>>();
        assert_eq!(of("mongodb://user:pass@host.example/x?appName=@acct@"), ["user", "pass"]);
        assert_eq!(of("mongodb://acct.example:10255/?ssl=true&appName=@acct@"), Vec::<&str>::new());
        assert_eq!(of("mongodb://user:pa?ss@host.example/x"), ["user"]);
        assert_eq!(of("mongodb://user:part1?part2@host.example/x"), ["user", "part1", "part2"]);
        assert_eq!(of("mongodb://user:part1/part2@host.example/x"), ["user", "part1", "part2"]);
        assert_eq!(of("mongodb://h/x?tlsCertificateKeyFilePassword=hunter2"), ["hunter2"]);
    }
}
