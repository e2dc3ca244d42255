//! Hostile and careless clients, over real sockets, against the program as a process.
//!
//! Every case ends with a lookup that is answered and a graceful stop, and finds no panic in the log. Cases with thousands of
//! connections or a hundred thousand records, and slow cases, are ignored unless `TEST_ATTACK=all` is set.

#[path = "../cli/support.rs"]
#[allow(dead_code)]
mod process;

#[path = "../support/servers.rs"]
mod servers;

mod floods;
mod garbage;
mod http2;
mod inputs;
mod readers;
mod stops;
mod support;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
#[path = "../support/tls.rs"]
mod tls_support;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use records::store::{BACKENDS, BackendKind};

use readers::{OF_8_MB, many_slow_readers, pages_that_nobody_reads};
use support::Victim;

/// The longest wait of a test, so that a hang becomes a failure.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let all = std::env::var("TEST_ATTACK").is_ok_and(|which| which == "all");
    // Most cases wait, so more of them run at once than there are processors. Cases with ten thousand connections would take each
    // other's files.
    let threads = std::env::var("RUST_TEST_THREADS").ok().filter(|_| !all).and_then(|threads| threads.parse().ok());
    let arguments = Arguments { test_threads: arguments.test_threads.or(threads), ..arguments };
    support::raise_files();
    let mut trials = Vec::new();
    macro_rules! cases {
        ($(#[$heavy:ident])? $room:ident: $($case:ident),* $(,)?) => {
            $(trials.push(trial(concat!(stringify!($room), "::", stringify!($case)), $room::$case));)*
        };
    }
    cases!(floods:
        a_thousand_half_sent_heads_are_let_go_while_others_are_served,
        more_clients_than_a_process_has_files_by_default_are_served,
        fewer_files_than_connections_are_said_and_leave_room_for_the_store,
        a_burst_beyond_the_limit_is_503_with_a_time_to_come_back_and_then_all_is_well,
        ten_thousand_wrong_keys_from_a_thousand_addresses_take_bounded_memory_and_log,
    );
    cases!(garbage:
        what_is_not_http_is_refused_or_closed,
        random_bytes_are_refused_or_closed,
        a_request_that_two_servers_would_frame_differently_is_the_last_on_its_connection,
        a_body_that_never_comes_holds_nobody,
    );
    cases!(http2:
        streams_that_are_reset_as_soon_as_they_begin_end_their_connection,
        streams_beyond_the_limit_are_refused_and_the_others_stay,
        header_blocks_without_end_are_cut,
        frames_that_ask_for_a_reply_which_is_never_read_are_bounded,
        frames_that_no_connection_may_have_end_it,
        requests_that_http_2_forbids_are_not_answered,
    );
    cases!(readers: a_reader_of_nothing_is_cut_in_time_and_counted);
    cases!(inputs: whatever_stands_in_the_request_line_is_answered_at_once);
    cases!(stops:
        a_stop_amid_half_sent_heads_and_idle_connections,
        a_stop_amid_a_burst_answers_what_was_sent_before,
        a_stop_amid_garbage,
    );
    #[cfg(feature = "tls")]
    {
        cases!(tls:
            http_without_tls_is_told_to_use_it,
            half_a_handshake_is_cut_in_time_and_counted,
            garbage_in_place_of_tls_is_closed,
            a_stop_amid_half_a_handshake_is_a_stop,
            a_reader_of_nothing_is_cut_in_time_and_counted,
        );
        let has_openssl = std::process::Command::new("openssl").arg("version").output().is_ok();
        let renegotiation = trial("tls::renegotiation_is_refused", tls::renegotiation_is_refused);
        trials.push(renegotiation.with_ignored_flag(!has_openssl));
    }
    let heavy = [
        trial(
            "readers::a_reader_that_stops_is_let_go_and_one_that_is_slow_gets_everything",
            readers::a_reader_that_stops_is_let_go_and_one_that_is_slow_gets_everything,
        ),
        trial(
            "readers::a_reader_of_4_000_bytes_a_second_is_not_cut",
            readers::a_reader_of_4_000_bytes_a_second_is_not_cut,
        ),
        trial("stops::a_stop_amid_slow_readers", stops::a_stop_amid_slow_readers),
        trial(
            "floods::ten_thousand_idle_connections_leave_lookups_prompt_and_memory_bounded",
            floods::ten_thousand_idle_connections,
        ),
        trial("floods::a_million_wrong_keys_from_ten_thousand_addresses_take_bounded_memory_and_log", || {
            floods::wrong_keys(1_000_000, 10_000, 32 * 1024)
        }),
        trial("readers::many_slow_readers_of_a_hundred_thousand_records_take_bounded_memory", || {
            many_slow_readers(Victim::with_records(100_000, 100, &readers::STREAMS), readers::READER_MAX_KIB)
        }),
        trial("readers::pages_that_nobody_reads_take_bounded_memory", || {
            pages_that_nobody_reads(Victim::with_records(OF_8_MB.0, OF_8_MB.1, &[]), 1)
        }),
        trial(
            "readers::a_thousand_slow_readers_of_every_coding_take_bounded_memory",
            readers::a_thousand_slow_readers_of_every_coding,
        ),
        trial("readers::slow_readers_of_15_mb_records_take_bounded_memory", readers::slow_readers_of_15_mb_records),
    ];
    trials.extend(heavy.map(|trial| trial.with_ignored_flag(!all)));
    // A remote store reads ahead of slow clients, which takes memory in this process.
    for backend in BACKENDS.iter().filter(|backend| backend.kind == BackendKind::Remote) {
        let readers_of = |what: &str, count, size| {
            let victim = move || Victim::with_records_in(backend, count, size, &readers::STREAMS);
            let case = move || many_slow_readers(victim(), readers::REMOTE_READER_MAX_KIB);
            trial(&format!("readers::many_slow_readers_of_{what}_in_{}_take_bounded_memory", backend.name), case)
        };
        let pages =
            trial(&format!("readers::pages_that_nobody_reads_of_{}_take_bounded_memory", backend.name), move || {
                pages_that_nobody_reads(Victim::with_records_in(backend, OF_8_MB.0, OF_8_MB.1, &[]), 2)
            });
        let heavy = [
            readers_of("what_is_short", 3_900, 950),
            readers_of("many_records", 100_000, 100),
            readers_of("large_records", 5_000, 4_000),
            pages,
        ];
        let ignored = !all || !servers::is_configured(backend.name);
        trials.extend(heavy.map(|trial| trial.with_ignored_flag(ignored)));
    }
    // Measurements would disturb each other, so they run one by one. The other cases mostly wait.
    let threads = if all { Some(1) } else { arguments.test_threads.or(Some(8)) };
    let conclusion = libtest_mimic::run(&Arguments { test_threads: threads, ..arguments }, trials);
    servers::stop_all();
    conclusion.exit_code()
}

fn trial<F: Future<Output = ()> + 'static>(name: &str, case: impl Fn() -> F + Send + 'static) -> Trial {
    let case = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(PATIENCE, case()).await })?;
        Ok(())
    };
    Trial::test(name, case)
}
