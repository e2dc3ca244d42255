//! The alerts and the dashboard of `k8s/components/monitoring` name metrics that exist, sections of the runbook, and cases of
//! `tests/alerts.yml`, which `.ci/steps/deployment-files` runs by promtool. `.ci/steps/alerts` shows some of them to a real Prometheus.
//!
//! `TEST_REGENERATE=1 cargo test --test monitoring` writes prometheusrule.yaml.

#[path = "support/mongod.rs"]
mod mongod;
#[path = "cli/support.rs"]
#[allow(dead_code)]
mod process;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use mongod::Mongod;
use process::Serving;

use serde_json::Value;

const RULES: &str = "k8s/components/monitoring/rules.yml";
const DASHBOARD: &str = "k8s/components/monitoring/dashboard.json";
const PROMETHEUS_RULE: &str = "k8s/components/monitoring/prometheusrule.yaml";

/// The head of the object whose `spec` is the text of the rules.
const HEAD: &str = "\
# Generated from rules.yml by TEST_REGENERATE=1 cargo test --test monitoring.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: records
  namespace: records
  labels:
    app.kubernetes.io/name: records
spec:
";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// The names of metrics in `text`, without the suffix of a series of a histogram.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
    let names = words.filter(|word| word.starts_with("records_"));
    names.map(|name| name.trim_end_matches("_bucket").to_owned()).collect()
}

/// The text that follows `key` on each line that starts with it.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim().strip_prefix(key)).map(str::trim).collect()
}

fn alerts(rules: &str) -> Vec<&str> {
    values(rules, "- alert:")
}

/// The queries of the panels, which are everything that the dashboard asks Prometheus for.
fn queries(dashboard: &Value) -> Vec<&str> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets.map(|target| target["expr"].as_str().unwrap()).collect()
}

#[test]
fn alerts_and_dashboard_name_metrics_of_the_registry() {
    let known = metrics(&read("docs/reference/metrics.md"));
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let queries = queries(&dashboard);
    let (alerts, panels) = (metrics(&read(RULES)), metrics(&queries.join("\n")));
    assert!(alerts.len() > 10 && panels.len() > 10, "{alerts:?} {panels:?}");
    let unknown: Vec<_> = alerts.union(&panels).filter(|name| !known.contains(*name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} is no metric of docs/reference/metrics.md");
    // Alerts on what a graph does not show would have to be taken on trust.
    let unseen: Vec<_> = alerts.difference(&panels).collect();
    assert!(unseen.is_empty(), "{unseen:?} has an alert, and no panel");
}

#[test]
fn each_panel_of_the_dashboard_asks_for_the_chosen_processes() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    for query in queries(&dashboard) {
        let selectors = query.matches("instance=~\"$instance\"").count();
        assert_eq!(selectors, query.matches("records_").count(), "{query}");
    }
}

#[test]
fn each_alert_links_to_its_section_of_the_runbook() {
    let (rules, runbook) = (read(RULES), read("docs/how-to/runbook.md"));
    let links = values(&rules, "runbook_url:");
    let expected = alerts(&rules).into_iter().map(|alert| {
        assert!(runbook.contains(&format!("\n## {alert}\n")), "the runbook has no section on {alert}");
        format!("https://example.com/records/docs/how-to/runbook.md#{}", alert.to_lowercase())
    });
    assert_eq!(links, expected.collect::<Vec<_>>());
    let sections: Vec<_> = values(&runbook, "## Records").into_iter().map(|name| format!("Records{name}")).collect();
    assert_eq!(sections, alerts(&rules), "the runbook has the sections of the alerts, in their order");
}

#[test]
fn each_alert_is_shown_silent_firing_and_resolved() {
    let (rules, cases) = (read(RULES), read("tests/alerts.yml"));
    for alert in alerts(&rules) {
        let checks =
            cases.split("\n      - eval_time:").skip(1).filter(|check| check.contains(&format!(": {alert}\n")));
        let silent: Vec<bool> = checks.map(|check| check.contains("exp_alerts: []")).collect();
        let ends_silent = silent.first() == Some(&true) && silent.last() == Some(&true);
        assert!(ends_silent && silent.contains(&false), "{alert} is silent at {silent:?}");
    }
}

