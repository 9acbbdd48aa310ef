//! The limit on open files, and so on connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one: the usual default of 1,024 is too low for a busy service. Returns
/// the new limit, or `None` if it is unlimited.
pub fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_the_maximum() {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let lowered = Rlimit {
            current: current.map(|files| files - 1),
            maximum,
        };
        setrlimit(Resource::Nofile, lowered).expect("lowering is always allowed");
        assert_eq!(raise_limit(), maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
