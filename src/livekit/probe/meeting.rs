//! The probe: two allocations that meet on the relay. One has a channel, the other a permission, so that both forms of data are
//! proved in both directions.

use std::time::Duration;

use tokio::time::Instant;

use super::client::{FromPeer, TurnClient, TurnCredential};
use super::failure::{Direction, Failure};
use super::link::{CHANNEL, Link};
use super::targets::ProbeTarget;
use super::tls::Roots;
use crate::wire::Family;

/// Time for everything.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Time for the end of the allocations, beyond that.
const RELEASE: Duration = Duration::from_millis(500);

/// How often data is sent again.
const AGAIN: Duration = Duration::from_millis(200);

/// How long data may take.
const DATA: Duration = Duration::from_secs(2);

/// Proves that two clients meet at a target. Returns how long it took.
///
/// # Errors
/// What is wrong.
pub async fn probe(
    target: &ProbeTarget,
    family: Family,
    credential: &TurnCredential,
    roots: &Roots,
) -> Result<Duration, Failure> {
    let started = Instant::now();
    let deadline = started + DEADLINE;
    let mut first = connect(target, credential, roots, deadline).await?;
    let mut second = connect(target, credential, roots, deadline).await?;
    let met = meet(&mut first, &mut second, family).await;
    // A relay that has just failed to answer is not waited for much longer.
    let until = Instant::now() + RELEASE;
    let _ = tokio::join!(first.release(until), second.release(until));
    met.map(|()| started.elapsed())
}

/// Proves that the relay accepts a credential.
///
/// # Errors
/// What is wrong.
pub async fn accepts(
    target: &ProbeTarget,
    family: Family,
    credential: &TurnCredential,
    roots: &Roots,
) -> Result<(), Failure> {
    let deadline = Instant::now() + DEADLINE;
    let mut client = connect(target, credential, roots, deadline).await?;
    client.allocate(family).await?;
    let _ = client.release(Instant::now() + RELEASE).await;
    Ok(())
}

async fn connect(
    target: &ProbeTarget,
    credential: &TurnCredential,
    roots: &Roots,
    deadline: Instant,
) -> Result<TurnClient, Failure> {
    let link = Link::connect(target.transport, target.address, &target.name, roots, deadline).await?;
    Ok(TurnClient::new(link, credential.clone(), deadline))
}

async fn meet(first: &mut TurnClient, second: &mut TurnClient, family: Family) -> Result<(), Failure> {
    let at_first = first.allocate(family).await?;
    let at_second = second.allocate(family).await?;
    first.bind(CHANNEL, at_second).await?;
    second.permit(at_first).await?;
    let there = b"hairpin probe, over a channel";
    let until = Instant::now() + DATA;
    loop {
        first.send_on(CHANNEL, there).await?;
        if second.from_peer(Instant::now() + AGAIN).await? == Some(FromPeer::Data(at_first, there.to_vec())) {
            break;
        }
        if Instant::now() >= until {
            return Err(Failure::Lost(Direction::Channel));
        }
    }
    let back = b"hairpin probe, by an indication";
    let until = Instant::now() + DATA;
    loop {
        second.send_to(at_first, back).await?;
        if first.from_peer(Instant::now() + AGAIN).await? == Some(FromPeer::Channel(CHANNEL, back.to_vec())) {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Failure::Lost(Direction::Indication));
        }
    }
}
