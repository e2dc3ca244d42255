//! Chromium without a window, driven by the [DevTools protocol](https://chromedevtools.github.io/devtools-protocol/) over a pipe.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

/// A page in a browser of its own, which ends when this is dropped.
pub struct Chromium {
    browser: Child,
    requests: RefCell<ChildStdin>,
    responses: RefCell<BufReader<ChildStdout>>,
    last: Cell<u64>,
    /// Responses by the request that they answer, until they are fetched.
    answers: RefCell<HashMap<u64, Value>>,
    /// The session with the page.
    session: String,
    /// Errors in the console, violations of the security policy among them.
    complaints: RefCell<Vec<Value>>,
    has_time_left: Cell<bool>,
}

impl Chromium {
    pub fn start(program: &str, profile: &Path) -> Self {
        std::fs::create_dir_all(profile).expect("a directory");
        let mut browser = Command::new("sh")
            // The protocol is spoken on the descriptors 3 and 4.
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", program])
            // The sandbox needs rights that a container does not have, and the page is trusted.
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .env("TMPDIR", profile)
            // The group has all processes of the browser.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a browser");
        let requests = RefCell::new(browser.stdin.take().unwrap());
        let responses = RefCell::new(BufReader::new(browser.stdout.take().unwrap()));
        let mut chromium = Self {
            browser,
            requests,
            responses,
            last: Cell::new(0),
            answers: RefCell::default(),
            session: String::new(),
            complaints: RefCell::default(),
            has_time_left: Cell::new(false),
        };
        let target = chromium.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = chromium.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        chromium.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            chromium.call(&format!("{domain}.enable"), json!({}));
        }
        chromium
    }

    /// Opens a page, and returns its document after ten seconds of its time, in which nothing waits for a clock.
    ///
    /// # Panics
    ///
    /// When the console has an error or a warning.
    pub fn open(&self, url: &str) -> String {
        self.call("Page.navigate", json!({"url": "about:blank"}));
        self.complaints.take();
        let navigated = self.call("Page.navigate", json!({"url": url}));
        assert!(navigated.get("errorText").is_none(), "{url}: {navigated}");
        self.grant_time(10_000);
        self.spend_time();
        self.document()
    }

    /// Returns the document as it is now.
    pub fn document(&self) -> String {
        let complaints = self.complaints.take();
        assert!(complaints.is_empty(), "{complaints:#?}");
        self.evaluate("document.documentElement.outerHTML").as_str().unwrap().to_owned()
    }

    /// Runs a script in the page, which then has ten seconds of its time, and returns what the script results in.
    pub fn run(&self, script: &str) -> Value {
        let evaluation = self.begin_evaluation(script);
        self.grant_time(10_000);
        let value = self.end_evaluation(evaluation);
        self.spend_time();
        value
    }

    /// Runs a script that waits for nothing.
    fn evaluate(&self, script: &str) -> Value {
        self.end_evaluation(self.begin_evaluation(script))
    }

    fn begin_evaluation(&self, script: &str) -> u64 {
        self.send("Runtime.evaluate", json!({"expression": script, "awaitPromise": true, "returnByValue": true}))
    }

    fn end_evaluation(&self, evaluation: u64) -> Value {
        let answer = self.answer(evaluation);
        assert!(answer.get("exceptionDetails").is_none(), "{answer:#}");
        answer["result"]["value"].clone()
    }

    /// Emulates a scheme of colours and the size of a window.
    pub fn look(&self, scheme: &str, width: u32, height: u32) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Lets the page's clock run as fast as the page has nothing to do.
    fn grant_time(&self, milliseconds: u32) {
        self.has_time_left.set(true);
        let policy = json!({"policy": "pauseIfNetworkFetchesPending", "budget": milliseconds});
        self.call("Emulation.setVirtualTimePolicy", policy);
    }

    /// Waits until the granted time is over.
    fn spend_time(&self) {
        while self.has_time_left.get() {
            self.receive();
        }
    }

    pub fn call(&self, method: &str, parameters: Value) -> Value {
        self.answer(self.send(method, parameters))
    }

    /// Calls a method, of the page once there is a session, without waiting for the answer.
    fn send(&self, method: &str, parameters: Value) -> u64 {
        let id = self.last.get() + 1;
        self.last.set(id);
        let mut request = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            request["sessionId"] = self.session.as_str().into();
        }
        let mut pipe = self.requests.borrow_mut();
        write!(pipe, "{request}\0").and_then(|()| pipe.flush()).expect("a browser that listens");
        id
    }

    /// Waits for the answer to a request.
    fn answer(&self, id: u64) -> Value {
        loop {
            if let Some(mut answer) = self.answers.borrow_mut().remove(&id) {
                assert!(answer.get("error").is_none(), "{answer}");
                return answer["result"].take();
            }
            self.receive();
        }
    }

    /// Receives one response or event.
    fn receive(&self) {
        let mut message = Vec::new();
        self.responses.borrow_mut().read_until(0, &mut message).expect("a browser that answers");
        assert_eq!(message.pop(), Some(0), "the browser ended");
        let message: Value = serde_json::from_slice(&message).unwrap();
        if let Some(id) = message["id"].as_u64() {
            self.answers.borrow_mut().insert(id, message);
            return;
        }
        match message["method"].as_str() {
            Some("Emulation.virtualTimeBudgetExpired") => self.has_time_left.set(false),
            // A status of 400 is an entry of the log, too, and the page's to deal with.
            Some("Log.entryAdded") if message["params"]["entry"]["source"] == "network" => {}
            Some("Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded") => {
                self.complaints.borrow_mut().push(message["params"].clone());
            }
            _ => {}
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // A process of it that lives on would still write to the profile while that is removed.
        let _ = kill_process_group(Pid::from_child(&self.browser), Signal::KILL);
        let _ = self.browser.wait();
    }
}
