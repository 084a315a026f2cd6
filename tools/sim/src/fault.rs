//! What goes wrong: connections break, processes stop and crash, nodes are cut off.

use ringmaster_protocol::control::ControlRequest;

use crate::{
    network::pair,
    sim::{Event, Sim},
};

impl Sim {
    /// Spreads the faults over the first four fifths of a run.
    pub(crate) fn plan_faults(&mut self) {
        self.faults_left = self.options.faults;
        for _ in 0..self.options.faults {
            let at = self.random.below(self.options.seconds * 800_000);
            self.after(at, Event::Fault);
        }
    }

    pub(crate) fn fault(&mut self) {
        self.faults_left = self.faults_left.saturating_sub(1);
        self.summary.faults += 1;
        let node = self.random.index(self.nodes.len());
        let other = self.random.index(self.nodes.len());
        match self.random.below(5) {
            0 if other != node && !self.broken.contains(&pair(node, other)) => {
                self.break_link(node, other);
            }
            1 => {
                let micros = self.random.range(1_000, 1_500_000);
                self.pause(node, micros);
            }
            2 => {
                self.crash(node);
            }
            3 => {
                self.cut_off(node);
            }
            _ => self.want_recovery("somebody wants one"),
        }
    }

    /// The connection between two nodes breaks and comes back; what was under way is lost.
    pub fn break_link(&mut self, a: usize, b: usize) {
        self.note(|| format!("FAULT connection {a} - {b} breaks"));
        self.broken.insert(pair(a, b));
        self.lose(a, b);
        self.healing += 1;
        let time = self.random.range(1_000, 500_000);
        self.after(time, Event::Reconnect { a, b });
        self.want_recovery("a connection broke");
    }

    pub(crate) fn reconnect(&mut self, a: usize, b: usize) {
        self.note(|| format!("connection {a} - {b} stands"));
        self.healing -= 1;
        self.broken.remove(&pair(a, b));
        self.meet(a, b);
        self.want_recovery("a connection stands again");
    }

    /// The daemon of a node does nothing for a while; its clients go on.
    pub fn pause(&mut self, node: usize, micros: u64) {
        self.note(|| format!("FAULT node {node} stops for {micros} us"));
        let until = self.now + micros;
        let known = &mut self.nodes[node].paused_until;
        *known = until.max(*known);
    }

    /// A node dies with all its volatile records; it is started again later.
    pub fn crash(&mut self, node: usize) {
        if !self.nodes[node].alive || self.nodes.iter().filter(|node| node.alive).count() < 2 {
            return;
        }
        self.note(|| format!("FAULT node {node} crashes"));
        self.nodes[node].alive = false;
        for other in 0..self.nodes.len() {
            if other != node {
                self.lose(node, other);
            }
        }
        self.clients_die(node);
        self.waiters.retain(|_, (of, _)| *of != node);
        self.outstanding.retain(|_, asked| asked.from != node);
        self.healing += 1;
        let down = self.random.range(10_000, 3_000_000);
        self.after(down, Event::Restart { node });
        self.want_recovery("a node died");
    }

    pub(crate) fn restart(&mut self, node: usize) {
        self.note(|| format!("node {node} starts"));
        self.healing -= 1;
        let cut = self.nodes[node].cut;
        let life = self.nodes[node].life + 1;
        self.nodes[node] = self.new_node(node, life);
        self.nodes[node].cut = cut;
        self.start_node(node);
        self.want_recovery("a node came");
    }

    /// A node is cut off from all others, for a while.
    pub fn cut_off(&mut self, node: usize) {
        let others = self.nodes.iter().filter(|node| node.alive && !node.cut).count();
        if self.nodes[node].cut || others < 2 {
            return;
        }
        self.note(|| format!("FAULT node {node} is cut off"));
        for other in 0..self.nodes.len() {
            if other != node {
                self.lose(node, other);
            }
        }
        self.nodes[node].cut = true;
        // As one that has lost its quorum is.
        self.order(node, 0, &ControlRequest::StopNode);
        self.healing += 1;
        let time = self.random.range(10_000, 3_000_000);
        self.after(time, Event::Heal { node });
        self.want_recovery("a node is cut off");
    }

    pub(crate) fn heal(&mut self, node: usize) {
        self.note(|| format!("node {node} is no longer cut off"));
        self.healing -= 1;
        self.nodes[node].cut = false;
        if self.nodes[node].alive {
            self.order(node, 0, &ControlRequest::ContinueNode);
        }
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.meet(node, other);
        }
        self.want_recovery("a node came back");
    }
}
