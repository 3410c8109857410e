//! What scripts and programs are told about why they run, in the words of both families that they were written for.

use controlplane_core::group::Origin;

/// Whether this node is the group's preferred one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// It is.
    Home,
    /// It is not.
    Other,
}

/// Why something stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    /// It does not: it starts.
    None,
    /// The group stops.
    GroupStop,
    /// It goes on at the other node, as an operator wants it.
    GroupMove,
    /// It failed here, and may go on at the other node.
    GroupFailover,
    /// It failed and is started again.
    ResourceRestart,
}

/// What is told.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The group's name.
    pub group: String,
    /// The resource's name.
    pub resource: String,
    /// Why the group runs here.
    pub origin: Origin,
    /// Where.
    pub server: Server,
    /// The node that served before, after a failover.
    pub previous: Option<String>,
    /// Why something stops.
    pub factor: Factor,
}

impl Environment {
    /// The variables.
    pub fn variables(&self, script: &str) -> Vec<(&'static str, String)> {
        let event = match self.origin {
            Origin::Start => "START",
            Origin::Failover => "FAILOVER",
        };
        let (server, priority) = match self.server {
            Server::Home => ("HOME", "1"),
            Server::Other => ("OTHER", "2"),
        };
        let factor = match self.factor {
            Factor::None => "",
            Factor::GroupStop => "GROUPSTOP",
            Factor::GroupMove => "GROUPMOVE",
            Factor::GroupFailover => "GROUPFAILOVER",
            Factor::ResourceRestart => "RESOURCERESTART",
        };
        let previous = self.previous.clone().unwrap_or_default();
        let mut variables = vec![
            ("CLP_EVENT", event.to_string()),
            ("CLP_SERVER", server.to_string()),
            ("CLP_SERVER_PREV", previous),
            // A group starts only on a copy that counts.
            ("CLP_DISK", "SUCCESS".to_string()),
            ("CLP_PRIORITY", priority.to_string()),
            ("CLP_GROUPNAME", self.group.clone()),
            ("CLP_RESOURCENAME", self.resource.clone()),
            ("CLP_SCRIPT_PATH", script.to_string()),
            ("CLP_LASTACTION", "NONE".to_string()),
            ("ARMS_EVENT", event.to_string()),
            ("ARMS_SERVER", server.to_string()),
            ("ARMS_DISK", "SUCCESS".to_string()),
            ("ARMS_GROUPNAME", self.group.clone()),
        ];
        if self.factor != Factor::None {
            variables.push(("CLP_FACTOR", factor.to_string()));
        }
        variables
    }
}
