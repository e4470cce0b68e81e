//! A database that forgets, and one that is slow to remember.

use harness::postgres::Postgres;
use harness::{Cluster, LEASE, Load, Node, event_of};

use super::{hard, metered};

#[tokio::test]
async fn a_database_that_has_lost_commits_is_refused_until_an_operator_accepts_it() {
    // Of its own: sessions are ended, and databases renamed.
    let server = Postgres::start_own().await.expect("a server can be started");
    let mut cluster = Cluster::start_on(3, &server).await;
    let plan = cluster.via(0).plan(hard(100)).await;
    let one = cluster.via(0).subscribe(&plan).await;
    let record = async |via: usize, id: &str| {
        let recorded = cluster.via(via).record(&event_of(&one.key, id)).await;
        assert_eq!(recorded["accepted"], 1, "{recorded}");
    };
    record(0, "in both").await;
    let copy = cluster.database().back_up().await.expect("a copy");
    // They were thrown out for a moment, and the copy knows everything so far but the last renewals.
    harness::eventually("they are back", 4 * LEASE, || async {
        let event = event_of(&one.key, "lost");
        let answer = cluster.via(1).gateway.post("/api/v1/usage/events", &event).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    // Each has been told of a renewal that the copy does not have.
    let renewals = async |which: &str| {
        let select = format!("SELECT {which}(beats) FROM nodes");
        cluster.database().number(&select).await.expect("a number")
    };
    let most = renewals("max").await;
    harness::eventually("leases are renewed", 8 * LEASE, || async {
        let least = renewals("min").await;
        if least > most { Ok(()) } else { Err(format!("{least} renewals")) }
    })
    .await;
    // One sleeps through it all.
    let sleeper = 2;
    cluster.nodes[sleeper].signal("STOP");
    cluster.take_out(sleeper);
    cluster.database().restore(copy).await.expect("the copy takes its place");
    // Whatever is asked from now on, nothing is written to it.
    for index in 0..sleeper {
        let event = event_of(&one.key, &format!("refused-{index}"));
        let request = cluster.via(index).gateway;
        let head = request.request(http::Method::POST, "/api/v1/usage/events");
        let head = head.header("content-type", "application/json");
        if let Ok(answer) = request.try_send(head, event.to_string()).await {
            assert_eq!(answer.status, 503, "{}", answer.text());
        }
    }
    for index in 0..sleeper {
        let code = cluster.nodes[index].wait().await;
        assert_eq!(code, Some(1), "{}", cluster.nodes[index].log());
        let log = cluster.nodes[index].log();
        assert!(log.contains("the database has lost commits"), "{log}");
    }
    let rows = "SELECT count(*) FROM usage_records";
    assert_eq!(cluster.database().number(rows).await.expect("a number"), 1);
    // A new boot knows nothing of the past, and is told.
    let (code, log) = Node::try_start(cluster.options_of_another(0)).await.expect_err("refused");
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("weir cluster accept-restore"), "{log}");
    let told = cluster.command(&["accept-restore"]).await.expect(0);
    assert!(told.contains("used as it is"), "{told}");
    let again = cluster.command(&["accept-restore"]).await.expect(0);
    assert!(again.contains("nothing to accept"), "{again}");
    for index in 0..sleeper {
        cluster.restart(index).await;
    }
    cluster.settled_on(&[0, 1]).await;
    // It wakes up among those that know better, and makes nobody refuse what was accepted.
    cluster.nodes[sleeper].signal("CONT");
    let code = cluster.nodes[sleeper].wait().await;
    assert_eq!(code, Some(1), "{}", cluster.nodes[sleeper].log());
    cluster.restart(sleeper).await;
    cluster.settled().await;
    for index in 0..3 {
        cluster.via(index).await_used(&one.key, 1).await;
    }
}

#[tokio::test]
async fn commits_that_take_long_cost_time_and_nothing_else() {
    let cluster = Cluster::start(3).await;
    let load = Load::begin(&cluster, metered(&cluster, 60).await);
    load.rounds(2).await;
    // Once for each transaction that writes events or checkpoints, at its end.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF current_setting('weir.slow', true) IS DISTINCT FROM txid_current()::text THEN \
             PERFORM set_config('weir.slow', txid_current()::text, true); \
             PERFORM pg_sleep(0.2); \
         END IF; RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON usage_event_ids DEFERRABLE \
             INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow(); \
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT OR UPDATE ON subscription_checkpoints \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();";
    cluster.database().execute(slow).await.expect("triggers");
    load.rounds(3).await;
    cluster.settled().await;
    cluster.database().execute("DROP FUNCTION slow() CASCADE").await.expect("no triggers");
    load.rounds(2).await;
    let audit = load.end().await.audit("commits of 200 ms", &cluster).await;
    assert_eq!((audit.unknown, audit.failed_checks), (0, 0), "{audit}");
}
