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
        let failed = self.handle_requests().err();
        self.served(failed.or(ended));
    }

    /// What the agent has asked for, in its order.
    pub(crate) fn handle_requests(&mut self) -> Result<(), Ended> {
        while let Some(connection) = self.channel.connection() {
            let Some(frame) = connection.peek()? else { break };
            let is_policy = self.policy_preparation.asks_for_policy(frame);
            if self.policy_preparation.is_under_way() && (is_policy || self.syncing) {
                connection.paused = true;
                break;
            }
            let token = connection.token;
            let Some(frame) = connection.next_frame()? else { break };
            let frame = match is_policy && self.config.is_some() {
                true => self.policy_preparation.begin(frame, token, self.sync),
                false => Some(frame),
            };
            if let Some(frame) = frame {
                self.handle_request(&frame);
            }
        }
        Ok(())
    }

    pub(crate) fn served(&mut self, ended: Option<Ended>) {
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
        let wanted = connection.wanted_interest();
        if wanted != connection.interest {
            connection.interest = wanted;
            if let Err(error) = self.poller.set_interest(connection, connection.token, wanted) {
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
