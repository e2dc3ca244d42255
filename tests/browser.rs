//! The pages in a real browser: the content after the page's script has run, no errors in the console, such as violations of the
//! page's security policy, and no violation that [axe](https://github.com/dequelabs/axe-core) finds.
//!
//! Ignored where `TEST_CHROMIUM` names no executable. Tests for axe are ignored where `TEST_AXE` names no `axe.min.js`, and the one
//! that stops a MongoDB where `TEST_MONGOD` names none.

#[path = "support/chromium.rs"]
mod chromium;
#[path = "support/mongod.rs"]
mod mongod;
#[path = "cli/support.rs"]
#[allow(dead_code)]
mod process;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chromium::Chromium;
use libtest_mimic::{Arguments, Failed, Trial};
use mongod::Mongod;
use process::Serving;
use records::store::BACKENDS;
use serde_json::json;

type Case = (&'static str, fn(&Browser));

const CASES: &[Case] = &[
    ("the_page_shows_records_and_offers_the_next_ones", the_page_shows_records_and_offers_the_next_ones),
    ("an_address_carries_filters_and_page", an_address_carries_filters_and_page),
    ("a_record_that_looks_like_markup_is_text", a_record_that_looks_like_markup_is_text),
    ("a_table_has_the_columns_that_the_address_names", a_table_has_the_columns_that_the_address_names),
    ("a_cell_shows_what_type_its_value_has", a_cell_shows_what_type_its_value_has),
    ("an_address_opens_one_record_as_a_tree", an_address_opens_one_record_as_a_tree),
    ("the_page_tells_if_the_store_or_the_replica_answered", the_page_tells_if_the_store_or_the_replica_answered),
    ("what_is_wrong_is_said_in_words", what_is_wrong_is_said_in_words),
    ("the_last_page_offers_no_next_one", the_last_page_offers_no_next_one),
    ("a_page_of_a_thousand_records_is_shown_whole", a_page_of_a_thousand_records_is_shown_whole),
    ("the_page_says_how_many_records_match", the_page_says_how_many_records_match),
    ("a_filter_may_be_the_beginning_of_a_text", a_filter_may_be_the_beginning_of_a_text),
    ("alternatives_are_edited_and_removed", alternatives_are_edited_and_removed),
    ("a_page_has_no_more_records_than_the_service_allows", a_page_has_no_more_records_than_the_service_allows),
    ("records_that_have_no_address_are_opened_from_their_row", records_that_have_no_address_are_opened_from_their_row),
    ("a_field_without_a_name_is_no_other_field", a_field_without_a_name_is_no_other_field),
    ("a_text_of_many_megabytes_hides_no_record", a_text_of_many_megabytes_hides_no_record),
    ("a_key_of_another_scope_is_asked_for_again", a_key_of_another_scope_is_asked_for_again),
    ("the_status_page_tells_that_all_is_well", the_status_page_tells_that_all_is_well),
    ("the_status_page_names_what_is_wrong", the_status_page_names_what_is_wrong),
    ("the_status_page_has_the_settings_without_secrets", the_status_page_has_the_settings_without_secrets),
    ("every_operation_can_be_tried_out", every_operation_can_be_tried_out),
    ("the_page_is_accessible", the_page_is_accessible),
    ("the_page_is_accessible_without_records", the_page_is_accessible_without_records),
    ("the_status_page_is_accessible", the_status_page_is_accessible),
    ("a_banner_while_mongodb_is_away_is_accessible_and_goes", a_banner_while_mongodb_is_away_is_accessible_and_goes),
];

fn main() -> ExitCode {
    let arguments = Arguments { test_threads: Some(2), ..Arguments::from_args() };
    let program = setting("TEST_CHROMIUM");
    let trial = |&(name, case): &Case| {
        let program = program.clone();
        let run = move || {
            let program = program.ok_or_else(|| Failed::from("set TEST_CHROMIUM to the path of a Chromium"))?;
            case(&Browser::start(program));
            Ok(())
        };
        Trial::test(name, run)
    };
    // The status page is in every build; a store that may be away is not.
    let is_in_build = |(name, _): &&Case| match *name {
        "the_status_page_tells_that_all_is_well" => true,
        name if name.starts_with("the_status_page") => has_mongodb(),
        name if name.contains("mongodb") => has_mongodb() && cfg!(feature = "pages"),
        _ => cfg!(feature = "pages"),
    };
    let trials = CASES.iter().filter(is_in_build).map(trial);
    let lacks = |name: &str, word, variable| name.contains(word) && setting(variable).is_none();
    let is_ignored = |name: &str| {
        program.is_none() || lacks(name, "accessible", "TEST_AXE") || lacks(name, "mongodb", "TEST_MONGOD")
    };
    let with_flag = |trial: Trial| {
        let is_ignored = is_ignored(trial.name());
        trial.with_ignored_flag(is_ignored)
    };
    let trials = trials.map(with_flag).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn has_mongodb() -> bool {
    BACKENDS.iter().any(|backend| backend.name == "mongodb")
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A browser, and a service with the sample data and one odd record.
struct Browser {
    page: Chromium,
    program: String,
    profile: tempfile::TempDir,
    service: Serving,
}

/// The first record: its scripts would run if it were treated as markup.
const ODD: &str = r#"{"_id":"<b onclick=x>","note":"<img src=/nowhere onerror=alert(1)><script>alert(2)</script>"}"#;

impl Browser {
    fn start(program: String) -> Self {
        let seed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/seed/elements.jsonl")).unwrap();
        Self::with_records(program, &format!("{seed}{ODD}\n"))
    }

    fn with_records(program: String, lines: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        std::fs::write(profile.path().join("seed.jsonl"), lines).unwrap();
        let service = Serving::start(&profile, &["serve", "--store", "memory:", "--seed", "seed.jsonl"]);
        let page = Chromium::start(&program, &profile.path().join("profile"));
        Self { page, program, profile, service }
    }

    /// Returns the document once the page is idle.
    fn open(&self, path: &str) -> String {
        self.open_at(self.service.address, path)
    }

    fn open_at(&self, address: SocketAddr, path: &str) -> String {
        self.page.open(&format!("http://{address}{path}"))
    }

    /// Sends the form, and returns the document afterwards.
    fn submit(&self) -> String {
        self.page.run("document.querySelector('#query .primary').click()");
        self.page.document()
    }

    /// Checks a page by all rules of axe: light, dark, and on a phone.
    fn assert_accessible(&self, address: SocketAddr, path: &str) {
        let axe = std::fs::read_to_string(setting("TEST_AXE").expect("TEST_AXE")).expect("the file of TEST_AXE");
        for (scheme, width, height) in [("light", 1_280, 800), ("dark", 1_280, 800), ("light", 390, 844)] {
            self.page.look(scheme, width, height);
            self.open_at(address, path);
            self.page.run("for (const details of document.querySelectorAll('main details')) details.open = true");
            self.page.run(&format!("{axe}; 0"));
            let result = self.page.run(
                "axe.run().then(({passes, violations}) => ({
                    rules: passes.length,
                    violations: violations.map(({id, nodes}) => [id, ...nodes.map(({html}) => html)]),
                }))",
            );
            assert!(result["rules"].as_u64().is_some_and(|rules| rules > 15), "{path}: {result}");
            assert_eq!(result["violations"], json!([]), "{path}, {scheme}, {width} pixels wide");
        }
    }
}

