//! Notices by e-mail: what is in them, and what a failure of one channel means for the other.

use harness::{Mailbox, Receiver, Reply, Store, World, on_both_stores};
use serde_json::{Value, json};

use super::{await_status, spend, warned, world};

on_both_stores!(
    a_warning_arrives_as_text_and_as_html,
    a_mail_that_arrived_is_not_repeated_for_a_webhook_that_fails,
    a_mail_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not,
    a_server_without_tls_gets_neither_mail_nor_password_unless_that_is_meant,
    without_a_way_out_a_message_is_finished_and_can_be_sent_once_there_is_one,
);

async fn mailing(store: Store, mailbox: &Mailbox, more: &[(&str, &str)]) -> World {
    let port = mailbox.port().to_string();
    let server = [
        ("WEIR_SMTP__HOST", "127.0.0.1"),
        ("WEIR_SMTP__PORT", port.as_str()),
        ("WEIR_SMTP__TLS", "none"),
        ("WEIR_SMTP__FROM", "Weir <weir@example.com>"),
    ];
    let kept = server.into_iter().filter(|(name, _)| more.iter().all(|(other, _)| name != other));
    world(store, &kept.chain(more.iter().copied()).collect::<Vec<_>>()).await
}

fn channel<'m>(message: &'m Value, name: &str) -> &'m Value {
    let deliveries = message["deliveries"].as_array().expect("a message has deliveries");
    let found = deliveries.iter().find(|one| one["channel"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {message}"))
}

async fn a_warning_arrives_as_text_and_as_html(store: Store) {
    let mailbox = Mailbox::start().await;
    let login = [("WEIR_SMTP__USER", "weir"), ("WEIR_SMTP__PASSWORD", "a password")];
    let world = mailing(store, &mailbox, &login).await;
    let fields = json!({"userEmail": "ada@example.com", "apiId": "<b>search</b>"});
    let subscription = warned(&world, &[80], fields).await;
    spend(&world, &subscription, 85).await;
    let mail = &mailbox.wait_for(1).await[0];
    assert_eq!((mail.from.as_str(), mail.to.as_str()), ("weir@example.com", "ada@example.com"));
    // RFC 4616 of "weir" and "a password".
    assert_eq!(mail.login, "AHdlaXIAYSBwYXNzd29yZA==");
    assert_eq!(mailbox.logins(), 1);
    assert_eq!(mail.header("To"), "ada@example.com");
    assert!(mail.header("From").contains("weir@example.com"));
    assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
    assert!(mail.header("Content-Type").starts_with("multipart/alternative"));
    let (text, html) = (mail.part("text/plain"), mail.part("text/html"));
    for said in ["85 of 100 units", "85", subscription.id.as_str()] {
        assert!(text.contains(said), "{said}: {text}");
        assert!(html.contains(said), "{said}: {html}");
    }
    assert!(text.contains("<b>search</b>"), "{text}");
    assert!(html.contains("&lt;b&gt;search&lt;/b&gt;") && !html.contains("<b>"), "{html}");
    let told = &await_status(&world, &subscription, 1, "delivered").await[0];
    let id = told["id"].as_str().expect("an id");
    assert_eq!(mail.header("Message-ID"), format!("<{id}@example.com>"));
    assert_eq!(told["deliveries"].as_array().map(Vec::len), Some(1), "{told}");
}

async fn a_mail_that_arrived_is_not_repeated_for_a_webhook_that_fails(store: Store) {
    let mailbox = Mailbox::start().await;
    let world = mailing(store, &mailbox, &[]).await;
    let receiver =
        Receiver::answering(|number| Reply::Status(if number < 5 { 500 } else { 200 })).await;
    let fields = json!({"userEmail": "ada@example.com", "webhookUrl": receiver.url()});
    let subscription = warned(&world, &[80], fields).await;
    spend(&world, &subscription, 80).await;
    let dead = &await_status(&world, &subscription, 1, "dead").await[0];
    let (webhook, email) = (channel(dead, "webhook"), channel(dead, "email"));
    assert_eq!((&webhook["status"], &webhook["attempts"]), (&json!("dead"), &json!(5)));
    assert_eq!((&email["status"], &email["attempts"]), (&json!("delivered"), &json!(1)));

    let path = format!("/api/v1/notifications/{}/redeliver", dead["id"].as_str().expect("an id"));
    world.admin().post(&path, &json!({})).await.expect(200);
    let told = &await_status(&world, &subscription, 1, "delivered").await[0];
    assert_eq!(channel(told, "webhook")["attempts"], 1, "{told}");
    assert_eq!((receiver.received().len(), mailbox.mails().len()), (6, 1));
}

async fn a_mail_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not(store: Store) {
    let mailbox = Mailbox::answering(|number| match number {
        0 | 1 => "451 busy",
        2 => "250 ok",
        _ => "550 nobody here",
    })
    .await;
    let world = mailing(store, &mailbox, &[]).await;
    let subscription = warned(&world, &[80], json!({"userEmail": "ada@example.com"})).await;
    spend(&world, &subscription, 80).await;
    let told = &await_status(&world, &subscription, 1, "delivered").await[0];
    assert_eq!(told["attempts"], 3);
    let subscription = warned(&world, &[80], json!({"userEmail": "bob@example.com"})).await;
    spend(&world, &subscription, 80).await;
    let dead = &await_status(&world, &subscription, 1, "dead").await[0];
    assert_eq!(dead["attempts"], 1);
    assert!(dead["lastError"].as_str().is_some_and(|error| error.contains("550")), "{dead}");
    assert_eq!(mailbox.mails().len(), 1);
}

async fn a_server_without_tls_gets_neither_mail_nor_password_unless_that_is_meant(store: Store) {
    let mailbox = Mailbox::start().await;
    for tls in ["starttls", "implicit"] {
        let more = [
            ("WEIR_SMTP__TLS", tls),
            ("WEIR_SMTP__USER", "weir"),
            ("WEIR_SMTP__PASSWORD", "a password"),
            ("WEIR_DELIVERY__ATTEMPTS_MAX", "2"),
            // The server waits for a line that never ends: what is sent to it is no SMTP.
            ("WEIR_DELIVERY__TIMEOUT", "500ms"),
        ];
        let world = mailing(store, &mailbox, &more).await;
        let subscription = warned(&world, &[80], json!({"userEmail": "ada@example.com"})).await;
        spend(&world, &subscription, 80).await;
        let dead = &await_status(&world, &subscription, 1, "dead").await[0];
        let error = dead["lastError"].as_str().expect("it says why");
        assert!(!error.contains("password"), "{tls}: {error}");
    }
    assert_eq!((mailbox.mails().len(), mailbox.logins()), (0, 0));
}

async fn without_a_way_out_a_message_is_finished_and_can_be_sent_once_there_is_one(store: Store) {
    let world = world(store, &[]).await;
    let subscription = warned(&world, &[80], json!({"userEmail": "ada@example.com"})).await;
    spend(&world, &subscription, 80).await;
    let told = &await_status(&world, &subscription, 1, "delivered").await[0];
    assert_eq!(told["deliveries"], json!([]), "there is no mail server and no webhook");
    assert_eq!(told["attempts"], 0);
    let receiver = Receiver::start().await;
    let path = format!("/api/v1/subscriptions/{}", subscription.id);
    let change = json!({"webhookUrl": receiver.url()});
    world.admin().json(http::Method::PATCH, &path, &change).await.expect(200);
    let path = format!("/api/v1/notifications/{}/redeliver", told["id"].as_str().expect("an id"));
    world.admin().post(&path, &json!({})).await.expect(200);
    assert_eq!(receiver.wait_for(1).await[0].threshold(), 80);
}
