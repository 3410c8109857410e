//! What the status says of nodes that operators suspended.

use controlplane_api::cluster::ClusterStatus;

/// Who resumes a node.
pub(crate) fn resume(status: &ClusterStatus, node: &str) -> String {
    if status.suspended_together.iter().any(|name| name == node) {
        "`lockstep cluster resume`".to_string()
    } else {
        format!("`lockstep node resume {node}`")
    }
}

fn resumes(status: &ClusterStatus) -> String {
    let mut verbs = Vec::new();
    for node in &status.suspended {
        let verb = resume(status, node);
        if !verbs.contains(&verb) {
            verbs.push(verb);
        }
    }
    verbs.join(" and ")
}

/// What that takes from the cluster.
pub(super) fn lacking(status: &ClusterStatus) -> Option<String> {
    let verbs = resumes(status);
    match &*status.suspended {
        [] => None,
        [node] => Some(format!(
            "{node} is suspended and takes nothing over; {verbs} ends that"
        )),
        [..] => Some(format!(
            "both nodes are suspended: nothing is moved and nothing is taken over; {verbs} ends that"
        )),
    }
}

/// One line, for one node as for both.
pub(super) fn row(status: &ClusterStatus) -> Option<String> {
    match &*status.suspended {
        [] => None,
        [node] => Some(format!(
            "{node}  takes nothing over, nothing is moved there"
        )),
        [..] => {
            let verbs = resumes(status);
            Some(format!(
                "both nodes  nothing is moved, nothing is taken over, until {verbs}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::good;

    #[test]
    fn both_nodes_are_one_line_and_it_says_what_ends_it() {
        let mut status = good();
        assert_eq!((lacking(&status), row(&status)), (None, None));
        status.suspended = vec!["node1".to_string(), "node2".to_string()];
        status.suspended_together = status.suspended.clone();
        let told = |status: &ClusterStatus| row(status).expect("a row");
        let row = told(&status);
        assert!(row.ends_with("until `lockstep cluster resume`"), "{row}");
        let said = lacking(&status).expect("a sentence");
        assert!(said.starts_with("both nodes are suspended"), "{said}");
        status.suspended_together.pop();
        let row = told(&status);
        let verbs = "`lockstep cluster resume` and `lockstep node resume node2`";
        assert!(row.ends_with(verbs), "{row}");
        status.suspended = vec!["node2".to_string()];
        let row = told(&status);
        assert!(row.starts_with("node2  takes nothing over"), "{row}");
    }
}
