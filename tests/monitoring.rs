//! The alerts and the dashboard of `k8s/components/monitoring` name metrics that exist, sections of the runbook, and cases of
//! `tests/alerts.yml`, which `.ci/steps/deployment-files` runs by promtool.
//!
//! `TEST_REGENERATE=1 cargo test --test monitoring` writes prometheusrule.yaml.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

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