/// Returns the text between the first `begin` and the next `end`.
fn between<'a>(document: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = document.split_once(begin).unwrap_or_else(|| panic!("no {begin} in {document}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end} after {begin}")).0
}

fn ids(document: &str) -> Vec<&str> {
    let rows = between(document, "<tbody>", "</tbody>");
    rows.split("class=\"id\">").skip(1).map(|cell| cell.split("</a>").next().unwrap()).collect()
}

/// Returns the names of the columns.
fn columns(document: &str) -> Vec<&str> {
    let head = between(document, "<thead>", "</thead>");
    head.split("title=\"Sort\">").skip(1).map(|heading| heading.split("</button>").next().unwrap()).collect()
}

fn status(document: &str) -> &str {
    let status = between(document, "<p id=\"status\"", "</p>");
    status.split_once('>').unwrap().1
}

/// Returns the link to the next page, if there is one.
fn next(document: &str) -> Option<String> {
    let button = between(document, "<button type=\"button\" id=\"next\"", ">");
    if button.contains("hidden") {
        return None;
    }
    let (_, query) = between(button, "data-url=\"", "\"").split_once('?').unwrap();
    Some(format!("/?{}", query.replace("&amp;", "&")))
}

fn the_page_shows_records_and_offers_the_next_ones(browser: &Browser) {
    let first = browser.open("/");
    assert_eq!(ids(&first).len(), 50);
    assert_eq!(status(&first), "50 records, and more.");
    let second = browser.open(&next(&first).expect("a next page"));
    assert_eq!(ids(&second).len(), 50);
    assert!(ids(&first).iter().all(|id| !ids(&second).contains(id)));
}

