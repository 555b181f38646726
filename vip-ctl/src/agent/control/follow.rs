//! Events over the agent's socket: the ones that the agent keeps and, if the
//! client follows, new ones too, one JSON object a line. A follower that reads
//! slowly loses events and is told so; one that does not read at all only
//! occupies a place.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::Semaphore,
};

use super::Response;
use crate::{
    events::{Event, Events},
    exit::Exit,
};

/// How many may follow at once.
const FOLLOWERS_MAX: usize = 16;

/// Serves followers.
pub struct Follow {
    events: Events,
    places: Semaphore,
}

impl Follow {
    /// A server of these events.
    #[must_use]
    pub fn new(events: Events) -> Self {
        Self { events, places: Semaphore::new(FOLLOWERS_MAX) }
    }

    /// The events themselves.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Sends the events that the agent keeps, only of `group` if it is named; if
    /// `follow`, goes on with new ones until the client goes away.
    ///
    /// # Errors
    /// When the client has gone away.
    pub async fn serve(
        &self,
        group: Option<&str>,
        follow: bool,
        mut read: OwnedReadHalf,
        mut write: OwnedWriteHalf,
    ) -> io::Result<()> {
        let Ok(_place) = self.places.try_acquire() else {
            let message = format!("{FOLLOWERS_MAX} clients follow this agent's events already: end one");
            let refusal = Response::Error { code: Exit::Busy as u8, message };
            return write.write_all(&line(&refusal)?).await;
        };
        let is_wanted = |event: &Event| group.is_none_or(|group| event.group.as_deref() == Some(group));
        let (recent, mut coming) = self.events.recent_and_subscribe();
        for event in recent.iter().filter(|event| is_wanted(event)) {
            write.write_all(&line(event.as_ref())?).await?;
        }
        if !follow {
            return write.shutdown().await;
        }
        loop {
            let event = tokio::select! {
                event = coming.next() => event,
                // A client has nothing more to send, so anything that arrives ends it.
                _ = read.read_u8() => None,
            };
            let Some(event) = event else { break };
            // A lagging follower is always told, even when it filters by group.
            if is_wanted(&event) || event.group.is_none() && event.seq == 0 {
                write.write_all(&line(event.as_ref())?).await?;
            }
        }
        write.shutdown().await
    }
}

fn line(value: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncBufReadExt, BufReader},
        net::UnixStream,
    };

    use super::*;
    use crate::events::Kind;

    fn late() -> Kind {
        Kind::Late { by_ms: 1, margin_ms: 2 }
    }

    #[tokio::test]
    async fn a_follower_gets_what_is_kept_and_what_comes_of_its_group() {
        let events = Events::new("db-a", None);
        let follow = Arc::new(Follow::new(events.clone()));
        events.publish(Some("db"), late(), "kept");
        events.publish(Some("web"), late(), "another's");
        let (client, server) = UnixStream::pair().unwrap();
        let served = tokio::spawn(async move {
            let (read, write) = server.into_split();
            follow.serve(Some("db"), true, read, write).await
        });
        let mut lines = BufReader::new(client).lines();
        let mut next =
            async || serde_json::from_str::<Event>(&lines.next_line().await.unwrap().unwrap()).unwrap();
        assert_eq!(next().await.message, "kept");
        events.publish(Some("web"), late(), "another's");
        events.publish(Some("db"), late(), "new");
        assert_eq!(next().await.message, "new");
        drop(lines);
        served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn there_are_places_for_some_and_the_rest_is_told_so() {
        let follow = Arc::new(Follow::new(Events::new("db-a", None)));
        let mut clients = Vec::new();
        for _ in 0..=FOLLOWERS_MAX {
            let (client, server) = UnixStream::pair().unwrap();
            let follow = Arc::clone(&follow);
            tokio::spawn(async move {
                let (read, write) = server.into_split();
                follow.serve(None, true, read, write).await
            });
            clients.push(BufReader::new(client));
            tokio::task::yield_now().await;
        }
        let mut said = String::new();
        clients.last_mut().unwrap().read_line(&mut said).await.unwrap();
        assert!(matches!(serde_json::from_str(&said).unwrap(), Response::Error { code: 75, .. }), "{said}");
    }
}
