//! A change is followed everywhere before it is answered.

use super::Router;
use crate::codec::peers::Change;
use crate::follow::WAIT_MAX;

impl Router {
    /// Something was changed in the store: this node and every linked one follow. What has a hundred
    /// thousand residents to tell goes on after the answer.
    pub async fn changed(&self, change: Change) {
        let told = async {
            if let Some(peers) = &self.peers {
                peers.tell_change(&change, WAIT_MAX).await;
            }
        };
        futures::join!(self.follow.changed(change), told);
    }
}