fn an_address_carries_filters_and_page(browser: &Browser) {
    let mut address = "/?block.eq=f&limit=12&fields=name.en".to_owned();
    let mut found = Vec::new();
    loop {
        let page = browser.open(&address);
        assert!(ids(&page).len() <= 12);
        assert!(page.contains("<code id=\"curl\">curl 'http://"), "the page shows its request");
        found.extend(ids(&page).into_iter().map(str::to_owned));
        match next(&page) {
            Some(next) => address = next,
            None => break,
        }
    }
    // Lanthanum to ytterbium, actinium to nobelium.
    assert_eq!(found.len(), 28, "{found:?}");
    assert!(found.contains(&"Ce".to_owned()) && !found.contains(&"Fe".to_owned()), "{found:?}");
}

fn a_record_that_looks_like_markup_is_text(browser: &Browser) {
    let page = browser.open("/?limit=1");
    assert_eq!(ids(&page), ["&lt;b onclick=x&gt;"]);
    assert!(page.contains("&lt;img src=/nowhere onerror=alert(1)&gt;"), "{page}");
    assert!(!page.contains("<img"), "{page}");
}

fn a_table_has_the_columns_that_the_address_names(browser: &Browser) {
    let page = browser.open("/?block.eq=f&sort=-atomic_weight&columns=_id,name.en,discovery.year&limit=3");
    assert_eq!(columns(&page), ["_id", "name.en", "discovery.year"]);
    assert!(ids(&page).contains(&"No"), "{page}");
    // The most common fields first, unless the address names any.
    assert_eq!(columns(&browser.open("/?block.eq=f"))[..2], ["_id", "atomic number"]);
}

fn a_cell_shows_what_type_its_value_has(browser: &Browser) {
    let page = browser.open("/?_id.in=He,H&columns=_id,atomic_weight,discovery.announced,melting_point_k,note");
    for cell in [
        "<td class=\"number\" data-path=\"atomic_weight\">4.0026</td>",
        "<time datetime=\"1868-08-18T00:00:00.000Z\" title=\"1868-08-18T00:00:00.000Z\">",
        "<span class=\"null\">null</span>",
        "<td class=\"missing\" data-path=\"note\">",
    ] {
        assert!(page.contains(cell), "{cell} in {page}");
    }
}

fn an_address_opens_one_record_as_a_tree(browser: &Browser) {
    let page = browser.open("/?limit=5#record=Fe");
    assert!(page.contains("<dialog id=\"record\" aria-labelledby=\"record-title\" open"), "{page}");
    assert_eq!(between(&page, "<h2 id=\"record-title\">", "</h2>"), "Fe");
    let tree = between(&page, "<div id=\"tree\">", "</dialog>");
    assert!(tree.contains("\"Eisen\"") && tree.contains("5 fields"), "{tree}");
    let page = browser.open("/#record=nothing");
    assert!(page.contains("There is no such record."), "{page}");
}

fn the_page_tells_if_the_store_or_the_replica_answered(browser: &Browser) {
    assert!(browser.open("/").contains("Answered by the store"));
}

fn what_is_wrong_is_said_in_words(browser: &Browser) {
    let page = browser.open("/?name.like=x");
    assert!(status(&page).contains("name.like"), "{page}");
    assert!(page.contains("role=\"status\"") && page.contains("class=\"error\""), "{page}");
    assert_eq!(ids(&page), [""; 0]);
}

