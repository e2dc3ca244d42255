//! Valid HTTP requests that ask for far too much.

use std::time::Duration;

use crate::support::Victim;

/// The processor time of this server for a response in a debug build. Independent of the load by other processes.
const AT_ONCE: Duration = Duration::from_secs(5);

pub async fn whatever_stands_in_the_request_line_is_answered_at_once() {
    let victim = Victim::with_records(2_000, 50, &[]);
    let list = "/api/v1/records?";
    let of = |part: &str, count: usize| part.repeat(count);
    let mut requests = vec![
        // Deep paths, in filters, order and projection.
        format!("{list}{}eq=1", of("a.", 30)),
        format!("{list}{}eq=1", of("a.", 5_000)),
        format!("{list}{}eq=1", of(".", 12_000)),
        format!("{list}{}eq=1", of("%5C", 4_000)),
        format!("{list}sort={}a&limit=1", of("a.", 7_000)),
        format!("{list}fields={}a&limit=1", of("a.", 7_000)),
        format!("{list}fields={}", of("a,", 7_000)),
        format!("{list}fields={}", (0..2_000).map(|index| format!("f{index},")).collect::<String>()),
        // Thousands of parameters and values.
        format!("{list}{}", of("a.eq=1&", 2_000)),
        format!("{list}{}", of("limit=1&", 1_500)),
        format!("{list}{}", of("&", 14_000)),
        format!("{list}{}", of("=&", 7_000)),
        format!("{list}{}", of("a&", 7_000)),
        format!("{list}_id.in={}", of("1,", 7_000)),
        format!("{list}_id.in={}", of(",", 14_000)),
        format!("{list}{}", of("text.ne=x&", 32)),
        // Long values.
        format!("{list}text.eq={}", of("x", 15_000)),
        format!("{list}text.eq={}", of("%00", 5_000)),
        format!("{list}after={}", of("A", 15_000)),
        format!("{list}after=AgAAAAAA{}", of("A", 14_000)),
        format!("{list}after_id={}", of("9", 15_000)),
        format!("{list}limit={}", of("9", 15_000)),
        format!("{list}limit=1&text.gt={}", of("9", 15_000)),
        format!("{list}limit=1&text.gt=1e{}", of("9", 10_000)),
        format!("/api/v1/records/{}", of("9", 15_000)),
        format!("/api/v1/records/{}", of("%25", 5_000)),
        format!("/api/v1/records/1e{}", of("9", 15_000)),
        format!("/{}", of("a/", 7_000)),
        format!("/{}", of("../", 5_000)),
        format!("{list}{}", of("x", 20_000)),
    ];
    // Names that are special in other programs, but not here.
    requests.extend(
        ["$where=1", "$where.eq=1", "__proto__.eq=1", "_id[$ne]=1", "_id.$ne.eq=1", "_id.eq={\"$gt\":1}", "a%00b.eq=1"]
            .map(|query| format!("{list}{query}&limit=1")),
    );
    for path in requests {
        let before = victim.processor_time();
        let (answer, _) = victim.get(&path).await;
        let took = victim.processor_time() - before;
        let shown = &path[..path.len().min(60)];
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["200", "204", "400", "404", "414", "431"].contains(&status), "{status:?} to {shown}");
        assert!(took < AT_ONCE, "{shown} took {took:?}");
        assert!(answer.len() < 500_000, "{} bytes to {shown}", answer.len());
    }
    victim.assert_survives().await;
}
