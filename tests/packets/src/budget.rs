//! Ceilings for the verifier's work, in one place.
//!
//! The verifier gives up after a million instructions, and kernels differ in how well they prune. What a program needs on
//! which kernel stands in `docs/kernels.md`.

/// Most instructions that the verifier may follow, for each program of the object.
pub const CEILINGS: [(&str, u32); 12] = [
    ("levee", 250_000),
    ("levee_connect4", 3_000),
    ("levee_connect6", 3_000),
    ("levee_egress", 30_000),
    ("levee_frags", 250_000),
    ("levee_lookup", 100_000),
    ("levee_lookup_frags", 100_000),
    ("levee_peer4", 1_000),
    ("levee_peer6", 1_000),
    ("levee_trace", 250_000),
    ("levee_trace_frags", 250_000),
    ("pass", 100),
];

/// What is wrong with the number of instructions that the verifier followed; kernels before 5.16 do not tell it.
///
/// # Errors
/// With program, figure and ceiling, or the name of a program that has no ceiling.
pub fn check(program: &str, verified: Option<u32>) -> Result<(), String> {
    let Some((_, ceiling)) = CEILINGS.iter().find(|(name, _)| *name == program) else {
        return Err(format!("{program} has no ceiling: add one to {}", file!()));
    };
    match verified {
        Some(verified) if verified > *ceiling => {
            Err(format!("{program} takes {verified} verified instructions, more than the ceiling of {ceiling}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_beyond_its_ceiling_is_named_with_figure_and_ceiling() {
        assert_eq!(check("levee", Some(250_000)), Ok(()));
        let expected = "levee takes 250001 verified instructions, more than the ceiling of 250000";
        assert_eq!(check("levee", Some(250_001)), Err(expected.to_owned()));
    }

    #[test]
    fn a_program_without_a_ceiling_is_named() {
        let reason = check("levee_new", Some(1)).unwrap_err();
        assert!(reason.starts_with("levee_new has no ceiling: add one to "), "{reason}");
    }
}