fn the_last_page_offers_no_next_one(browser: &Browser) {
    let page = browser.open("/?limit=1000");
    assert_eq!(ids(&page).len(), 119);
    assert_eq!(next(&page), None);
}

fn a_page_of_a_thousand_records_is_shown_whole(browser: &Browser) {
    let lines = (0..1_500).map(|n| {
        let fields: String = (0..20).map(|field| format!(r#","f{field}":"{field} of {n}""#)).collect();
        format!(r#"{{"_id":{n},"in":{{"n":{n}}}{fields}}}"#) + "\n"
    });
    let browser = Browser::with_records(browser.program.clone(), &lines.collect::<String>());
    let page = browser.open("/?limit=1000");
    let shown: Vec<_> = (0..1_000).map(|n| n.to_string()).collect();
    assert_eq!(ids(&page), shown);
    assert_eq!(page.matches("<td").count(), 8_000, "eight columns unless more are chosen");
    assert_eq!(status(&page), "1000 records, and more.");
    assert_eq!(total(&page), "1,500 in all");
    let rest = browser.open(&next(&page).expect("a next page"));
    assert_eq!(ids(&rest).len(), 500);
    assert_eq!(total(&rest), "1,500 in all");
}

fn total(document: &str) -> &str {
    between(document, "<p id=\"total\">", "</p>")
}

fn the_page_says_how_many_records_match(browser: &Browser) {
    for (address, expected) in [
        ("/", "119 in all"),
        ("/?block.eq=f&limit=3&sort=-_id", "28 in all"),
        ("/?block.eq=x", "0 in all"),
        ("/?x=1", ""),
    ] {
        assert_eq!(total(&browser.open(address)), expected, "{address}");
    }
}

fn a_filter_may_be_the_beginning_of_a_text(browser: &Browser) {
    let page = browser.open("/?name.en.starts=Sil");
    assert_eq!(ids(&page), ["Ag", "Si"]);
    assert!(page.contains("<option value=\"starts\">begins with</option>"), "{page}");
}

fn alternatives_are_edited_and_removed(browser: &Browser) {
    let page = browser.open("/?or=(_id.in=(He,Ne),group.eq=1)&period.lt=3&limit=7");
    assert_eq!(ids(&page), ["H", "He", "Li", "Ne"]);
    assert_eq!(browser.page.run("document.querySelector('[data-part=or]').value"), "_id.in=(He,Ne),group.eq=1");
    browser.page.run("document.querySelector('[data-part=or]').value = '_id.eq=Au,name.de.eq=Fluor,block.eq=s'");
    assert_eq!(ids(&browser.submit()), ["Be", "F", "H", "He", "Li"], "gold has another period");
    let query = "new URLSearchParams(location.search).getAll('or').join('|')";
    assert_eq!(browser.page.run(query), "(_id.eq=Au,name.de.eq=Fluor,block.eq=s)");
    browser.page.run("document.querySelector('li:has([data-part=or]) [data-part=remove]').click()");
    assert_eq!(ids(&browser.submit()).len(), 7);
    assert_eq!(browser.page.run(query), "");
    assert_eq!(total(&browser.page.document()), "10 in all");
}

/// Opens the page of another service, with these records and settings.
fn with_records(browser: &Browser, lines: &str, settings: &[&str]) -> Serving {
    std::fs::write(browser.profile.path().join("other.jsonl"), lines).unwrap();
    let store = ["serve", "--store", "memory:", "--seed", "other.jsonl"];
    Serving::start(&browser.profile, &[&store[..], settings].concat())
}

fn a_page_has_no_more_records_than_the_service_allows(browser: &Browser) {
    let lines: String = (0..50).map(|id| format!("{{\"_id\":{id}}}\n")).collect();
    let service = with_records(browser, &lines, &["--max-limit", "20"]);
    let page = browser.open_at(service.address, "/");
    assert_eq!((ids(&page).len(), status(&page)), (20, "20 records, and more."));
    assert!(page.contains("max=\"20\""), "{page}");
}

fn records_that_have_no_address_are_opened_from_their_row(browser: &Browser) {
    let ids = ["5", "\"5\"", "null", "\"..\"", "\"\"", "{\"k\":1}"];
    let lines: String = ids.map(|id| format!("{{\"_id\":{id},\"is\":{}}}\n", json!(format!("of {id}")))).concat();
    let service = with_records(browser, &lines, &[]);
    browser.open_at(service.address, "/");
    for row in 0..ids.len() {
        let is = browser.page.run(&format!("document.querySelectorAll('td[data-path=is]')[{row}].textContent"));
        browser.page.run(&format!("document.querySelectorAll('tbody a.id')[{row}].click()"));
        // The browser tells the page later that the address has changed, and that the dialog is closed.
        let shown = || browser.page.run("document.getElementById('tree').textContent");
        let is_shown = || shown().as_str().is_some_and(|tree| tree.contains(&is.to_string()));
        wait_until("the record of the row", is_shown);
        browser.page.run("document.getElementById('close').click()");
        wait_until("the end of the dialog", || browser.page.run("location.hash") == json!(""));
    }
}

fn a_field_without_a_name_is_no_other_field(browser: &Browser) {
    let service = with_records(browser, r#"{"_id":1,"a":"right","":{"a":"wrong"}}"#, &[]);
    let page = browser.open_at(service.address, "/?columns=_id,a");
    assert!(page.contains("<td data-path=\"a\">right</td>"), "{page}");
}

fn a_text_of_many_megabytes_hides_no_record(browser: &Browser) {
    let long = "x\\n".repeat(4_000_000);
    let lines =
        format!("{{\"_id\":\"big\",\"s\":\"{long}\"}}\n{{\"_id\":\"small\",\"s\":\"a \\\"quote\\\" and \\\\\"}}\n");
    let service = with_records(browser, &lines, &[]);
    let page = browser.open_at(service.address, "/");
    assert_eq!(ids(&page), ["big", "small"]);
    assert!(page.contains(">a \"quote\" and \\</td>"), "{}", status(&page));
}

fn a_key_of_another_scope_is_asked_for_again(browser: &Browser) {
    let key = records::auth::new_key("scraper").unwrap();
    std::fs::write(browser.profile.path().join("keys"), key.line.replace("records:read", "metrics:read")).unwrap();
    let service = with_records(browser, "{\"_id\":1}\n", &["--api-keys", "keys"]);
    browser.open_at(service.address, "/");
    let is_open = "document.getElementById('key').open";
    let enter = |key: &str| {
        browser.page.run(&format!("document.getElementById('key-value').value = {}", json!(key)));
        browser.page.run("document.querySelector('#key button').click()");
        browser.page.document()
    };
    for wrong in [&*key.secret, "key: x", "“x”", "records_key_x"] {
        enter(wrong);
        wait_until("the page asks for a key", || browser.page.run(is_open) == json!(true));
    }
}

/// Opens the status page of a service with these settings.
fn open_status(browser: &Browser, settings: &[&str]) -> String {
    let serve = [&["serve", "--admin-listen", "127.0.0.1:0", "--log-format", "text"], settings].concat();
    let service = Serving::start(&browser.profile, &serve);
    // Requests that the page can count only if it was opened before them would make a chart of nothing.
    service.get("/api/v1/records/He");
    browser.open_at(service.admin(), "/status")
}

fn verdict(page: &str) -> &str {
    between(page, "aria-label=\"Verdict\"", "</section>").split_once('>').unwrap().1
}

fn the_status_page_tells_that_all_is_well(browser: &Browser) {
    let page = open_status(browser, &["--store", "memory:"]);
    assert_eq!(verdict(&page), "<h2>Ready</h2><ul></ul>");
    for text in ["<h2>Store</h2>", "<dt>Health check</dt>", "<h2>Process</h2>", "<dt>Memory</dt>"] {
        assert!(page.contains(text), "{text} in {page}");
    }
    assert!(!page.contains("<h2>Replica</h2>"), "without a fallback there is no replica: {page}");
    for chart in ["Requests a second", "Errors a second", "Time until a response"] {
        let drawn = between(&page, &format!("aria-label=\"{chart}: "), "</svg>");
        // The page has asked several times.
        assert!(between(drawn, "points=\"", "\"").split(' ').count() > 2, "{drawn}");
    }
}

fn the_status_page_names_what_is_wrong(browser: &Browser) {
    let store = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100";
    let page = open_status(browser, &["--store", store]);
    assert!(verdict(&page).starts_with("<h2>Not ready</h2><ul><li>"), "{page}");
    assert!(!page.contains("<dt>Health check</dt>"), "the time of a check that failed is shown: {page}");
    let page = open_status(browser, &["--store", store, "--fallback", "memory:"]);
    assert!(verdict(&page).contains("There is no usable replica."), "{page}");
    assert!(page.contains("<h2>Replica</h2><dl><dt>State</dt><dd>interrupted</dd>"), "{page}");
}

fn the_status_page_has_the_settings_without_secrets(browser: &Browser) {
    let store = "mongodb://reader:hush@127.0.0.1:1/?serverSelectionTimeoutMS=100";
    let page = open_status(browser, &["--store", store, "--max-limit", "77"]);
    let settings = between(&page, "id=\"settings\">", "</pre>");
    assert!(settings.contains("--max-limit") && settings.contains("77 "), "{settings}");
    assert!(settings.contains("mongodb://") && !page.contains("hush"), "{settings}");
}

fn every_operation_can_be_tried_out(browser: &Browser) {
    let page = browser.open("/docs/");
    for path in ["/api/v1/records", "/api/v1/records/{id}", "/livez", "/readyz", "/metrics"] {
        assert!(page.contains(&format!("data-path=\"{path}\"")), "{path} in {page}");
    }
}

fn the_page_is_accessible(browser: &Browser) {
    for path in ["/?limit=20", "/?block.eq=f&sort=-atomic_weight&limit=5&or=(_id.starts=N,phase.eq=gas)", "/#record=Fe"]
    {
        browser.assert_accessible(browser.service.address, path);
    }
}

fn the_page_is_accessible_without_records(browser: &Browser) {
    for path in ["/?block.eq=x", "/?name.like=x", "/#record=nothing"] {
        browser.assert_accessible(browser.service.address, path);
    }
}

fn the_status_page_is_accessible(browser: &Browser) {
    for store in ["memory:", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100"] {
        let service = Serving::start(
            &browser.profile,
            &["serve", "--admin-listen", "127.0.0.1:0", "--log-format", "text", "--store", store],
        );
        browser.assert_accessible(service.admin(), "/status");
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}: not after a minute");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn a_banner_while_mongodb_is_away_is_accessible_and_goes(browser: &Browser) {
    let mut mongod = Mongod::start_replica_set().expect("a mongod");
    let store = mongod.url().replace("/?", "/records?");
    let imported = process::run(&browser.profile, &["import", "--store", &store, "seed.jsonl"], "");
    assert!(imported.status.success(), "{}", process::stderr(&imported));
    let arguments =
        ["--store", &store, "--fallback", "memory:", "--admin-listen", "127.0.0.1:0", "--log-format", "text"];
    let mut service = Serving::start(&browser.profile, &[&["serve"], &arguments[..]].concat());
    service.read_log();
    let is_usable = || service.get_at(service.admin(), "/metrics").1.contains("\nrecords_fallback_replica_usable 1");
    wait_until("the replica is usable", is_usable);
    let hidden = "<p id=\"banner\" role=\"status\" hidden";
    let page = browser.open_at(service.address, "/?limit=5");
    assert!(page.contains("Answered by the store") && page.contains(hidden), "{page}");

    mongod.stop();
    let age = || {
        let head = service.head("/api/v1/records?limit=1");
        head.lines().find_map(|line| line.strip_prefix("age: ")?.parse::<u64>().ok())
    };
    wait_until("the replica is older than an outage that passes by itself", || age().is_some_and(|age| age > 10));
    browser.assert_accessible(service.address, "/?limit=5");
    let page = browser.page.document();
    assert!(page.contains("Answered by the replica, ") && !page.contains(hidden), "{page}");
    assert!(page.contains("The database is away. The replica answers; it was last known to be current "), "{page}");
    assert_eq!(ids(&page).len(), 5);

    mongod.run().expect("the mongod again");
    wait_until("MongoDB answers", || age().is_none());
    browser.page.run("0");
    let page = browser.page.document();
    assert!(page.contains("Answered by the store") && page.contains(hidden), "{page}");
}
