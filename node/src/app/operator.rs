//! What an operator asks of a cluster at the command line: through the database, so that it works
//! whichever node is up.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use weir_config::Config;
use weir_store::rows::MemberRow;

use super::open_store_that;

/// How long a drain is waited for: a node moves some hundred shards in seconds.
const DRAIN_WAIT: Duration = Duration::from_mins(2);
/// How often it is looked at.
const DRAIN_LOOK: Duration = Duration::from_millis(250);

/// A table of nodes: name, status, shards, time left of the lease, address.
///
/// # Errors
/// When the database cannot be read.
pub async fn status(config: &Config) -> anyhow::Result<String> {
    let store = open_store_that(config, false).await.context("the database cannot be used")?;
    let members = store.members().await.context("the nodes could not be read")?;
    let states = store.shards().await.context("the shards could not be read")?;
    let width = members.iter().map(|member| member.node.id.len()).max().unwrap_or(0).max(4);
    let mut text = String::new();
    let mut owned = 0;
    writeln!(text, "{:width$}  status    shards  lease  http", "node")?;
    for member in &members {
        let boot = member.node.incarnation;
        let shards = states.iter().filter(|state| state.owner == Some(boot)).count();
        let alive = member.is_alive();
        owned += if alive { shards } else { 0 };
        let lease = if alive { lease(member) } else { "-".to_owned() };
        let (name, state, http) = (&member.node.id, member.status(), &member.node.http);
        writeln!(text, "{name:width$}  {state:8}  {shards:6}  {lease:>5}  {http}")?;
    }
    writeln!(text, "{} shards, {} without a living owner", states.len(), states.len() - owned)?;
    Ok(text)
}

fn lease(member: &MemberRow) -> String {
    let tenths = member.lease_left_ms / 100;
    format!("{}.{}s", tenths / 10, tenths % 10)
}

/// Lets a node give its shards away, and waits until it has. `progress` is told how many are left,
/// whenever that changes.
///
/// # Errors
/// When no such node is alive, the database cannot be used, or it takes longer than two minutes.
pub async fn drain(config: &Config, node: &str, progress: impl Fn(usize)) -> anyhow::Result<()> {
    let store = open_store_that(config, false).await.context("the database cannot be used")?;
    let is_asked = store.drain(node).await.context("the node could not be asked")?;
    anyhow::ensure!(is_asked, "no node named `{node}` is alive");
    let mut before = None;
    for _ in 0..DRAIN_WAIT.as_millis() / DRAIN_LOOK.as_millis() {
        let members = store.members().await.context("the nodes could not be read")?;
        let states = store.shards().await.context("the shards could not be read")?;
        let boot = members.iter().find(|row| row.node.id == node).map(|row| row.node.incarnation);
        let is_its = |owner: Option<uuid::Uuid>| owner.is_some() && owner == boot;
        let left = states.iter().filter(|state| is_its(state.owner)).count();
        if left == 0 {
            return Ok(());
        }
        if before != Some(left) {
            progress(left);
            before = Some(left);
        }
        tokio::time::sleep(DRAIN_LOOK).await;
    }
    anyhow::bail!("{node} still owns shards; is there another node to take them?")
}

/// Lets nodes join a database that was found to have lost commits; whether it was.
///
/// # Errors
/// When the database cannot be used.
pub async fn accept_restore(config: &Config) -> anyhow::Result<bool> {
    let store = open_store_that(config, false).await.context("the database cannot be used")?;
    store.accept_rewound().await.context("the database could not be changed")
}
