//! How many files and connections the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as the process may: many systems begin with 1,024, which is less than a
/// busy service has connections. Answers what holds from now on; nothing: there is no limit.
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
    fn the_limit_is_raised_as_far_as_it_goes() {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let lowered = Rlimit {
            current: current.map(|files| files - 1),
            maximum,
        };
        setrlimit(Resource::Nofile, lowered).expect("it may be lowered");
        assert_eq!(raise_limit(), maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
