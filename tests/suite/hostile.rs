//! Requests that are wrong, huge, slow or not allowed: each is told so, and harms nobody.

use std::time::Duration;

use async_compression::tokio::write::GzipEncoder;
use harness::{Answer, Store, World, event, raw_exchange, rfc3339};
use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

const EVENTS: &str = "/api/v1/usage/events";
const CHECK: &str = "/api/v1/quota/check";

/// Asserts that the node decides and records as before, and that nothing was charged meanwhile.
async fn check_unharmed(world: &World, key: &str) {
    let seen = world.peek(key).await;
    assert_eq!((&seen["used"], &seen["pending"]), (&json!(0), &json!(0)), "{seen}");
    assert_eq!(world.record(&event(key)).await["accepted"], 1);
    assert_eq!(world.node.anonymous().get("/livez").await.status, 200);
    assert_eq!(world.node.anonymous().get("/readyz").await.status, 200);
}

fn deep(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

#[tokio::test]
async fn bodies_of_events_that_are_none_are_refused_as_a_whole() {
    let world = World::start(Store::Sqlite).await;
    let key = world.subscribe_hard(100).await.key;
    let gateway = world.gateway();
    let many = json!(vec![event(&key); 10_001]).to_string();
    let good = event(&key).to_string();
    let cut = good[..good.len() - 2].to_owned();
    for (what, body, status, code) in [
        ("nothing", Vec::new(), 400, "malformed_body"),
        ("no JSON", b"{\"id\": ".to_vec(), 400, "malformed_body"),
        ("cut short", cut.into_bytes(), 400, "malformed_body"),
        ("a number", b"17".to_vec(), 422, "validation_failed"),
        ("events that are no list", br#"{"events":{}}"#.to_vec(), 422, "validation_failed"),
        ("not UTF-8", b"[{\"id\":\"\xff\xfe\"}]".to_vec(), 400, "malformed_body"),
        ("10,001 events", many.into_bytes(), 422, "batch_too_large"),
        ("9 MiB", vec![b' '; 9 * 1024 * 1024], 413, "body_too_large"),
    ] {
        println!("{what}");
        let answer = gateway.post_bytes(Method::POST, EVENTS, "application/json", body).await;
        let problem = answer.expect_problem(status, code);
        assert!(problem.to_string().len() < 2_000, "the body is not sent back: {problem}");
    }

    // As one of several events it harms no other.
    let list = format!(r#"[{},{{"id":"x","a":{}}}]"#, deep(100_000), deep(100_000));
    let answer =
        gateway.post_bytes(Method::POST, EVENTS, "application/json", list).await.expect(200);
    assert_eq!(answer["rejected"].as_array().map(Vec::len), Some(2), "{answer}");

    let mut bomb = GzipEncoder::new(Vec::new());
    for _ in 0..64 {
        bomb.write_all(&vec![b' '; 1024 * 1024]).await.expect("memory takes everything");
    }
    bomb.shutdown().await.expect("memory takes everything");
    let zipped = |body: Vec<u8>| {
        let request = gateway.request(Method::POST, EVENTS).header("content-encoding", "gzip");
        gateway.send(request.header("content-type", "application/json"), body)
    };
    zipped(bomb.into_inner()).await.expect_problem(413, "body_too_large");
    let damaged = zipped(b"\x1f\x8b\x08 this is no gzip".to_vec()).await;
    assert_eq!(damaged.status, 400, "{}", damaged.text());
    check_unharmed(&world, &key).await;
}

#[tokio::test]
async fn checks_that_are_none_are_refused_and_charge_nothing() {
    let world = World::start(Store::Sqlite).await;
    let key = world.subscribe_hard(100).await.key;
    for query in [
        "cost=-1",
        "cost=1.5",
        "cost=",
        "cost=9007199254740992",
        "cost=99999999999999999999999999",
        "cost=one",
        "cost.=1",
        "cost.tokens=-1",
        "reserve=maybe",
        "unknown=1",
        "method=",
        "requestId=",
    ] {
        let problem = world.try_check(&key, query).await;
        assert_eq!(problem.status, 400, "{query}: {}", problem.text());
        let code = problem.json()["code"].as_str().unwrap_or_default().to_owned();
        problem.expect_problem(400, &code);
    }
    let gateway = world.gateway();
    gateway.get(CHECK).await.expect_problem(400, "missing_key");
    for (body, status, code) in [
        ("{", 400, "malformed_json"),
        ("[]", 422, "validation_failed"),
        ("{}", 422, "validation_failed"),
        (r#"{"checks":1}"#, 422, "validation_failed"),
        (r#"{"checks":[],"more":1}"#, 422, "validation_failed"),
    ] {
        let answer = gateway.post_bytes(Method::POST, CHECK, "application/json", body).await;
        answer.expect_problem(status, code);
    }
    check_unharmed(&world, &key).await;
}

#[tokio::test]
async fn faults_of_a_body_are_named_by_pointer() {
    let world = World::start(Store::Sqlite).await;
    let admin = world.admin();
    let key = world.subscribe_hard(100).await.key;
    let plan = world.plan(json!({"quota": {"limit": 1}})).await;
    let subscription = world.subscribe(&plan).await.id;
    let adjustments = format!("/api/v1/subscriptions/{subscription}/adjustments");
    for (path, body, pointers) in [
        ("/api/v1/plans", json!({"name": "x", "quota": {"limit": -1}}), vec!["/quota/limit"]),
        (
            "/api/v1/plans",
            json!({"name": "x", "quota": {"limit": 1}, "colour": 1}),
            vec!["/colour"],
        ),
        (
            "/api/v1/plans",
            json!({"name": "x", "quota": {"limit": 1, "every": "P0D"}, "currency": "XXXX"}),
            vec!["/currency", "/quota/every"],
        ),
        (
            "/api/v1/plans",
            json!({"name": "x", "quota": {"limit": 1},
                   "rateLimits": [{"name": "r", "limit": 0, "window": "PT1S"}]}),
            vec!["/rateLimits/0/limit"],
        ),
        (
            "/api/v1/subscriptions",
            json!({"planId": plan, "timeZone": "Mars/Olympus"}),
            vec!["/timeZone"],
        ),
        ("/api/v1/subscriptions", json!({"planId": plan, "key": "short"}), vec!["/key"]),
        ("/api/v1/tokens", json!({"name": "x", "scope": "root"}), vec!["/scope"]),
        (&*adjustments, json!({"units": 0, "reason": "x"}), vec!["/units"]),
        (&*adjustments, json!({"units": 1.5, "reason": "x"}), vec!["/units"]),
    ] {
        let answer = admin.post(path, &body).await;
        let problem = answer.expect_problem(422, "validation_failed");
        let mut told: Vec<&str> = problem["errors"]
            .as_array()
            .expect("faults are listed")
            .iter()
            .map(|fault| fault["pointer"].as_str().expect("a pointer"))
            .collect();
        told.sort_unstable();
        assert_eq!(told, pointers, "{body}: {problem}");
    }
    let malformed = admin.post_bytes(Method::POST, "/api/v1/plans", "application/json", "{").await;
    malformed.expect_problem(400, "malformed_json");
    check_unharmed(&world, &key).await;
}

#[tokio::test]
async fn who_may_not_is_told_so_and_learns_nothing() {
    let world = World::start(Store::Sqlite).await;
    let plan = world.plan(json!({"quota": {"limit": 100}})).await;
    let blue = world.subscribe_with(&plan, json!({"tenant": "blue"})).await;
    let red = world.subscribe_with(&plan, json!({"tenant": "red"})).await;
    let anonymous = world.node.anonymous();

    let revoked = json!({"name": "revoked", "scope": "gateway"});
    let revoked = world.admin().post("/api/v1/tokens", &revoked).await.expect(201);
    let text = |name: &str| revoked[name].as_str().expect("a token has it").to_owned();
    let (revoked_id, revoked) = (text("id"), text("token"));
    let path = format!("{CHECK}?cost=0&subscriptionKey={}", blue.key);
    anonymous.with_token(&revoked).get(&path).await.expect(200);
    world.admin().delete(&format!("/api/v1/tokens/{revoked_id}")).await.expect(204);
    let expiring = json!({"name": "expiring", "scope": "gateway", "expiresAt": rfc3339(1)});
    let expiring = world.token(&expiring).await;
    harness::eventually("the token expires", Duration::from_secs(10), || async {
        let answer = anonymous.with_token(&expiring).get(&path).await;
        if answer.status == 401 { Ok(()) } else { Err(answer.text()) }
    })
    .await;

    let mistyped = format!("{revoked}x");
    for token in ["", "unknown", &mistyped, &revoked, &expiring] {
        for path in [path.as_str(), "/api/v1/plans", "/api/v1/usage/summary"] {
            let refused = anonymous.with_token(token).get(path).await;
            refused.expect_problem(401, "unauthorized");
            assert!(refused.header("www-authenticate").starts_with("Bearer"));
        }
    }
    anonymous.get("/api/v1/plans").await.expect_problem(401, "unauthorized");

    world.gateway().get("/api/v1/plans").await.expect_problem(403, "wrong_scope");
    world.gateway().get("/api/v1/usage/summary").await.expect_problem(403, "wrong_scope");
    world.dashboard().get(&path).await.expect_problem(403, "wrong_scope");
    world.dashboard().post(EVENTS, &json!([])).await.expect_problem(403, "wrong_scope");
    world.dashboard().post("/api/v1/plans", &json!({})).await.expect_problem(403, "wrong_scope");

    // A token of one tenant sees another's things exactly as it sees what does not exist.
    let of_red = |scope: &'static str| {
        let body = json!({"name": "red", "scope": scope, "tenant": "red"});
        let (world, anonymous) = (&world, &anonymous);
        async move { anonymous.with_token(&world.token(&body).await) }
    };
    let (gateway, dashboard, admin) =
        (of_red("gateway").await, of_red("dashboard").await, of_red("admin").await);
    let absent = "0192f0c1-2345-7abc-8def-0123456789ab";
    let alike = |theirs: &Answer, none: &Answer| {
        assert_eq!(theirs.status, none.status, "{} {}", theirs.text(), none.text());
        let mut bodies = [theirs.json(), none.json()];
        for body in &mut bodies {
            // Each request has a name of its own.
            body["instance"] = Value::Null;
        }
        assert_eq!(bodies[0], bodies[1]);
    };
    for path in ["stats?", "records?", "trends?"] {
        let of = |id: &str| format!("/api/v1/usage/{path}subscriptionId={id}");
        let none = dashboard.get(&of(absent)).await;
        none.expect_problem(404, "not_found");
        alike(&dashboard.get(&of(&blue.id)).await, &none);
        assert_eq!(dashboard.get(&of(&red.id)).await.status, 200);
    }
    for suffix in ["", "/usage", "/keys"] {
        let of = |id: &str| format!("/api/v1/subscriptions/{id}{suffix}");
        let none = admin.get(&of(absent)).await;
        none.expect_problem(404, "not_found");
        alike(&admin.get(&of(&blue.id)).await, &none);
        assert_eq!(admin.get(&of(&red.id)).await.status, 200, "{suffix}");
    }
    let ask = |key: &str| {
        let path = format!("{CHECK}?subscriptionKey={key}");
        let gateway = &gateway;
        async move { gateway.get(&path).await }
    };
    alike(&ask(&blue.key).await, &ask("a-key-that-nobody-ever-had").await);
    assert_eq!(ask(&red.key).await.json()["allowed"], true);
    let events = json!([event(&blue.key), event("a-key-that-nobody-ever-had"), event(&red.key)]);
    let recorded = gateway.post(EVENTS, &events).await.expect(200);
    assert_eq!(recorded["accepted"], 1, "{recorded}");
    let told: Vec<_> = (0..2).map(|at| recorded["rejected"][at]["code"].clone()).collect();
    assert_eq!(told, ["unknown_subscription", "unknown_subscription"]);
    check_unharmed(&world, &blue.key).await;
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_are_problems_too() {
    let world = World::start(Store::Sqlite).await;
    let gateway = world.gateway();
    for path in
        ["/api/v1/nothing", "/api/v1/quota/check/", "/api/v2/quota/check", "/..%2f..%2fetc/passwd"]
    {
        gateway.get(path).await.expect_problem(404, "not_found");
    }
    for (method, path) in [
        (Method::DELETE, CHECK),
        (Method::PUT, EVENTS),
        (Method::GET, EVENTS),
        (Method::PATCH, "/livez"),
    ] {
        let refused = gateway.send(gateway.request(method, path), "").await;
        refused.expect_problem(405, "method_not_allowed");
        assert!(!refused.header("allow").is_empty(), "{path}: what is allowed is told");
    }
    let head = gateway.send(gateway.request(Method::HEAD, "/livez"), "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    // A client's own request id comes back; one that could forge a log line does not.
    let named = gateway.request(Method::GET, "/livez").header("x-request-id", "my-request");
    assert_eq!(gateway.send(named, "").await.header("x-request-id"), "my-request");
    let forged = gateway.request(Method::GET, "/livez").header("x-request-id", "a b");
    assert_ne!(gateway.send(forged, "").await.header("x-request-id"), "a b");
}

#[tokio::test]
async fn arrays_are_no_objects_and_fields_are_given_once() {
    let world = World::start(Store::Sqlite).await;
    let key = world.subscribe_hard(100).await.key;
    let odd = format!(
        r#"{{"checks":[["{key}",0],{{"subscriptionKey":"{key}","cost":0,"cost":50}},{{"cost":1}}]}}"#
    );
    let gateway = world.gateway();
    let answer = gateway.post_bytes(Method::POST, CHECK, "application/json", odd).await.expect(200);
    let results = answer["results"].as_array().expect("a list");
    assert_eq!(results.len(), 3, "{answer}");
    for result in results {
        assert_eq!(result["error"]["code"], "invalid_check", "{answer}");
    }
    let (admin, kind) = (world.admin(), "application/json");
    let plan = admin.post_bytes(Method::POST, "/api/v1/plans", kind, r#"["a plan"]"#).await;
    plan.expect_problem(422, "validation_failed");
    assert_eq!(world.peek(&key).await["pending"], 0);
}

#[tokio::test]
async fn a_check_with_a_body_leaves_the_connection_in_step() {
    let world = World::start(Store::Sqlite).await;
    let key = world.subscribe_hard(100).await.key;
    let token = world.token(&json!({"name": "odd", "scope": "gateway"})).await;
    let head = format!(
        "{CHECK}?cost=3 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nX-Subscription-Key: {key}\r\n"
    );
    // What the body says could pass for the next request.
    let body = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    let odd = format!("GET {head}Content-Length: {}\r\n\r\n{body}", body.len());
    let chunked = format!("GET {head}Transfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n0\r\n\r\n");
    let looked = format!("HEAD {head}\r\n");
    let last = "GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let pieces = [odd.as_bytes(), chunked.as_bytes(), looked.as_bytes(), last.as_bytes()];
    let (answers, closed) =
        raw_exchange(world.node.address(), &pieces, Duration::from_secs(10)).await;
    assert!(closed, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 4, "{answers}");
    // HEAD is decided as well, and its answer has no body.
    assert_eq!(answers.matches(r#""allowed":true"#).count(), 2, "{answers}");
    assert_eq!(world.peek(&key).await["pending"], 9);
}

#[tokio::test]
async fn slow_and_oversized_requests_are_cut_off() {
    let environment = [
        ("WEIR_SERVER__HEADER_READ_TIMEOUT", "500ms"),
        ("WEIR_SERVER__BODY_READ_TIMEOUT", "500ms"),
        ("WEIR_SERVER__REQUEST_TIMEOUT", "5s"),
    ];
    let world = World::start_with(Store::Sqlite, &environment).await;
    let key = world.subscribe_hard(100).await.key;
    let address = world.node.address();
    let patience = Duration::from_secs(10);

    let slow_head =
        raw_exchange(address, &[b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: "], patience);
    let silent = raw_exchange(address, &[], patience);
    let token = world.token(&json!({"name": "slow", "scope": "gateway"})).await;
    let head = format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n["
    );
    let pieces = [head.as_bytes()];
    let slow_body = raw_exchange(address, &pieces, patience);
    let huge = format!("GET /livez HTTP/1.1\r\nHost: a\r\nX-Huge: {}\r\n\r\n", "x".repeat(65_536));
    let pieces_huge = [huge.as_bytes()];
    let huge_head = raw_exchange(address, &pieces_huge, patience);
    let garbage =
        raw_exchange(address, &[b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"], patience);
    let (slow_head, silent, slow_body, huge_head, garbage) =
        tokio::join!(slow_head, silent, slow_body, huge_head, garbage);

    for (what, (received, closed)) in
        [("a head that does not end", &slow_head), ("silence", &silent), ("no HTTP", &garbage)]
    {
        assert!(closed, "{what} is cut off, received {received:?}");
        assert!(!received.contains("200 OK"), "{what}: {received}");
    }
    assert!(slow_body.0.starts_with("HTTP/1.1 408"), "{slow_body:?}");
    assert!(slow_body.0.contains("body_timeout"), "{slow_body:?}");
    assert!(huge_head.0.starts_with("HTTP/1.1 431") || huge_head.0.is_empty(), "{huge_head:?}");
    assert!(huge_head.1, "the connection is closed");
    check_unharmed(&world, &key).await;
}
