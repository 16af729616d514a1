//! Faults: what a manager does to a request instead of, or beside, serving it.

use std::time::Duration;

use crate::Reply;

/// What happens.
#[derive(Clone, Debug)]
pub enum Action {
    /// It answers so.
    Answer(Reply),
    /// It closes the connection and does nothing.
    ResetBefore,
    /// It does what was asked and closes the connection without an answer.
    ResetAfter,
    /// It does what was asked and answers late.
    Slow(Duration),
    /// Before it is served, somebody else changes the route that the request is for.
    ChangedBefore,
}

/// To which requests it happens.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Only on this node.
    pub node: Option<usize>,
    /// Only with this method.
    pub method: Option<&'static str>,
    /// Only if the path holds this.
    pub path: &'static str,
    /// How often; `None` for ever.
    pub times: Option<u32>,
    /// What.
    pub action: Action,
}

impl Fault {
    /// A fault of requests with this method whose path holds this.
    #[must_use]
    pub const fn on(method: &'static str, path: &'static str, times: u32, action: Action) -> Self {
        Self { node: None, method: Some(method), path, times: Some(times), action }
    }

    /// A fault of every request to a node, for ever.
    #[must_use]
    pub const fn of_node(node: usize, action: Action) -> Self {
        Self { node: Some(node), method: None, path: "", times: None, action }
    }

    /// Whether it happens now; counts.
    pub(crate) fn strikes(&mut self, node: usize, method: &str, path: &str) -> bool {
        let fits = self.node.is_none_or(|only| only == node)
            && self.method.is_none_or(|only| only == method)
            && path.contains(self.path);
        match &mut self.times {
            Some(0) => false,
            Some(times) if fits => {
                *times -= 1;
                true
            }
            _ => fits,
        }
    }
}
