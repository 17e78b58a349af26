//! Serving the agent's connection: its requests in, replies and events out. Forwarding goes on without it.

use crate::channel::Ended;
use crate::engine::Engine;
use crate::log;
use crate::messages::{Command, Event, parse_request};

impl Engine {
    pub(crate) fn serve_agent(&mut self, token: u64) {
        let mut ended = None;
        match self.channel.connection() {
            Some(connection) if connection.token == token => ended = connection.fill().err(),
            _ => {
                let Some(hello) = self.channel.hear_newcomer(token, is_hello) else { return };
                self.syncing = false;
                self.handle_request(&hello);
            }
        }
        while let Some(connection) = self.channel.connection() {
            match connection.next_frame() {
                Ok(Some(frame)) => self.handle_request(&frame),
                Ok(None) => break,
                Err(error) => {
                    ended = Some(error);
                    break;
                }
            }
        }
        // Everything asked for is in place when the replies go out.
        self.reconcile_host();
        self.drain_outputs();
        if let Some(ended) = ended {
            self.agent_gone(&ended);
        }
    }

    fn agent_gone(&mut self, ended: &Ended) {
        match ended {
            Ended::Closed => log::info("the agent is gone; forwarding goes on", &[]),
            Ended::Failed(why) => log::warn("the agent's connection failed; forwarding goes on", &[("error", why)]),
        }
        self.syncing = false;
        self.channel.close();
    }

    pub(crate) fn flush_channel(&mut self) {
        let Some(connection) = self.channel.connection() else { return };
        if let Err(ended) = connection.flush() {
            return self.agent_gone(&ended);
        }
        let wants = connection.has_outgoing();
        if wants != connection.waits_to_write {
            connection.waits_to_write = wants;
            if let Err(error) = self.poller.set_writable_interest(connection, connection.token, wants) {
                log::warn("epoll", &[("error", &error)]);
            }
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        self.channel.send_event(event, &mut self.tunnel.stats);
    }
}

fn is_hello(frame: &[u8]) -> bool {
    matches!(parse_request(frame), (_, Ok(Command::Hello)))
}