#[test]
fn the_object_for_the_prometheus_operator_has_the_same_rules() {
    let rules = read(RULES);
    let (_, groups) = rules.split_once("groups:\n").unwrap();
    let indented = format!("groups:\n{groups}").replace('\n', "\n  ").replace("\n  \n", "\n\n");
    let expected = format!("{HEAD}  {}\n", indented.trim_end());
    if env::var_os("TEST_REGENERATE").is_some() {
        fs::write(path(PROMETHEUS_RULE), &expected).unwrap();
    }
    assert!(
        read(PROMETHEUS_RULE) == expected,
        "{PROMETHEUS_RULE} is out of date: write it by TEST_REGENERATE=1 cargo test --test monitoring"
    );
}

/// The longest wait for an alert to fire or to resolve, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A Prometheus that scrapes one service, and ends when this is dropped.
struct Prometheus {
    process: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts the program that `TEST_PROMETHEUS` names, with the rules of the repository in seconds instead of minutes.
    fn start(directory: &Path, target: SocketAddr) -> Self {
        let program = env::var_os("TEST_PROMETHEUS").expect("TEST_PROMETHEUS must name a prometheus executable");
        let shortened = read(RULES).lines().map(shortened).collect::<String>();
        fs::write(directory.join("rules.yml"), shortened).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [rules.yml]\n\
             scrape_configs: [{{job_name: records, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        fs::write(directory.join("prometheus.yml"), config).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], mongod::free_port().unwrap()));
        let log = fs::File::create(directory.join("prometheus.log")).unwrap();
        let process = Command::new(program)
            .current_dir(directory)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=prometheus"])
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a Prometheus");
        let prometheus = Self { process, address };
        wait_until("Prometheus answers", || std::net::TcpStream::connect(address).is_ok());
        prometheus
    }

    fn get(&self, service: &Serving, path: &str) -> Value {
        let (status, body) = service.get_at(self.address, path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Returns how often the service was scraped in the last minute.
    fn scrapes(&self, service: &Serving) -> u64 {
        let answer = self.get(service, "/api/v1/query?query=count_over_time(records_build_info%5B1m%5D)");
        answer["data"]["result"][0]["value"][1].as_str().map_or(0, |count| count.parse().unwrap())
    }

    /// Returns the names of the alerts that fire.
    fn firing(&self, service: &Serving) -> BTreeSet<String> {
        let answer = self.get(service, "/api/v1/alerts");
        let alerts = answer["data"]["alerts"].as_array().unwrap().iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Replaces minutes by seconds: an alert waits for two, and looks back over ten.
fn shortened(line: &str) -> String {
    let mut line = line.to_owned();
    if line.trim().starts_with("for: ") {
        line = format!("{}for: 2s", &line[..line.len() - line.trim_start().len()]);
    }
    for minutes in ["[1m]", "[2m]", "[5m]", "[10m]"] {
        line = line.replace(minutes, "[10s]");
    }
    line + "\n"
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(250));
    }
}

#[test]
#[ignore = "needs TEST_PROMETHEUS and TEST_MONGOD: see .ci/steps/alerts"]
fn a_real_prometheus_alerts_while_mongodb_is_stopped_and_no_longer() {
    let mut mongod = Mongod::start().expect("a mongod");
    let store = format!("{}/records", mongod.url());
    let directory = process::directory();
    let seed = path("seed/elements.jsonl");
    let imported = process::run(&directory, &["import", "--store", &store, &seed.to_string_lossy()], "");
    assert!(imported.status.success(), "{}", process::stderr(&imported));
    let arguments = ["serve", "--store", &store, "--admin-listen", "127.0.0.1:0", "--log-format", "text"];
    let mut service = Serving::start(&directory, &arguments);
    service.read_log();
    let prometheus = Prometheus::start(directory.path(), service.admin());
    // Clients and the probe of readiness, without which nothing fails.
    let firing = || {
        service.get("/api/v1/records/He");
        service.get_at(service.admin(), "/readyz");
        prometheus.firing(&service)
    };

    wait_until("Prometheus scrapes", || {
        firing();
        prometheus.scrapes(&service) >= 10
    });
    assert_eq!(firing(), BTreeSet::new(), "all is well");
    mongod.stop();
    let expected = ["RecordsErrors", "RecordsMongoDBUnreachable", "RecordsNotReady"].map(str::to_owned);
    wait_until("the alerts fire", || firing().is_superset(&BTreeSet::from(expected.clone())));
    mongod.run().expect("the mongod again");
    wait_until("the alerts resolve", || firing().is_empty());
    assert!(prometheus.scrapes(&service) > 10, "an alert must not resolve for want of series");
}
