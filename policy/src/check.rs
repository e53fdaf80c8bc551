//! Rules that tie the values of a policy together.

use crate::fault::Problem;
use crate::schema::Policy;
use crate::source::Source;

/// Everything that is wrong with the meaning of a policy.
pub(crate) fn problems(_policy: &Policy, _source: &Source) -> Vec<Problem> {
    Vec::new()
}
